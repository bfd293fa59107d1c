"""A pseudo-video for music that has none: cuts on its accents, motion and light that follow it.

Cuts are thinned to the intervals of edited video. Each continuous channel is mapped to the distribution of that channel
in real clips (`event_quantiles.json`, by `bench.event_quantiles`): a piece has a level of its own, and varies around it
as much as a clip does. All is drawn from a seed, so that one piece always gives one pseudo-video.

As in V2M-Zero (arXiv 2603.11042), what is learned is when and how much music changes; at inference the events of the
video stand in the same place. R steps at `CURVE_RATE`, S shots, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v2m.analysis.visual_events import features_from_events
from v2m.core import timing
from v2m.core.types import ConvertFn, Cut, Floats, Pixels, ProgressFn, Video, VisualFeatures
from v2m.data.music_curves import CURVE_RATE, Accent, MusicCurves

WIDTH, HEIGHT = 64, 36
LUMA = np.array([0.2126, 0.7152, 0.0722])
CHANNELS = ("motion", "flow", "brightness", "contrast", "saturation")
UNCUT_SHARE = 0.15  # of the pieces
SHOT_S = (2.0, 7.0)  # median seconds of a shot at the highest and the lowest energy
SHOT_SPREAD, PIECE_SPREAD = 0.5, 0.35  # standard deviations of log durations, within a piece and between pieces
MIN_SHOT_S = 0.6
NEAREST_FRAME_SHARE = 0.7  # of the cuts; the others are on the frame on the other side of the accent
FLASH_SHARE, FLASH_STEPS, FLASH_LIGHT = 0.5, 5, 0.3
DRIFT_S, SHOT_LEVEL = 4.0, 1.0  # standard deviations: seconds of drifts, levels of shots against the drift
QUANTILES = Path(__file__).with_name("event_quantiles.json")


@dataclass(frozen=True)
class ChannelStatistics:
    """Distribution of a channel in real clips."""

    quantiles: Floats  # at equal steps of probability from 0 to 1, all clips weighing the same
    between: float  # share of the variance between clips, after mapping to a normal distribution
    step: float  # median change from one event step to the next


@cache
def load_statistics() -> dict[str, ChannelStatistics]:
    """Return the statistics of each of `CHANNELS`, and of "cut", the strength of cuts."""
    channels: dict[str, dict[str, Any]] = json.loads(QUANTILES.read_text(encoding="utf-8"))["channels"]
    return {
        name: ChannelStatistics(**{**values, "quantiles": np.array(values["quantiles"])})
        for name, values in channels.items()
    }


def make_pseudo_video(curves: MusicCurves, seed: Sequence[int], path: Path) -> Video:
    """Return the pseudo-video of a piece; `path` is that of its file."""
    random = np.random.default_rng(list(seed))
    cuts = choose_cuts(curves, random)
    channels = draw_channels(curves, cuts, random)
    features = features_from_events(np.column_stack(list(channels.values())), CHANNELS, curves.duration)
    features = replace(features, cuts=cuts)
    stamps = timing.time_grid(CURVE_RATE, curves.duration)
    frames = PseudoFrames(features, random.uniform(0, 360, len(cuts) + 1))
    return Video(
        *(path, "none", "none", WIDTH, HEIGHT, 0), float(CURVE_RATE), curves.duration, stamps, 0.0, (), source=frames
    )


def choose_cuts(curves: MusicCurves, random: np.random.Generator) -> tuple[Cut, ...]:
    """Draw the cuts: at accents, the strongest ones about where a shot of drawn length would end."""
    if random.random() < UNCUT_SHARE:
        return ()
    shortest, longest = SHOT_S
    typical = longest * (shortest / longest) ** curves.energy * np.exp(random.normal(0, PIECE_SPREAD))
    last, chosen = 0.0, list[Accent]()
    while True:
        length = max(MIN_SHOT_S, typical * np.exp(random.normal(0, SHOT_SPREAD)))
        low, high = last + max(MIN_SHOT_S, 0.6 * length), last + 1.5 * length
        near = [accent for accent in curves.accents if low <= accent.time <= high]
        near = near or [accent for accent in curves.accents if accent.time > high][:1]
        if not near:
            break
        chosen.append(max(near, key=lambda accent: accent.strength + random.uniform(0, 0.1)))
        last = chosen[-1].time
    times = [_to_frame(accent.time, random) for accent in chosen]
    inside = [(time, accent) for time, accent in zip(times, chosen, strict=True) if 0 < time < curves.duration]
    if not inside:
        return ()
    scores = np.array([accent.strength for _, accent in inside]) + random.normal(0, 0.1, len(inside))
    strengths = map_to_quantiles(scores, load_statistics()["cut"], 0.0)
    return tuple(Cut(time, float(strength)) for (time, _), strength in zip(inside, strengths, strict=True))


def _to_frame(seconds: float, random: np.random.Generator) -> float:
    """Return the time of the nearest frame, or of that on the other side of `seconds`."""
    position = timing.seconds_to_frames(seconds, CURVE_RATE)
    below = int(np.floor(position + 1e-6))
    nearest_is_below = position - below < 0.5
    is_below = nearest_is_below == (random.random() < NEAREST_FRAME_SHARE)
    return timing.samples_to_seconds(below if is_below else below + 1, CURVE_RATE)


def draw_channels(curves: MusicCurves, cuts: Sequence[Cut], random: np.random.Generator) -> dict[str, Floats]:
    """Return (R,) curves of `CHANNELS`, each distributed as in real clips."""
    count = len(curves.motion)
    shots = np.searchsorted([cut.time for cut in cuts], timing.segment_times(curves.duration, count), side="right")

    def drift() -> Floats:
        knots = max(2, int(curves.duration / DRIFT_S) + 2)
        slow = np.interp(np.linspace(0, knots - 1, count), np.arange(knots), random.normal(size=knots))
        return slow + SHOT_LEVEL * random.normal(size=len(cuts) + 1)[shots]

    motion = _standardize(curves.motion) + 0.2 * drift()
    curves_of = {
        "motion": motion,
        "flow": motion + 0.4 * drift(),
        "brightness": _standardize(curves.brightness) + drift(),
        "contrast": drift(),
        "saturation": drift(),
    }
    motion_level, light_level = (
        _normal_score(level) + 0.5 * random.normal() for level in (curves.energy, curves.valence)
    )
    levels = {"motion": motion_level, "flow": motion_level + 0.3 * random.normal(), "brightness": light_level}
    channels = {}
    for name in CHANNELS:
        statistics, level = load_statistics()[name], levels.get(name)
        level = random.normal() if level is None else level / np.hypot(1, 0.5)
        values = map_to_quantiles(curves_of[name], statistics, level)
        channels[name] = np.clip(values + statistics.step * random.normal(size=count), 0, 1)
    _add_flashes(channels["brightness"], curves, cuts, random)
    return channels


def map_to_quantiles(curve: Floats, statistics: ChannelStatistics, level: float) -> Floats:
    """Map ranks of a curve to the quantiles; the `level` of the piece has the share `between` of them.

    Where `level` is drawn from a standard normal distribution, all pieces together have the quantiles.
    """
    ranks = np.argsort(np.argsort(curve, kind="stable"), kind="stable")
    scores = torch.special.ndtri(torch.from_numpy((ranks + 0.5) / len(ranks)))
    mixed = torch.special.ndtr(np.sqrt(statistics.between) * level + np.sqrt(1 - statistics.between) * scores).numpy()
    return np.interp(mixed, np.linspace(0, 1, len(statistics.quantiles)), statistics.quantiles)


def _normal_score(value: float) -> float:
    return float(torch.special.ndtri(torch.tensor(np.clip(value, 0.02, 0.98))))


def _standardize(curve: Floats) -> Floats:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)


def _add_flashes(brightness: Floats, curves: MusicCurves, cuts: Sequence[Cut], random: np.random.Generator) -> None:
    """Brighten a share of the flashes' times, that are no cuts."""
    for time in curves.flashes:
        if random.random() < FLASH_SHARE and all(abs(cut.time - time) > MIN_SHOT_S for cut in cuts):
            first = min(int(timing.seconds_to_frames(time, CURVE_RATE)), len(brightness) - 1)
            light = FLASH_LIGHT * np.linspace(1, 0, FLASH_STEPS, endpoint=False)[: len(brightness) - first]
            brightness[first : first + len(light)] = np.minimum(brightness[first : first + len(light)] + light, 1)


@dataclass(frozen=True)
class PseudoFrames:
    """Pictures: a gradient with the brightness, contrast and saturation of the time, a hue a shot."""

    features: VisualFeatures
    hues: Floats  # (S,) degrees

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: ConvertFn | None = None) -> Pixels:
        """Return pictures (F, H, W, 3) as `FrameSource.frames_at`, at most 64 pixels wide."""
        width = min(width or WIDTH, WIDTH)
        height = max(1, round(width * HEIGHT / WIDTH))
        ramp = np.sqrt(3) * np.linspace(-1, 1, width) * np.ones((height, 1))  # standard deviation 1
        shots = np.searchsorted([cut.time for cut in self.features.cuts], np.asarray(times) + 1e-6)
        steps = np.abs(self.features.times - np.asarray(times)[:, None]).argmin(axis=1)
        pictures = []
        for step, shot in zip(steps, shots, strict=True):
            luma = self.features.brightness[step] + self.features.contrast[step] * ramp
            color = _hue_color(self.hues[shot], self.features.saturation[step])
            pictures.append(np.clip(luma[..., None] * color / (color @ LUMA), 0, 1))
        frames = np.rint(255 * np.array(pictures).reshape(-1, height, width, 3)).astype(np.uint8)
        return convert(frames) if convert else frames

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:  # noqa: ARG002 - protocol
        return self.features


def _hue_color(hue: Any, saturation: Any) -> Floats:
    """Return RGB of a hue (a number of degrees) at value 1 of HSV."""
    ramps = np.abs((hue / 60 + np.array([0, 4, 2])) % 6 - 3) - 1
    return 1 - saturation + saturation * np.clip(ramps, 0, 1)
