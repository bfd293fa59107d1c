"""Alignment of finished music to cuts: beats measured, a time warp planned, audio stretched.

C channels (1 or 2), N samples, B knots.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2m.analysis.rhythm import BeatTrack, track_beats
from v2m.analysis.synchrony import cut_alignment, distance_to_nearest
from v2m.core.audio_ops import fade_edges
from v2m.core.timing import TimeMap, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, Cut, Floats, Soundtrack, Video
from v2m.media import audio, ffmpeg
from v2m.media.ffmpeg import FFmpegError
from v2m.pipeline.time_warp import plan_time_warp
from v2m.sketch.plan.beat_grid import HIT_TOLERANCE_S

logger = logging.getLogger(__name__)

FADE_IN_S = 0.03  # where the beginning of the music was trimmed
FADE_OUT_S = 0.4  # where its end was trimmed
# With "crisp" or "mixed" transients steady tones waver; with channels "apart" the stereo image changes; a longer window
# smears onsets (all measured: bench/README.md, `stretch.py`).
FILTER = "rubberband=transients=smooth:window=short:channels=together"
FRAME_SAMPLES = 256  # commands take effect at the first frame after their time
TAIL_S = 1.0  # of silence appended, so that the filter returns all of the audio


def align_to_cuts(soundtrack: Soundtrack, video: Video, tempo: float | None = None) -> Soundtrack:
    """Measure the beats of `soundtrack` and warp it in time where that lets more cuts of `video` be met.

    A soundtrack with beats or MIDI is returned as it is. `metadata` gets the warp under `align_to_cuts` and the result
    under `alignment` and `hits`. Stems are warped likewise and sum to the mix.
    """
    if soundtrack.beats is not None or soundtrack.midi is not None:
        return soundtrack
    track = track_beats(soundtrack.audio, tempo)
    if track is None:
        status = {"moved": False, "reason": "no steady beat was found"}
        return replace(soundtrack, metadata={**soundtrack.metadata, "align_to_cuts": status})
    cuts = video.visual_features().cuts
    time_map = plan_time_warp(track, cuts, video.duration, [section.start for section in soundtrack.sections[1:]])
    before = _measure_alignment(track.beats, track.downbeats, cuts, video.duration)
    if time_map is not None:
        try:
            warped = _apply_time_map(soundtrack, time_map, video.duration)
        except FFmpegError as error:
            logger.warning("not_aligned: this ffmpeg cannot stretch music (%s): unset V2M_FFMPEG", error)
        else:
            beats = time_map.forward(track.beats)
            inside = (beats >= 0) & (beats < video.duration)
            beats, downbeats = beats[inside], beats[inside & track.is_downbeat]
            after = _measure_alignment(beats, downbeats, cuts, video.duration)
            status = {"moved": True, **_describe_map(track, time_map, video.duration), "before": before, "after": after}
            return _with_hits(warped, beats, downbeats, cuts, status)
    reason = "no cuts" if not cuts else "no better alignment was found" if time_map is None else "ffmpeg cannot"
    status = {"moved": False, "reason": reason, "before": before}
    return _with_hits(soundtrack, track.beats, track.downbeats, cuts, status)


def _apply_time_map(soundtrack: Soundtrack, time_map: TimeMap, duration: float) -> Soundtrack:
    """Warp audio and sections. Where there are stems, their sum is the mix."""
    stems = {name: _stretch_with_fades(stem, time_map, duration) for name, stem in soundtrack.stems.items()}
    if stems:
        mix = Audio(np.sum([stem.samples for stem in stems.values()], axis=0), soundtrack.audio.sample_rate)
    else:
        mix = _stretch_with_fades(soundtrack.audio, time_map, duration)
    sections = soundtrack.sections  # the first still starts and the last still ends with the piece
    borders = np.clip(time_map.forward([section.start for section in sections[1:]]), 0.0, duration).tolist()
    spans = zip([0.0, *borders], [*borders, duration], strict=True)  # one where there are no sections
    warped = [replace(section, start=start, end=end) for section, (start, end) in zip(sections, spans, strict=False)]
    kept = tuple(section for section in warped if section.end > section.start)
    return replace(soundtrack, audio=mix, stems=stems, sections=kept)


def _stretch_with_fades(recording: Audio, time_map: TimeMap, duration: float) -> Audio:
    """Stretch the audio, with fades where its beginning or end is trimmed."""
    stretched = stretch_audio(recording, time_map, duration)
    start_s, trimmed_s = float(time_map.forward(0.0)), float(time_map.forward(duration)) - duration
    start = seconds_to_samples(max(start_s, 0.0), stretched.sample_rate)
    fade_in = seconds_to_samples(FADE_IN_S if abs(start_s) > 1e-3 else 0.0, stretched.sample_rate)
    fade_out = seconds_to_samples(FADE_OUT_S if trimmed_s > FADE_OUT_S / 4 else 0.0, stretched.sample_rate)
    fade_edges(stretched.samples[:, start:], fade_in, 0)
    fade_edges(stretched.samples, 0, fade_out)
    return stretched


def _measure_alignment(beats: Floats, downbeats: Floats, cuts: tuple[Cut, ...], duration: float) -> dict[str, Any]:
    times = [cut.time for cut in cuts]
    alignment: dict[str, Any] = cut_alignment(times, beats, downbeats, duration=duration).to_dict()
    if cuts and len(downbeats):
        strongest = max(cuts, key=lambda cut: cut.strength)
        distance = distance_to_nearest([strongest.time], downbeats)[0]
        alignment["strongest_on_downbeat"] = bool(distance <= HIT_TOLERANCE_S)
    return alignment


def _describe_map(track: BeatTrack, time_map: TimeMap, duration: float) -> Mapping[str, Any]:
    """Summarize a warp, in seconds: shift of the first beat; start of the music, negative where trimmed."""
    return {
        "max_stretch": round(float(np.abs(time_map.stretch_factors - 1).max()), 4),
        "mean_stretch": round(float(time_map.forward(duration) - time_map.forward(0.0)) / duration - 1, 4),
        "shift": round(float(time_map.forward(track.beats[0]) - track.beats[0]), 3),
        "start": round(float(time_map.forward(0.0)), 3),
        "trimmed_end": round(float(time_map.forward(duration)) - duration, 3),
    }


def _with_hits(
    soundtrack: Soundtrack, beats: Floats, downbeats: Floats, cuts: tuple[Cut, ...], status: Mapping[str, Any]
) -> Soundtrack:
    """Add beats, hits and alignment, for the markers and the report."""
    hits = []
    for cut in cuts:
        beat = float(beats[np.argmin(np.abs(beats - cut.time))])
        if abs(beat - cut.time) <= HIT_TOLERANCE_S:
            hit = {"time": cut.time, "strength": cut.strength, "offset": beat - cut.time}
            rounded = {name: round(value, 3) for name, value in hit.items()}
            hits.append({**rounded, "downbeat": bool(np.isin(beat, downbeats))})
    alignment = {**status.get("after", status["before"])}
    metadata = {**soundtrack.metadata, "align_to_cuts": dict(status), "alignment": alignment, "hits": hits}
    return replace(soundtrack, beats=beats, downbeats=downbeats, metadata=metadata)


def stretch_audio(recording: Audio, time_map: TimeMap, duration: float) -> Audio:
    """Stretch `recording` along `time_map` to `duration` seconds, by ffmpeg's filter rubberband.

    There is silence where the recording has nothing to give. The stretch does not depend on the audio, so that stems
    stay synchronous. Raises FFmpegError where this ffmpeg has no rubberband, OSError where the disk is full.
    """
    assert recording.channels <= 2, "the filter keeps two channels together, not more"
    rate = recording.sample_rate
    source_start, target_start = max(0.0, float(time_map.inverse(0.0))), max(0.0, float(time_map.forward(0.0)))
    samples = recording.samples[:, seconds_to_samples(source_start, rate) :]
    tail = np.zeros((recording.channels, seconds_to_samples(TAIL_S, rate)), np.float32)
    source = np.concatenate([samples, tail], axis=1)
    target = np.zeros((recording.channels, seconds_to_samples(duration, rate)), np.float32)
    start = seconds_to_samples(target_start, rate)
    stretched = _run_filter(source, rate, _filter_chain(time_map, source_start))[:, : target.shape[1] - start]
    target[:, start : start + stretched.shape[1]] = stretched
    return Audio(target, rate)


def _filter_chain(time_map: TimeMap, start: float) -> str:
    """Return the filters that stretch the recording from second `start` on."""
    tempi = 1 / time_map.stretch_factors
    current = int(np.clip(np.searchsorted(time_map.source, start, side="right") - 1, 0, len(tempi) - 1))
    commands, last = [], tempi[current]
    for knot, tempo in zip(time_map.source[current + 1 : -1] - start, tempi[current + 1 :], strict=True):
        if abs(tempo - last) > 1e-6:
            commands.append(f"{knot:.3f} rubberband tempo {tempo:.6f}")
            last = tempo
    send = f"asendcmd=c='{';'.join(commands)}'," if commands else ""
    return f"asetnsamples=n={FRAME_SAMPLES}:p=0,{send}{FILTER}:tempo={tempi[current]:.6f}"


def _run_filter(samples: NDArray[np.float32], sample_rate: int, chain: str) -> NDArray[np.float32]:
    """Run the filters on a file: frames that are piped in would queue, and commands would come too early."""
    channels, count = samples.shape
    with tempfile.TemporaryDirectory(prefix="v2m-") as folder:
        source, out = Path(folder) / "in.wav", Path(folder) / "out.f32"
        audio.save(Audio(samples, sample_rate), source)
        option = re.sub(r"([\\':])", r"\\\1", str(source))
        graph = "amovie=" + re.sub(r"([\\'\[\],; ])", r"\\\1", option) + "," + chain  # escaped for option and graph
        arguments = ["-f", "lavfi", "-i", graph, "-f", "f32le", f"file:{out}"]
        ffmpeg.run_ffmpeg(arguments, (), timeout=60 + 2 * samples_to_seconds(count, sample_rate))
        return np.fromfile(out, np.float32).reshape(-1, channels).T
