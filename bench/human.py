"""Sketch's music beside music that people wrote, and that a large model did: `python -m bench.human`.

Needs the group musicnn. People's are the pieces of the soundtrack of Battle for Wesnoth (Debian's package
wesnoth-1.16-music; `--music FOLDER`; nothing is copied); the model's are ACE-Step's (`--tracks`, as `bench.listening`):
26 s from second 10 on of each, silence left out. Sketch's are those of `bench.sketch_pieces`: three in each style, and
in the four styles of film eight. The baseline is a loop of drums, bass and chords at 30 random tempi. All are brought
to −14 LUFS.

FAD is of musicnn's embeddings (MSD, windows of 3 s): of the styles of film to people's music, of all styles to people's
and to ACE-Step's. `halves` is that of two random halves of the reference, the mean of ten: what sets this small have by
chance. `before` are pieces of the checkout in `--before`. The table has, for each statistic, the 10th, 50th and 90th
percentile over pieces; a `<` or `>` marks a median outside of people's 10th to 90th.

    --before FOLDER     pieces that `bench.sketch_pieces` of an older checkout wrote, the same ones

Last line: one JSON object; its `fad_now`, `fad_before` and `fad_loop` are those of film's styles to people's music.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np

from bench.align_to_cuts import loop
from bench.listening import ace_step_tracks
from bench.sketch_pieces import RATE, SECONDS, SketchPiece, load_piece, sketch_pieces
from v2m.analysis import defects
from v2m.analysis.loudness import integrated_loudness
from v2m.analysis.notes import LOWEST, note_activations
from v2m.analysis.rhythm import HOPS_PER_SECOND, onset_strength, track_beats
from v2m.core.timing import db_to_gain, seconds_to_samples
from v2m.core.types import Audio, Floats
from v2m.evaluation.distances import frechet_distance
from v2m.evaluation.embedders.musicnn import MusicnnEmbedder
from v2m.media import audio
from v2m.media.audio import SilentAudioError
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT
from v2m.sketch.styles import STYLES

MUSIC = Path("/usr/share/games/wesnoth/1.16/data/core/music")
CACHE = Path(tempfile.gettempdir()) / "v2m-human"
START, LUFS, NUM_LOOPS, NUM_SPLITS = 10.0, -14.0, 30, 10
SEEDS, FILM_SEEDS = range(12, 15), range(12, 20)
FILM_STYLES = ("ambient", "cinematic", "orchestral", "waltz")
STATISTICS = {
    "onsets": "a second",
    "notes": "sounding at once, of 64",
    "note changes": "a second, of the strongest note",
    "interval entropy": "bits, of steps between strongest notes, in semitones",
    "pitch entropy": "bits, of pitch classes",
    "rhythm entropy": "bits, of gaps between onsets, in sixteenths of a beat",
    "repetition": "how exactly the audio repeats, 0–1",
    "loudness range": "dB, 10th to 95th percentile over 0.4 s",
    "tempo": "beats per minute",
    "beat": "mean probability at the beats, 0–1",
}


def parts(paths: Iterable[Path]) -> list[Audio]:
    """Return a part of each piece, where there is one that sounds."""
    pieces = []
    for path in paths:
        try:
            whole = audio.load(path, RATE, START + SECONDS)
        except SilentAudioError:
            continue
        part = whole.samples[:, -min(seconds_to_samples(SECONDS, RATE), len(whole)) :]
        if np.abs(part).max(initial=0) > 1e-3:
            pieces.append(Audio(np.ascontiguousarray(part), RATE))
    return pieces


def loops() -> list[Audio]:
    return [loop(SECONDS, np.random.default_rng(seed))[0] for seed in range(NUM_LOOPS)]


def entropy(values: Iterable[int]) -> float:
    shares = np.unique(list(values), return_counts=True)[1]
    shares = shares / shares.sum()
    return float(-(shares * np.log2(shares)).sum())


def statistics(sound: Audio) -> list[float]:
    """Return the values of STATISTICS; NaN where one is undefined."""
    seconds = len(sound) / sound.sample_rate
    onsets = onset_strength(sound)
    wide = np.lib.stride_tricks.sliding_window_view(np.pad(onsets, 5), 11)
    peaks = np.flatnonzero((onsets == wide.max(axis=1)) & (onsets > wide.mean(axis=1) + 0.5 * onsets.std()))
    notes = note_activations(sound)
    strongest = notes[notes.any(axis=1)].argmax(axis=1)
    steps = np.diff(strongest)[np.diff(strongest) != 0]
    classes = np.bincount((LOWEST + np.arange(notes.shape[1])) % 12, notes.sum(axis=0), 12)
    classes = classes[classes > 0] / max(classes.sum(), 1e-9)
    track = track_beats(sound)
    beat_hops = HOPS_PER_SECOND * 60 / track.tempo if track else np.nan
    gaps = np.rint(np.diff(peaks) / beat_hops * 4).astype(int) if track else []
    block = seconds_to_samples(0.4, sound.sample_rate)
    power = np.square(sound.samples[:, : len(sound) // block * block]).mean(axis=0).reshape(-1, block).mean(axis=1)
    low, high = np.percentile(10 * np.log10(power + 1e-7), [10, 95])
    return [
        len(peaks) / seconds,
        float((notes > 0.3).sum(axis=1).mean()),
        len(steps) / seconds,
        entropy(steps) if len(steps) else np.nan,
        float(-(classes * np.log2(classes)).sum()),
        entropy(gaps) if len(gaps) else np.nan,
        defects.find_loop(sound)[0],
        high - low,
        track.tempo if track else np.nan,
        track.confidence if track else 0.0,
    ]


def measure(pieces: list[Audio], network: MusicnnEmbedder) -> tuple[list[Floats], Floats]:
    """Return each piece's embeddings (windows, 200), and (pieces, statistics); cached by the sound's hash."""
    CACHE.mkdir(exist_ok=True)
    embeddings, rows = [], []
    for piece in pieces:
        file = CACHE / f"{sha256(piece.samples.tobytes()).hexdigest()[:24]}.npz"
        if not file.is_file():
            loudness = integrated_loudness(piece)
            gain = db_to_gain(LUFS - (loudness if np.isfinite(loudness) else LUFS))
            sound = Audio(piece.samples * np.float32(gain), piece.sample_rate)
            np.savez(file, embeddings=network.embed_audio(sound).embeddings, statistics=statistics(sound))
        with np.load(file) as arrays:
            embeddings.append(np.asarray(arrays["embeddings"], float))
            rows.append(arrays["statistics"])
        print(".", end="", flush=True)
    print()
    return embeddings, np.array(rows)


def fad(a: list[Floats], b: list[Floats]) -> float:
    return frechet_distance(np.concatenate(a), np.concatenate(b))


def halves_fad(embeddings: list[Floats]) -> float:
    distances = []
    for seed in range(NUM_SPLITS):
        order = np.random.default_rng(seed).permutation(len(embeddings))
        one, other = (order[: len(order) // 2], order[len(order) // 2 :])
        distances.append(fad([embeddings[k] for k in one], [embeddings[k] for k in other]))
    return float(np.mean(distances))


def print_table(tables: dict[str, Floats]) -> dict[str, dict[str, list[float]]]:
    """Print and return the percentiles of each statistic by group."""
    reference = np.nanpercentile(tables["people"], [10, 90], axis=0)
    print(
        f"{'10th 50th 90th percentile':18s}" + "".join(f"{name} (n={len(t)})".rjust(26) for name, t in tables.items())
    )
    result: dict[str, dict[str, list[float]]] = {}
    for column, (name, unit) in enumerate(STATISTICS.items()):
        cells = []
        for group, table in tables.items():
            low, middle, high = np.nanpercentile(table[:, column], [10, 50, 90])
            result.setdefault(name, {})[group] = [round(float(value), 2) for value in (low, middle, high)]
            mark = "<" if middle < reference[0, column] else ">" if middle > reference[1, column] else " "
            cells.append(f"{low:8.2f}{middle:8.2f}{high:8.2f}{mark}".rjust(26))
        print(f"{name:25s}" + "".join(cells) + f"  {unit}")
    return result


def sketch_sets(pieces: Iterable[tuple[SketchPiece, int]]) -> tuple[list[Audio], list[Audio]]:
    """Return the pieces of all styles in SEEDS, and those of film's styles in FILM_SEEDS."""
    pairs = list(pieces)
    film = [piece.sound for piece, seed in pairs if piece.style in FILM_STYLES and seed in FILM_SEEDS]
    return [piece.sound for piece, seed in pairs if seed in SEEDS], film


def pieces_now() -> Iterable[tuple[SketchPiece, int]]:
    for seed in FILM_SEEDS:
        styles = tuple(STYLES) if seed in SEEDS else FILM_STYLES
        yield from ((piece, seed) for piece in sketch_pieces(DEFAULT_SOUNDFONT, seeds=[seed], styles=styles))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, default=MUSIC)
    parser.add_argument("--tracks", type=Path)
    parser.add_argument("--before", type=Path, required=True)
    args = parser.parse_args()
    network = MusicnnEmbedder("MSD_musicnn")
    groups = {
        "people": parts(sorted(args.music.glob("*.ogg"))),
        "ace_step": parts(track.path for track in ace_step_tracks(args.tracks)),
        "loop": loops(),
    }
    stored = ((load_piece(file), int(file.stem.rsplit("-", 1)[1])) for file in sorted(args.before.glob("*.npz")))
    groups["sketch"], groups["film"] = sketch_sets(pieces_now())
    groups["sketch before"], groups["film before"] = sketch_sets(stored)
    measured = {name: measure(pieces, network) for name, pieces in groups.items()}
    table = print_table({name: rows for name, (_, rows) in measured.items()})
    embeddings = {name: vectors for name, (vectors, _) in measured.items()}
    fads = {
        f"{styles} to {reference}": {
            "now": round(fad(embeddings[reference], embeddings[styles]), 2),
            "before": round(fad(embeddings[reference], embeddings[f"{styles} before"]), 2),
            "loop": round(fad(embeddings[reference], embeddings["loop"]), 2),
            "halves": round(halves_fad(embeddings[reference]), 2),
        }
        for styles, reference in (("film", "people"), ("sketch", "people"), ("sketch", "ace_step"))
    }
    for name, values in fads.items():
        print(f"FAD, {name}: {values}")
    result = {
        **{f"fad_{name}": fads["film to people"][name] for name in ("now", "before", "loop", "halves")},
        "fad": fads,
        "pieces": {name: len(pieces) for name, pieces in groups.items()},
        "windows": {name: sum(map(len, vectors)) for name, vectors in embeddings.items()},
        "statistics": table,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
