"""A finished piece, moved onto the cuts: measured, routed, stretched, and what that brought."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from v2m.analysis.beats import BeatTrack, track_beats
from v2m.analysis.cut_alignment import cut_alignment, distance_to_nearest
from v2m.core import timing
from v2m.core.timing import TimeMap
from v2m.core.types import Audio, Cut, Floats, Section, Soundtrack, Video
from v2m.media.ffmpeg import FFmpegError
from v2m.pipeline.alignment.time_stretch import stretch_audio
from v2m.pipeline.alignment.time_warp import plan_time_warp

logger = logging.getLogger(__name__)

HIT_TOLERANCE_S = 0.07
FADE_IN_S = 0.03  # seconds over which music begins that had begun before
FADE_OUT_S = 0.4  # and over which it ends where its end is given up


def align_to_cuts(soundtrack: Soundtrack, video: Video, tempo: float | None = None) -> Soundtrack:
    """`score` with its beats measured and, where that lets more cuts be met, moved onto the cuts of `video`.

    Only what does not know its own beats is measured. `tempo` is what the music was asked for. `facts` says what was
    done under `align_to_cuts`, and how the cuts are met under `alignment` and `hits`. Stems go along, and sum to the mix.
    """
    if soundtrack.beats is not None or soundtrack.midi is not None:
        return soundtrack
    heard = track_beats(soundtrack.audio, tempo)
    if heard is None:
        return replace(
            soundtrack,
            metadata={**soundtrack.metadata, "align_to_cuts": {"moved": False, "reason": "no steady beat is heard"}},
        )
    cuts = video.visual_features().cuts
    course = plan_time_warp(heard, cuts, video.duration, [part.start for part in soundtrack.sections[1:]])
    before = _measure_alignment(heard.beats, heard.downbeats, cuts, video.duration)
    if course is not None:
        try:
            moved = _apply_time_map(soundtrack, course, video.duration)
        except FFmpegError as error:
            logger.warning("not_aligned: this ffmpeg cannot stretch music (%s): unset V2M_FFMPEG", error)
        else:
            beats, opens = _map_beats(heard, course, video.duration)
            after = _measure_alignment(beats, beats[opens], cuts, video.duration)
            told = {"moved": True, **_describe_map(heard, course, video.duration), "before": before, "after": after}
            return _with_hits(moved, beats, beats[opens], cuts, told)
    reason = "no cuts" if not cuts else "no better place was found" if course is None else "ffmpeg cannot"
    told = {"moved": False, "reason": reason, "before": before}
    return _with_hits(soundtrack, heard.beats, heard.downbeats, cuts, told)


def _apply_time_map(score: Soundtrack, course: TimeMap, duration: float) -> Soundtrack:
    """Sound and sections along `course`. Where there are stems, their sum is the mix."""
    stems = {name: _stretch_with_fades(stem, course, duration) for name, stem in score.stems.items()}
    mix = np.sum([stem.samples for stem in stems.values()], axis=0)
    return replace(
        score,
        audio=Audio(mix, score.audio.sample_rate) if stems else _stretch_with_fades(score.audio, course, duration),
        stems=stems,
        sections=_map_sections(score.sections, course, duration),
    )


def _map_sections(sections: Sequence[Section], course: TimeMap, duration: float) -> tuple[Section, ...]:
    """They still begin with the piece and end with it."""
    inner = np.clip(course.forward([part.start for part in sections[1:]]), 0.0, duration).tolist()
    starts, ends = [0.0, *inner], [*inner, duration]
    moved = [replace(part, start=a, end=b) for part, a, b in zip(sections, starts, ends, strict=False)]
    return tuple(part for part in moved if part.end > part.start)


def _stretch_with_fades(sound: Audio, course: TimeMap, duration: float) -> Audio:
    """With fades where the music is cut into: at its beginning, and at its end."""
    audio = stretch_audio(sound, course, duration)
    lead, over = float(course.forward(0.0)), float(course.forward(duration)) - duration
    begin = timing.sample_count(max(lead, 0.0), audio.sample_rate)
    rise = timing.sample_count(FADE_IN_S if abs(lead) > 1e-3 else 0.0, audio.sample_rate)
    fall = timing.sample_count(FADE_OUT_S if over > FADE_OUT_S / 4 else 0.0, audio.sample_rate)
    for view, length in ((audio.samples[:, begin:], rise), (audio.samples[:, ::-1], fall)):
        length = min(length, view.shape[1])  # noqa: PLW2901 - of very short music
        view[:, :length] *= np.square(np.sin(np.linspace(0, np.pi / 2, length, endpoint=False))).astype(np.float32)
    return audio


def _map_beats(heard: BeatTrack, course: TimeMap, duration: float) -> tuple[Floats, np.ndarray]:
    """The beats that are still heard, where they are now, and which of them open bars."""
    beats = course.forward(heard.beats)
    inside = (beats >= 0) & (beats < duration)
    return beats[inside], heard.is_downbeat[inside]


def _measure_alignment(beats: Floats, downbeats: Floats, cuts: tuple[Cut, ...], duration: float) -> dict[str, Any]:
    times = [cut.time for cut in cuts]
    found = cut_alignment(times, beats, downbeats, duration=duration).to_dict()
    if cuts and len(downbeats):
        strongest = max(cuts, key=lambda cut: cut.strength)
        found["strongest_on_downbeat"] = bool(distance_to_nearest([strongest.time], downbeats)[0] <= HIT_TOLERANCE_S)
    return found


def _describe_map(heard: BeatTrack, course: TimeMap, duration: float) -> Mapping[str, Any]:
    """shift: seconds by which the first beat moved; begins: where the music begins, before 0 what is lost of it."""
    return {
        "max_stretch": round(float(np.abs(course.stretch_factors - 1).max()), 4),
        "mean_stretch": round(float(course.forward(duration) - course.forward(0.0)) / duration - 1, 4),
        "shift": round(float(course.forward(heard.beats[0]) - heard.beats[0]), 3),
        "start": round(float(course.forward(0.0)), 3),
        "trimmed_end": round(float(course.forward(duration)) - duration, 3),
    }


def _with_hits(
    score: Soundtrack, beats: Floats, downbeats: Floats, cuts: tuple[Cut, ...], told: Mapping[str, Any]
) -> Soundtrack:
    """`score` with what markers and the report show."""
    hits = []
    for cut in cuts:
        beat = float(beats[np.argmin(np.abs(beats - cut.time))])
        if abs(beat - cut.time) <= HIT_TOLERANCE_S:
            hits.append(
                {
                    "time": round(cut.time, 3),
                    "strength": round(cut.strength, 3),
                    "offset": round(beat - cut.time, 3),
                    "downbeat": bool(np.isin(beat, downbeats)),
                }
            )
    alignment = {**told.get("after", told["before"])}
    facts = {**score.metadata, "align_to_cuts": dict(told), "alignment": alignment, "hits": hits}
    return replace(score, beats=beats, downbeats=downbeats, metadata=facts)
