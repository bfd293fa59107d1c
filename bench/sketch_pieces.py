"""Pieces by Sketch in all styles, with their true beats: `python -m bench.sketch_pieces`.

Each is 26 s long and written for random cuts at a random tempo near its style's. The audio is kept in `--cache`, by a
hash of the code and of the SoundFont; the command prints the folder. It renders with the v2m of its own checkout.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from tests.sketch.stub_videos import video
from v2m.core.types import Audio, Floats, Tags
from v2m.generators.sketch import Sketch
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT
from v2m.sketch.styles import STYLES

ROOT = Path(__file__).parents[1]
RATE, SECONDS = 44100, 26.0
SEEDS = (12,)
CACHE = Path(tempfile.gettempdir()) / "v2m-sketch-pieces"
CODE = ("sketch", "core", "generators/sketch.py")


@dataclass(frozen=True)
class SketchPiece:
    """A piece; `beats` (B,) in seconds are those of its plan, `tempo` what it was asked for."""

    style: str
    sound: Audio
    beats: Floats
    tempo: float


def code_hash(places: Iterable[str], *files: Path) -> str:
    """Return a hash of the code at `places` in v2m and of `files`."""
    digest = sha256()
    for path in (*files, *(ROOT / "v2m" / place for place in places)):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder(soundfont: Path, cache: Path) -> Path:
    """Return the folder of the pieces that this code writes with `soundfont`."""
    return cache / code_hash(CODE, soundfont)


def sketch_pieces(
    soundfont: Path, cache: Path = CACHE, seeds: Iterable[int] = SEEDS, styles: Collection[str] = tuple(STYLES)
) -> Iterator[SketchPiece]:
    """Yield a piece of each style and seed, rendered where it is not in the cache."""
    folder = cache_folder(soundfont, cache)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (number, style) in ((seed, pair) for seed in seeds for pair in enumerate(STYLES) if pair[1] in styles):
        file = folder / f"{style.replace(' ', '_')}-{seed}.npz"
        if not file.is_file():
            random = np.random.default_rng([seed, number])
            times = np.cumsum(random.uniform(1.0, 5.0, 30))
            cuts = tuple((float(time), float(random.uniform(0.2, 1))) for time in times[times < SECONDS - 3])
            tempo = float(STYLES[style].tempo[1] * random.uniform(0.85, 1.15))
            sketch = Sketch(style=style, soundfont=str(soundfont), sample_rate=RATE)
            piece = sketch.generate(video(SECONDS, cuts), Tags(tempo=tempo), seed)
            assert piece.beats is not None
            samples = (piece.audio.samples * 32767).astype(np.int16)
            np.savez(file, samples=samples, beats=piece.beats, tempo=tempo)
        yield load_piece(file)


def load_piece(file: Path) -> SketchPiece:
    with np.load(file) as arrays:
        sound = Audio(arrays["samples"].astype(np.float32) / 32768, RATE)
        style = file.stem.rsplit("-", 1)[0].replace("_", " ")
        return SketchPiece(style, sound, arrays["beats"], float(arrays["tempo"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soundfont", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--style", action="append", choices=[*STYLES])
    args = parser.parse_args()
    soundfont = args.soundfont or DEFAULT_SOUNDFONT
    for piece in sketch_pieces(soundfont, args.cache, args.seed or SEEDS, args.style or tuple(STYLES)):
        print(piece.style, len(piece.beats), "beats", flush=True)
    print(cache_folder(soundfont, args.cache))


if __name__ == "__main__":
    main()
