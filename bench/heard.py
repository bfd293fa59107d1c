"""Share of pieces whose style two taggers of music recognize: `uv run python -m bench.heard`.

It needs the extra models and the dependency group musicnn.

The default recipe writes music for three clips in each of Sketch's ten styles, asked for as its genre, with five seeds.
The sound of the finished videos goes to musicnn's two networks, which were trained on other people's music. A piece is
recognized where a tag that its style may expect (`v2m.evaluation.tag_recall.GENRE_TAGS`) is among the three most
probable of either network. chance: the same with the words of the nine other styles in place of its own.

    --style rock --seed 1     only these pieces; both may be given several times
    --wav FOLDER              the pieces as WAV
    --cache FOLDER            what is kept between runs, by a hash of code and SoundFont

The last line is JSON: `pieces`; `recognised`, the share of them; `per_style`; and `before`, `recognised` of
bench/results/heard_before.json, measured in the same manner before the styles were judged so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.clips import EDITS, EXAMPLE, make
from bench.sketch_pieces import code_hash
from v2m.core.types import Audio, Tags, Video
from v2m.evaluation.embedders.musicnn import TAGS, MusicnnEmbedder
from v2m.evaluation.tag_recall import GENRE_TAGS, expected_tags, top_tags
from v2m.generators.sketch import Sketch
from v2m.media import audio, video
from v2m.mixing.mastering import Levels
from v2m.mixing.mixdown import MixConfig, mix_tracks
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT
from v2m.sketch.styles import STYLES
from v2m.taggers.heuristic import HeuristicTagger

ROOT = Path(__file__).parents[1]
SEEDS = (1, 2, 3, 4, 5)
CLIP_EDITS = ("short", "loose")  # of `bench.clips`, 8 and 16 s, beside the example of 17 s
CODE = ("sketch", "analysis", "core", "taggers", "mixing", "generators/sketch.py", "media/video.py")
CACHE = Path(tempfile.gettempdir()) / "v2m-heard"


@dataclass(frozen=True)
class Piece:
    """A piece, and the mean probability of each tag by network."""

    style: str
    seed: int
    clip: str
    tag_probs: Mapping[str, Mapping[str, float]]

    @property
    def top_tags(self) -> dict[str, list[str]]:
        return {network: top_tags(probs) for network, probs in self.tag_probs.items()}

    def has_tag_of(self, style: str) -> bool:
        """Return whether a tag that `style` may expect is among the top tags of either network."""
        return any(expected_tags(style, GENRE_TAGS) & set(tags) for tags in self.top_tags.values())


def render(clip: Video, style: str, seed: int) -> Audio:
    """Return the sound of the finished video: composed by the default recipe, mixed and mastered."""
    tags = HeuristicTagger().tag(clip, Tags(genres=[style]))
    config = MixConfig()
    mixdown = mix_tracks(clip, Sketch().generate(clip, tags, seed).audio, config)
    Levels.from_audio(mixdown.audio).master(mixdown.target_loudness, config.true_peak).apply(mixdown.audio)
    return mixdown.audio


def write_clips(folder: Path) -> list[Video]:
    edits = tuple(edit for edit in EDITS if edit.name in CLIP_EDITS)
    return [video.open(EXAMPLE), *(video.open(clip.path) for clip in make(folder, len(edits), edits=edits))]


def listen(styles: list[str], seeds: list[int], cache: Path, wav: Path | None) -> Iterator[Piece]:
    """Yield the pieces; what is in the cache is not rendered again, unless its sound is to be written."""
    folder = cache / code_hash(CODE, Path(__file__).with_name("clips.py"), DEFAULT_SOUNDFONT)
    folder.mkdir(parents=True, exist_ok=True)
    networks = [MusicnnEmbedder(name) for name in TAGS]
    with tempfile.TemporaryDirectory() as clips_folder:
        clips = write_clips(Path(clips_folder))
        for style, seed, clip in ((style, seed, clip) for style in styles for seed in seeds for clip in clips):
            name = f"{style.replace(' ', '_')}-{seed}-{clip.path.stem}"
            file = folder / f"{name}.json"
            if wav is not None or not file.is_file():
                sound = render(clip, style, seed)
                probs = {network.name: network.mean_tag_probs(network.analyze(sound)) for network in networks}
                file.write_text(json.dumps(probs))
                if wav is not None:
                    audio.save(sound, wav / f"{name}.wav")
            yield Piece(style, seed, clip.path.stem, json.loads(file.read_text()))


def summarize(pieces: list[Piece]) -> dict[str, object]:
    """Print the table by style and return the figures."""
    styles = list(dict.fromkeys(piece.style for piece in pieces))
    per_style = {}
    for style in styles:
        own, others = ([piece for piece in pieces if (piece.style == style) == same] for same in (True, False))
        per_style[style] = share(piece.has_tag_of(style) for piece in own)
        tags = [tag for piece in own for top in piece.top_tags.values() for tag in top]
        common = ", ".join(f"{tag} {count}" for tag, count in Counter(tags).most_common(6))
        alarms = share(piece.has_tag_of(style) for piece in others) if others else float("nan")
        print(f"{style:14s} {per_style[style]:5.2f}  of other styles {alarms:4.2f}  most often: {common}")
        print(f"{'':14s} expects {', '.join(sorted(expected_tags(style, GENRE_TAGS)))}")
    stored = ROOT / "bench" / "results" / "heard_before.json"
    return {
        "pieces": len(pieces),
        "recognised": share(piece.has_tag_of(piece.style) for piece in pieces),
        "per_style": per_style,
        "chance": share(piece.has_tag_of(other) for piece in pieces for other in STYLES if other != piece.style),
        "before": json.loads(stored.read_text())["recognised"] if stored.is_file() else None,
    }


def share(values: Iterable[bool]) -> float:
    return round(float(np.mean(list(values))), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", action="append", choices=STYLES)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--wav", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    pieces = []
    for piece in listen(args.style or list(STYLES), args.seed or list(SEEDS), args.cache, args.wav):
        pieces.append(piece)
        mark = "+" if piece.has_tag_of(piece.style) else "-"
        tops = "; ".join(f"{network} {', '.join(tags)}" for network, tags in piece.top_tags.items())
        print(f"{mark} {piece.style} {piece.seed} {piece.clip}: {tops}", flush=True)
    print(json.dumps(summarize(pieces)))


if __name__ == "__main__":
    main()
