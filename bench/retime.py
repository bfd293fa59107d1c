"""How many cuts finished music meets before and after it is moved: `uv run python -m bench.retime`.

Music that ignored the cuts of 12 made clips: Sketch's for another cutting of the same picture (the shots of another
clip, in its place), in all styles in turn; and a loop of drums, bass and chords at a tempo of its own. Nothing is known
of it but its sound. The cuts are the true ones, their strengths as measured. Hits are of beats measured in the finished
sound, not of the plan; for Sketch's music those of its true beats, carried along, follow. Chance and the shuffled
control are those of `v2m.analysis.cut_alignment`. Also: how well beats and bar lines are measured (F-measure, ±70 ms) against
Sketch's own. Last line: one JSON object; shares are of all cuts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.clips import Clip, make
from v2m.analysis.beats import BeatTrack, track_beats
from v2m.analysis.cut_alignment import CutAlignment, cut_alignment, distance_to_nearest
from v2m.core.types import Audio, Cut, Floats, Soundtrack, Tags, Video, VisualFeatures
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.pipeline.alignment.align import align_to_cuts
from v2m.pipeline.alignment.time_warp import plan_time_warp
from v2m.sketch.styles import STYLES

RATE = 44100
TOLERANCE = 0.07


@dataclass(frozen=True)
class FeatureOverride:
    """A video's frames with another measured picture."""

    shown: VisualFeatures
    video: Video

    def visual_features(self, progress: Any = None) -> VisualFeatures:  # noqa: ARG002 - the shape of FrameSource
        return self.shown

    def frames_at(self, times: Any, width: int | None = None) -> Any:
        return self.video.frames(times, width)


@dataclass(frozen=True)
class Row:
    """One clip with one piece. `known`: hits of true beats before and after, where they are known."""

    kind: str
    name: str
    before: CutAlignment
    after: CutAlignment
    facts: dict[str, Any]
    known: tuple[float, float] | None
    silent: tuple[float, float]
    seconds: float
    f_measure: tuple[float, float] | None = None

    def __str__(self) -> str:
        known = f"{self.known[0]:>7.2f}{self.known[1]:>7.2f}" if self.known else f"{'–':>7}{'–':>7}"
        told = [self.facts.get(name, 0.0) for name in ("max_stretch", "start", "trimmed_end")]
        strongest = self.facts.get("after", self.facts.get("before", {})).get("strongest_on_downbeat")
        return (
            f"{self.kind:<8}{self.name:<24}{self.before.n:>5}{self.before.hits or 0:>8.2f}{self.after.hits or 0:>7.2f}"
            f"{self.after.chance or 0:>8.2f}{self.after.shuffled or 0:>9.2f}{known}{100 * told[0]:>9.1f}{told[1]:>8.2f}"
            f"{told[2]:>7.2f}{self.silent[0]:>8.2f}{self.silent[1]:>6.2f}{'yes' if strongest else 'no':>5}"
            f"{self.seconds:>6.1f}"
        )


HEADER = (
    f"{'music':<8}{'clip':<24}{'cuts':>5}{'before':>8}{'after':>7}{'chance':>8}{'shuffled':>9}{'true':>7}{'after':>7}"
    f"{'stretch%':>9}{'begins':>8}{'lost':>7}{'silent':>8}{'s':>6}{'top':>5}{'took':>6}"
)


def with_cuts(clip: Video, cuts: tuple[Cut, ...]) -> Video:
    return replace(clip, source=FeatureOverride(replace(clip.visual_features(), cuts=cuts), clip))


def others_cuts(clip: Clip, other: Clip, rng: np.random.Generator) -> tuple[Cut, ...]:
    """The cuts of another clip, again and again until this one is full."""
    times = np.concatenate([np.asarray(other.cuts) + turn * other.duration for turn in range(12)])
    return tuple(Cut(float(t), float(rng.uniform(0.2, 1))) for t in times[times < clip.duration - 0.3])


def true_cuts(clip: Clip, opened: Video) -> tuple[Cut, ...]:
    """With the strengths of the detected cuts beside them, and 0.3 where none was detected."""
    found = opened.visual_features().cuts

    def strength(time: float) -> float:
        return max((cut.strength for cut in found if abs(cut.time - time) < 0.06), default=0.3)

    return tuple(Cut(time, strength(time)) for time in clip.cuts)


def loop(seconds: float, rng: np.random.Generator) -> tuple[Audio, float]:
    """Kick, snare, hat, bass and two chords of four, at a tempo that is drawn; what stock loops are like."""
    tempo = float(rng.uniform(80, 140))
    beat, t = 60 / tempo, np.arange(round(seconds * RATE)) / RATE
    at, phase = t + rng.uniform(0, 4 * beat), rng.uniform(0, 2 * np.pi)
    since = at % beat
    place = (at // beat).astype(int) % 4
    chord = (at // (4 * beat)).astype(int) % 4
    roots = np.array([55.0, 43.65, 65.41, 49.0])[chord]
    swept = np.sin(2 * np.pi * (50 + 60 * np.exp(-30 * since)) * since)
    kick = np.where(place % 2 == 0, np.exp(-25 * since) * swept, 0)
    snare = np.where(place % 2 == 1, np.exp(-20 * since), 0) * rng.standard_normal(len(t)) * 0.3
    hat = np.exp(-60 * (at % (beat / 2))) * rng.standard_normal(len(t)) * 0.08
    tones = sum(np.sin(2 * np.pi * roots * ratio * t + phase) for ratio in (1.0, 4.0, 5.04, 5.99)) * 0.06
    mix = 0.5 * kick + snare + hat + tones
    return Audio(np.stack([mix, mix]).astype(np.float32), RATE), tempo


def f_measure(found: Floats, true: Floats) -> float:
    """2·hits / (found + true), each beat counted once at most, ±70 ms."""
    used = np.zeros(len(true), bool)
    hits = 0
    for beat in found:
        near = np.flatnonzero(~used & (np.abs(true - beat) <= TOLERANCE))
        if len(near):
            used[near[np.argmin(np.abs(true[near] - beat))]] = True
            hits += 1
    return 2 * hits / (len(found) + len(true))


def share_met(clip: Clip, beats: Floats) -> float:
    return float(np.mean(distance_to_nearest(list(clip.cuts), beats) <= TOLERANCE))


def quiet(audio: Audio) -> tuple[float, float]:
    """Seconds at the beginning and at the end below −60 dB of the loudest moment."""
    level = np.abs(audio.samples).max(axis=0)
    heard = np.flatnonzero(level > 1e-3 * level.max())
    return heard[0] / audio.sample_rate, (len(level) - 1 - heard[-1]) / audio.sample_rate


def measure(kind: str, clip: Clip, shown: Video, score: Soundtrack, tempo: float) -> Row:
    """Moves music of which only the sound is known; `score.beats`, where there are some, are for checking alone.

    Music in which no beat is heard meets no cut, before and after.
    """
    heard = track_beats(score.audio, tempo)
    begun = time.perf_counter()
    result = align_to_cuts(Soundtrack(score.audio), shown, tempo)
    took = time.perf_counter() - begun
    again = track_beats(result.audio, tempo)
    assert len(result.audio) == len(score.audio), "the length stays"
    known, f = None, None
    if score.beats is not None and score.downbeats is not None and heard is not None:
        course = plan_time_warp(heard, shown.visual_features().cuts, clip.duration)
        carried = score.beats if course is None else course.forward(score.beats)
        known = share_met(clip, score.beats), share_met(clip, carried)
        f = f_measure(heard.beats, score.beats), f_measure(heard.downbeats, score.downbeats)
    facts = dict(result.metadata["align_to_cuts"])
    return Row(kind, clip.path.stem, met(clip, heard), met(clip, again), facts, known, quiet(result.audio), took, f)


def met(clip: Clip, heard: BeatTrack | None) -> CutAlignment:
    if heard is None:
        return CutAlignment(len(clip.cuts), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return cut_alignment(clip.cuts, heard.beats, heard.downbeats, duration=clip.duration)


def rows_of(clips: list[Clip], seed: int) -> list[Row]:
    styles, rows = list(STYLES), []
    for number, clip in enumerate(clips):
        rng = np.random.default_rng([seed, number])
        opened = video.open(clip.path)
        shown = with_cuts(opened, true_cuts(clip, opened))
        other = with_cuts(opened, others_cuts(clip, clips[(number + 5) % len(clips)], rng))
        style = styles[number % len(styles)]
        tempo = STYLES[style].tempo[1] * rng.uniform(0.9, 1.1)
        score = Sketch(style=style, sample_rate=RATE).generate(other, Tags(tempo=tempo), seed)
        rows.append(measure("sketch", clip, shown, score, tempo))
        print(rows[-1], style, flush=True)
        sound, tempo = loop(clip.duration, rng)
        rows.append(measure("loop", clip, shown, Soundtrack(sound), tempo))
        print(rows[-1], flush=True)
    return rows


def mean_of(rows: list[Row], what: str, when: str) -> float:
    values = [getattr(getattr(row, when), what) or 0.0 for row in rows]
    return round(float(np.average(values, weights=[row.before.n for row in rows])), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(make(Path(folder), args.count, args.seed), args.seed)
    figures: dict[str, Any] = {
        "hits_70ms_before": mean_of(rows, "hits", "before"),
        "hits_70ms_after": mean_of(rows, "hits", "after"),
        "chance_70ms": mean_of(rows, "chance", "after"),
        "shuffled_70ms": mean_of(rows, "shuffled", "after"),
        "max_stretch": max(row.facts.get("max_stretch", 0.0) for row in rows),
    }
    for kind in ("sketch", "loop"):
        own = [row for row in rows if row.kind == kind]
        figures[kind] = [mean_of(own, "hits", when) for when in ("before", "after")]
    told = [(row.known, row.f_measure, row.before.n) for row in rows if row.known and row.f_measure]
    weights = [each[2] for each in told]
    figures["true_beats"] = [round(float(np.average([t[0][k] for t in told], weights=weights)), 4) for k in (0, 1)]
    figures["beat_f"], figures["downbeat_f"] = (round(float(np.mean([t[1][k] for t in told])), 4) for k in (0, 1))
    for when in ("before", "after"):
        met = [row.facts.get(when, row.facts.get("before", {})).get("strongest_on_downbeat", False) for row in rows]
        figures[f"strongest_on_downbeat_{when}"] = round(float(np.mean(met)), 4)
    figures["cuts"], figures["clips"] = sum(row.before.n for row in rows), len(rows) // 2
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
