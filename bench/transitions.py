"""Detection of dissolves, fades, flashes and motion: `uv run python -m bench.transitions [footage …]`.

Makes clips with known transitions and hard cuts (`bench.clips.make_transitions`), with pieces of `footage` besides the
example and ffmpeg's test pictures, and compares what v2m finds. A dissolve or fade is found where the middle lies
within the true span and the spans overlap by half of the shorter one; a flash or sudden motion within 100 ms; a cut
within one frame. What is found as a cut at the beginning of a fade from black or white counts neither way. The detector
was developed on seeds 0, 1, 2 and 31. Last line: one JSON object, `precision` and `recall` of all kinds together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.clips import TransitionClip, make_transitions
from v2m.core.types import Cut, Transition
from v2m.media import video

POINT_S = 0.1  # tolerance of events without a span


def is_match(found: Transition, true: Transition) -> bool:
    if found.kind != true.kind:
        return False
    if true.kind in {"flash", "motion"}:
        return true.start - POINT_S <= (found.start + found.end) / 2 <= true.end + POINT_S
    overlap = min(found.end, true.end) - max(found.start, true.start)
    shorter = min(found.end - found.start, true.end - true.start)
    return true.start <= (found.start + found.end) / 2 <= true.end and overlap >= shorter / 2


def count_matches(found: Sequence[Transition], true: Sequence[Transition]) -> Counter[str]:
    """Count those of `found` that match one of `true`, by kind; each of `true` counts once."""
    rest, counts = list(true), Counter[str]()
    for part in found:
        match = next((other for other in rest if is_match(part, other)), None)
        if match is not None:
            rest.remove(match)
            counts[part.kind] += 1
    return counts


def compare_cuts(found: Sequence[Cut], clip: TransitionClip) -> tuple[int, int, int]:
    """Return the numbers of cuts found, of those that are right, and of true ones."""
    frame = float(1 / clip.fps) + 1e-3
    fades = [part for part in clip.transitions if part.kind == "fade in"]
    counted = [cut.time for cut in found if not any(part.start - frame <= cut.time <= part.end for part in fades)]
    return len(counted), sum(any(abs(time - cut) <= frame for time in counted) for cut in clip.cuts), len(clip.cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("footage", nargs="*", type=Path, help="videos to take pieces of")
    parser.add_argument("--seed", type=int, default=51)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--verbose", action="store_true", help="print what is missed and what is false")
    args = parser.parse_args()
    found_counts, right_counts, true_counts = Counter[str](), Counter[str](), Counter[str]()
    cuts = [0, 0, 0]
    with tempfile.TemporaryDirectory() as folder:
        for clip in make_transitions(Path(folder), args.count, args.seed, args.footage):
            features = video.open(clip.path).visual_features()
            found_counts += Counter(part.kind for part in features.transitions)
            true_counts += Counter(part.kind for part in clip.transitions)
            right_counts += count_matches(features.transitions, clip.transitions)
            cuts = [total + count for total, count in zip(cuts, compare_cuts(features.cuts, clip), strict=True)]
            if args.verbose:
                missed = [part for part in clip.transitions if not count_matches(features.transitions, [part])]
                false = [part for part in features.transitions if not count_matches([part], clip.transitions)]
                print(clip.path.stem, "missed", missed, "false", false, flush=True)
    print(f"{'kind':<10} true found right")
    for kind in sorted(true_counts | found_counts):
        print(f"{kind:<10} {true_counts[kind]:4} {found_counts[kind]:5} {right_counts[kind]:5}")
    figures = {
        "precision": right_counts.total() / max(1, found_counts.total()),
        "recall": right_counts.total() / max(1, true_counts.total()),
        "cuts_precision": cuts[1] / max(1, cuts[0]),
        "cuts_recall": cuts[1] / max(1, cuts[2]),
    }
    counts = {"transitions": true_counts.total(), "cuts": cuts[2], "clips": args.count}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()} | counts))


if __name__ == "__main__":
    main()
