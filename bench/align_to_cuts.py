"""Cuts met by finished music before and after alignment: `uv run python -m bench.align_to_cuts`.

Music that ignored the cuts of 12 generated clips: Sketch's for another cutting of the same footage (the shots of
another clip instead), in all styles in turn; and a loop of drums, bass and chords at a tempo of its own. Only the audio
is given to the alignment. The cuts are the true ones, their strengths as measured. Hits are of beats measured in the
warped audio, not of the plan; for Sketch's music those of its true beats, warped likewise, follow. Chance and the
shuffled control are those of `v2m.analysis.synchrony`. Also: F-measure (±70 ms) of measured beats and downbeats
against Sketch's own. Last line: one JSON object; shares are of all cuts.
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
from v2m.analysis.rhythm import BeatTrack, track_beats
from v2m.analysis.synchrony import CutAlignment, cut_alignment, distance_to_nearest
from v2m.core.types import Audio, Cut, Floats, Soundtrack, Tags, Video, VisualFeatures
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.pipeline.alignment import align_to_cuts
from v2m.pipeline.time_warp import plan_time_warp
from v2m.sketch.styles import STYLES

RATE = 44100
TOLERANCE = 0.07


@dataclass(frozen=True)
class FeatureOverride:
    """A video's frames with other visual features."""

    features: VisualFeatures
    video: Video

    def visual_features(self, progress: Any = None) -> VisualFeatures:  # noqa: ARG002 - the shape of FrameSource
        return self.features

    def frames_at(self, times: Any, width: int | None = None, convert: Any = None) -> Any:
        return self.video.frames(times, width, convert)


@dataclass(frozen=True)
class Row:
    """One clip with one piece. `true_hits`: of its true beats before and after, where they are known."""

    kind: str
    name: str
    before: CutAlignment
    after: CutAlignment
    status: dict[str, Any]
    true_hits: tuple[float, float] | None
    silence: tuple[float, float]
    seconds: float
    f_measure: tuple[float, float] | None = None

    def __str__(self) -> str:
        true_hits = f"{self.true_hits[0]:>7.2f}{self.true_hits[1]:>7.2f}" if self.true_hits else f"{'–':>7}{'–':>7}"
        stretch, start, trimmed = (self.status.get(name, 0.0) for name in ("max_stretch", "start", "trimmed_end"))
        strongest = self.status.get("after", self.status.get("before", {})).get("strongest_on_downbeat")
        return (
            f"{self.kind:<8}{self.name:<24}{self.before.n:>5}{self.before.hits or 0:>8.2f}{self.after.hits or 0:>7.2f}"
            f"{self.after.chance or 0:>8.2f}{self.after.shuffled or 0:>9.2f}{true_hits}{100 * stretch:>9.1f}"
            f"{start:>8.2f}{trimmed:>7.2f}{self.silence[0]:>8.2f}{self.silence[1]:>6.2f}"
            f"{'yes' if strongest else 'no':>5}{self.seconds:>6.1f}"
        )


HEADER = (
    f"{'music':<8}{'clip':<24}{'cuts':>5}{'before':>8}{'after':>7}{'chance':>8}{'shuffled':>9}{'true':>7}{'after':>7}"
    f"{'stretch%':>9}{'start':>8}{'trim':>7}{'silent':>8}{'s':>6}{'top':>5}{'took':>6}"
)


def with_cuts(clip: Video, cuts: tuple[Cut, ...]) -> Video:
    return replace(clip, source=FeatureOverride(replace(clip.visual_features(), cuts=cuts), clip))


def borrowed_cuts(clip: Clip, other: Clip, rng: np.random.Generator) -> tuple[Cut, ...]:
    """Return the cuts of another clip, repeated to this one's length."""
    times = np.concatenate([np.asarray(other.cuts) + turn * other.duration for turn in range(12)])
    return tuple(Cut(float(t), float(rng.uniform(0.2, 1))) for t in times[times < clip.duration - 0.3])


def true_cuts(clip: Clip, opened: Video) -> tuple[Cut, ...]:
    """Return the true cuts with the strengths of the detected ones, 0.3 where none was detected."""
    detected = opened.visual_features().cuts

    def strength(time: float) -> float:
        return max((cut.strength for cut in detected if abs(cut.time - time) < 0.06), default=0.3)

    return tuple(Cut(time, strength(time)) for time in clip.cuts)


def loop(seconds: float, rng: np.random.Generator) -> tuple[Audio, float]:
    """Synthesize a loop of kick, snare, hat, bass and chords at a random tempo; return audio and tempo."""
    tempo = float(rng.uniform(80, 140))
    beat, t = 60 / tempo, np.arange(round(seconds * RATE)) / RATE
    position, phase = t + rng.uniform(0, 4 * beat), rng.uniform(0, 2 * np.pi)
    since_beat = position % beat
    beat_in_bar = (position // beat).astype(int) % 4
    chord = (position // (4 * beat)).astype(int) % 4
    roots = np.array([55.0, 43.65, 65.41, 49.0])[chord]
    swept = np.sin(2 * np.pi * (50 + 60 * np.exp(-30 * since_beat)) * since_beat)
    kick = np.where(beat_in_bar % 2 == 0, np.exp(-25 * since_beat) * swept, 0)
    snare = np.where(beat_in_bar % 2 == 1, np.exp(-20 * since_beat), 0) * rng.standard_normal(len(t)) * 0.3
    hat = np.exp(-60 * (position % (beat / 2))) * rng.standard_normal(len(t)) * 0.08
    tones = sum(np.sin(2 * np.pi * roots * ratio * t + phase) for ratio in (1.0, 4.0, 5.04, 5.99)) * 0.06
    mix = 0.5 * kick + snare + hat + tones
    return Audio(np.stack([mix, mix]).astype(np.float32), RATE), tempo


def f_measure(measured: Floats, true: Floats) -> float:
    """Return 2·hits / (measured + true), each beat counted at most once, ±70 ms."""
    used = np.zeros(len(true), bool)
    hits = 0
    for beat in measured:
        candidates = np.flatnonzero(~used & (np.abs(true - beat) <= TOLERANCE))
        if len(candidates):
            used[candidates[np.argmin(np.abs(true[candidates] - beat))]] = True
            hits += 1
    return 2 * hits / (len(measured) + len(true))


def hit_share(clip: Clip, beats: Floats) -> float:
    return float(np.mean(distance_to_nearest(list(clip.cuts), beats) <= TOLERANCE))


def edge_silence(audio: Audio) -> tuple[float, float]:
    """Return the seconds at the start and at the end below −60 dB of the peak."""
    level = np.abs(audio.samples).max(axis=0)
    audible = np.flatnonzero(level > 1e-3 * level.max())
    return audible[0] / audio.sample_rate, (len(level) - 1 - audible[-1]) / audio.sample_rate


def measure(kind: str, clip: Clip, video_with_cuts: Video, soundtrack: Soundtrack, tempo: float) -> Row:
    """Align music by its audio alone; the beats of `soundtrack`, where it has some, are only compared.

    Music without a measurable beat meets no cut, before and after.
    """
    track = track_beats(soundtrack.audio, tempo)
    start = time.perf_counter()
    result = align_to_cuts(Soundtrack(soundtrack.audio), video_with_cuts, tempo)
    seconds = time.perf_counter() - start
    warped_track = track_beats(result.audio, tempo)
    assert len(result.audio) == len(soundtrack.audio), "alignment changed the length"
    true_hits, f = None, None
    beats, downbeats = soundtrack.beats, soundtrack.downbeats
    if beats is not None and downbeats is not None and track is not None:
        time_map = plan_time_warp(track, video_with_cuts.visual_features().cuts, clip.duration)
        warped = beats if time_map is None else time_map.forward(beats)
        true_hits = hit_share(clip, beats), hit_share(clip, warped)
        f = f_measure(track.beats, beats), f_measure(track.downbeats, downbeats)
    return Row(
        kind,
        clip.path.stem,
        alignment_of(clip, track),
        alignment_of(clip, warped_track),
        dict(result.metadata["align_to_cuts"]),
        true_hits,
        edge_silence(result.audio),
        seconds,
        f,
    )


def alignment_of(clip: Clip, track: BeatTrack | None) -> CutAlignment:
    if track is None:
        return CutAlignment(len(clip.cuts), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return cut_alignment(clip.cuts, track.beats, track.downbeats, duration=clip.duration)


def measure_clips(clips: list[Clip], seed: int) -> list[Row]:
    """Measure two pieces of music per clip and print each row."""
    styles, rows = list(STYLES), []
    for number, clip in enumerate(clips):
        rng = np.random.default_rng([seed, number])
        opened = video.open(clip.path)
        video_with_cuts = with_cuts(opened, true_cuts(clip, opened))
        other = with_cuts(opened, borrowed_cuts(clip, clips[(number + 5) % len(clips)], rng))
        style = styles[number % len(styles)]
        tempo = STYLES[style].tempo[1] * rng.uniform(0.9, 1.1)
        soundtrack = Sketch(style=style, sample_rate=RATE).generate(other, Tags(tempo=tempo), seed)
        rows.append(measure("sketch", clip, video_with_cuts, soundtrack, tempo))
        print(rows[-1], style, flush=True)
        audio, tempo = loop(clip.duration, rng)
        rows.append(measure("loop", clip, video_with_cuts, Soundtrack(audio), tempo))
        print(rows[-1], flush=True)
    return rows


def weighted_mean(rows: list[Row], metric: str, when: str) -> float:
    values = [getattr(getattr(row, when), metric) or 0.0 for row in rows]
    return round(float(np.average(values, weights=[row.before.n for row in rows])), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_clips(make(Path(folder), args.count, args.seed), args.seed)
    figures: dict[str, Any] = {
        "hits_70ms_before": weighted_mean(rows, "hits", "before"),
        "hits_70ms_after": weighted_mean(rows, "hits", "after"),
        "chance_70ms": weighted_mean(rows, "chance", "after"),
        "shuffled_70ms": weighted_mean(rows, "shuffled", "after"),
        "max_stretch": max(row.status.get("max_stretch", 0.0) for row in rows),
    }
    for kind in ("sketch", "loop"):
        of_kind = [row for row in rows if row.kind == kind]
        figures[kind] = [weighted_mean(of_kind, "hits", when) for when in ("before", "after")]
    weights = [row.before.n for row in rows if row.true_hits]
    true_hits = np.array([row.true_hits for row in rows if row.true_hits])
    f_measures = np.array([row.f_measure for row in rows if row.f_measure])
    figures["true_beats"] = np.average(true_hits, axis=0, weights=weights).round(4).tolist()
    figures["beat_f"], figures["downbeat_f"] = f_measures.mean(axis=0).round(4).tolist()
    for when in ("before", "after"):
        on_downbeat = [
            row.status.get(when, row.status.get("before", {})).get("strongest_on_downbeat", False) for row in rows
        ]
        figures[f"strongest_on_downbeat_{when}"] = round(float(np.mean(on_downbeat)), 4)
    figures["cuts"], figures["clips"] = sum(row.before.n for row in rows), len(rows) // 2
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
