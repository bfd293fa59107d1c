"""Cuts met by the default recipe: `uv run python -m bench.cut_alignment [more clips …]`.

Generates clips whose cuts are known to the frame, runs the default recipe on them, and compares the beats and accents
of its music with the true cuts, not with the detected ones; chance and the shuffled control of
`v2m.analysis.synchrony` take the same beats and accents. The sound itself is compared too: `sound` is the mean
percentile of the onset strength within 70 ms of a cut among all instants (0.5 by chance), `dynamics` the rank
correlation of loudness and motion over seconds, `density` that of attacks a second (a chord of one part counts once)
and motion. The example and clips given as arguments follow with their detected cuts and stay out of the totals.
`--no-smoothing` leaves out `v2m.sketch.plan.tempo_smoothing`. Last line: one JSON object, with shares of all cuts of
the generated clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import mido
import numpy as np

from bench.clips import EXAMPLE, make
from v2m.analysis.synchrony import (
    EXACT_TOLERANCE_S,
    FRAME_TOLERANCE_S,
    CutAlignment,
    SyncScore,
    cut_alignment,
    density_correlation,
    distance_to_nearest,
    sync_score,
)
from v2m.core.types import Cut, Floats, Tags
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.media.video import Limits
from v2m.sketch.plan import tempo_smoothing
from v2m.taggers.heuristic import HeuristicTagger

SHARES = (
    *("hits_20ms", "hits_40ms", "hits", "hits_100ms", "downbeat_hits"),
    *("chance_20ms", "chance_40ms", "chance", "chance_100ms", "chance_downbeats", "shuffled_40ms", "shuffled"),
)
CHORD_S = 0.06  # from the first to the last note of a strummed chord
MET_S = 0.07  # distance up to which a cut counts for the median of the hits
HEADER = f"{'clip':<24}{'s':>6}{'cuts':>6}{'style':>15}{'BPM':>5}{'range':>13}" + "".join(
    f"{title:>10}"
    for title in (
        *("±20 ms", "±40 ms", "±70 ms", "chance 40", "shuf. 40", "median ms", "strongest"),
        *("sound", "dynamics", "density"),
    )
)


@dataclass(frozen=True)
class Row:
    """The result of one clip. `distances`: seconds from each cut to its nearest beat or accent.

    `strongest`: the same of the cut that is strongest by measurement, None without cuts. `accents`: the number of
    accents off the beats. `on_beats`: share of the cuts within 40 ms of a beat. `sync`: that of the sound. `density`:
    rank correlation of attacks a second and motion.
    """

    name: str
    seconds: float
    alignment: CutAlignment
    distances: Floats
    strongest: float | None
    accents: int
    on_beats: float | None
    sync: SyncScore
    density: float | None
    style: str
    tempo: float
    tempi: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.tempi
        start = f"{self.name:<24}{self.seconds:>6.1f}{self.alignment.n:>6}{self.style:>15}{self.tempo:>5.0f}"
        result = self.alignment
        hits = (result.hits_20ms, result.hits_40ms, result.hits, result.chance_40ms, result.shuffled_40ms)
        strongest = None if self.strongest is None else 1000 * self.strongest
        sound = (result.median_ms, strongest, self.sync.accents, self.sync.dynamics, self.density)
        columns = [f"{'–' if value is None else f'{value:.2f}':>10}" for value in (*hits, *sound)]
        return f"{start}{f'{low:.1f}–{high:.1f}':>13}{''.join(columns)}"


def measure(path: Path, cuts: Sequence[float] | None, seed: int) -> Row:
    """Run the recipe on one clip; `cuts` None takes the detected ones."""
    clip = video.open(path, Limits())
    tags = HeuristicTagger().tag(clip, Tags())
    music = Sketch().generate(clip, tags, seed)
    assert music.beats is not None
    assert music.accents is not None
    assert music.midi is not None
    features = clip.visual_features()
    times = [cut.time for cut in features.cuts] if cuts is None else cuts
    alignment = cut_alignment(times, music.beats, music.downbeats, duration=clip.duration, accents=music.accents)
    attacks = np.union1d(music.beats, music.accents)
    strongest = max(features.cuts, key=lambda cut: cut.strength, default=None)
    strengths = {cut.time: cut.strength for cut in features.cuts}
    true_cuts = [Cut(time, _strength_near(time, strengths)) for time in times]
    return Row(
        path.stem,
        clip.duration,
        alignment,
        distance_to_nearest(times, attacks) if len(times) else np.zeros(0),
        None if strongest is None else float(distance_to_nearest([strongest.time], attacks)[0]),
        int((distance_to_nearest(music.accents, music.beats) > MET_S).sum()) if len(music.accents) else 0,
        float(np.mean(distance_to_nearest(times, music.beats) <= FRAME_TOLERANCE_S)) if len(times) else None,
        sync_score(music.audio, replace(features, cuts=tuple(true_cuts))),
        density_correlation(attack_times(music.midi), features),
        music.metadata["style"],
        music.metadata["tempo"],
        tuple(music.metadata["tempo_range"]),
    )


def attack_times(midi: bytes) -> list[float]:
    """Return seconds of the attacks of each channel; notes of one channel within `CHORD_S` are one attack."""
    attacks: list[float] = []
    last: dict[int, float] = {}
    now = 0.0
    for message in mido.MidiFile(file=BytesIO(midi)):
        now += message.time
        if message.type == "note_on" and message.velocity and now - last.get(message.channel, -CHORD_S) >= CHORD_S:
            last[message.channel] = now
            attacks.append(now)
    return attacks


def _strength_near(time: float, strengths: dict[float, float]) -> float:
    """Return the measured strength of the cut at `time`, or 0.5 where it was not found."""
    nearest = min(strengths, key=lambda other: abs(other - time), default=None)
    return strengths[nearest] if nearest is not None and abs(nearest - time) <= MET_S else 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("more", nargs="*", type=Path, help="further clips, shown with their detected cuts")
    parser.add_argument("--count", type=int, default=12, help="how many clips to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-smoothing", action="store_true", help="leave out tempo smoothing")
    args = parser.parse_args()
    if args.no_smoothing:
        tempo_smoothing.smooth_tempo = lambda constraints, grid: grid  # noqa: ARG005 - the shape of smooth_tempo
    print(HEADER)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in make(Path(folder), args.count, args.seed):
            rows.append(measure(clip.path, clip.cuts, args.seed))
            print(rows[-1], flush=True)
    print("with detected cuts:")
    for path in (EXAMPLE, *args.more):
        print(measure(path, None, args.seed), flush=True)
    cuts = [row.alignment.n for row in rows]
    totals = {
        name: round(float(np.average([getattr(row.alignment, name) for row in rows], weights=cuts)), 4)
        for name in SHARES
    }
    named = {
        f"{name}_70ms" if name in {"hits", "chance", "shuffled"} else name: value for name, value in totals.items()
    }
    distances = np.concatenate([row.distances for row in rows])
    scored = [row for row in rows if row.sync.accents is not None]
    figures = {
        "strongest_20ms": np.mean(
            [row.strongest <= EXACT_TOLERANCE_S + 1e-6 for row in rows if row.strongest is not None]
        ),
        "on_beats_40ms": np.average([row.on_beats or 0.0 for row in rows], weights=cuts),
        "sound": np.average([row.sync.accents or 0.0 for row in scored], weights=[row.alignment.n for row in scored]),
        "dynamics": np.mean([row.sync.dynamics for row in rows if row.sync.dynamics is not None]),
        "density": np.mean([row.density for row in rows if row.density is not None]),
    }
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    medians = {
        "median_ms": round(1000 * float(np.median(distances)), 1),
        "median_of_hits_ms": round(1000 * float(np.median(distances[distances <= MET_S])), 1),
    }
    counts = {"accents": sum(row.accents for row in rows), "cuts": sum(cuts), "clips": len(rows)}
    print(json.dumps({**named, **rounded, **medians, **counts}))


if __name__ == "__main__":
    main()
