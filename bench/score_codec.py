"""Round trip of the score codec: pieces of Sketch to codes and back, in every style.

    uv run python -m bench.score_codec [--seeds N] [--seconds S]

A note comes back where one of its voice and pitch begins within 30 ms; each is matched once. Losses are counted by the
reasons of `v2m.sketch.notation.encoding`: `doubled` (two strokes or tones of one pitch at one time in one voice),
`no_room`, `folded`, `outside`, `shortened`. The last line is JSON: `onset_error_ms`, the largest of the notes that came
back; `within_10_ms`, their share; `notes_equal`, the share of all notes that came back; `notes_equal_but_doubled`, the
same without doubled ones; `false_notes`, the share of notes that were not in the score; `velocity_error`, the mean;
`end_error_ms`, the median; `beats_error_ms`, the largest.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict

import numpy as np

from tests.sketch.stub_videos import compose_piece
from v2m.sketch.notation.decoding import decode_score
from v2m.sketch.notation.encoding import encode_score
from v2m.sketch.notation.score import Score, ScoreNote
from v2m.sketch.styles import STYLES

TOLERANCE_S = 0.0301


def match_notes(before: Score, after: Score) -> list[tuple[ScoreNote, ScoreNote]]:
    """Pairs of notes of one voice and pitch, each with the nearest one that is left."""
    candidates: dict[tuple[str, int], list[ScoreNote]] = defaultdict(list)
    for voice, note in after.notes:
        candidates[voice, note.pitch].append(note)
    pairs = []
    for voice, note in before.notes:
        near = [other for other in candidates[voice, note.pitch] if abs(other.onset - note.onset) <= TOLERANCE_S]
        if near:
            pairs.append((note, min(near, key=lambda other: abs(other.onset - note.onset))))
            candidates[voice, note.pitch].remove(pairs[-1][1])
    return pairs


def measure(style: str, seeds: int, seconds: float) -> tuple[np.ndarray, Counter[str], float]:
    """Errors (N, 3) of onset and end in ms and of velocity, counts, and the largest error of a beat in ms."""
    errors: list[tuple[float, float, float]] = []
    counts: Counter[str] = Counter()
    beat_error = 0.0
    for seed in range(seeds):
        score = Score.from_piece(compose_piece(style, seed, duration=seconds))
        codes, losses = encode_score(score)
        decoded = decode_score(codes, score.duration)
        pairs = match_notes(score, decoded)
        errors += [
            (1e3 * abs(a.onset - b.onset), 1e3 * abs(a.end - b.end), abs(a.velocity - b.velocity)) for a, b in pairs
        ]
        counts.update(losses.to_dict())
        counts.update(equal=len(pairs), false=len(decoded.notes) - len(pairs))
        beat_error = max(beat_error, 1e3 * float(np.abs(decoded.beats - score.beats).max()))
    return np.array(errors), counts, beat_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    all_errors, total, beat_errors = [], Counter[str](), []
    print(f"{'style':<15}{'notes':>7}{'equal':>9}{'≤ 10 ms':>9}{'max ms':>8}  lost")
    for style in STYLES:
        errors, counts, beat_error = measure(style, args.seeds, args.seconds)
        onset = errors[:, 0]
        lost = {name: counts[name] for name in ("doubled", "no_room", "folded", "outside", "shortened") if counts[name]}
        print(
            f"{style:<15}{counts['notes']:>7}{counts['equal'] / counts['notes']:>9.4f}"
            f"{np.mean(onset <= 10.001):>9.4f}{onset.max():>8.1f}  {lost}"
        )
        all_errors.append(errors)
        beat_errors.append(beat_error)
        total += counts
    errors = np.concatenate(all_errors)
    figures = {
        "onset_error_ms": float(errors[:, 0].max()),
        "within_10_ms": float(np.mean(errors[:, 0] <= 10.001)),
        "notes_equal": total["equal"] / total["notes"],
        "notes_equal_but_doubled": total["equal"] / (total["notes"] - total["doubled"]),
        "false_notes": total["false"] / total["notes"],
        "velocity_error": float(errors[:, 2].mean()),
        "end_error_ms": float(np.median(errors[:, 1])),
        "beats_error_ms": max(beat_errors),
    }
    counts = {name: total[name] for name in ("notes", "doubled", "no_room", "folded", "outside", "shortened")}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()} | counts))


if __name__ == "__main__":
    main()
