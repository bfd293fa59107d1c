"""Short animated pictures that differ in what music can follow: cuts, motion, light, color.

H height, W width of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every
from v2m.core.types import Floats, Pixels

FPS = 24
WIDTH, HEIGHT = 160, 96
LUMA = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Scene:
    """Parameters that determine the music of one clip.

    tempo: beats per minute, on which cuts and flashes lie; speed: widths of the frame that things move in a second;
    light: 0–1; hue: degrees; color: saturation 0–1; cuts, flashes: seconds.
    """

    tempo: float
    speed: float
    light: float
    hue: float
    color: float
    cuts: tuple[float, ...]
    flashes: tuple[float, ...]
    seed: int


def render_frames(scene: Scene, seconds: float) -> Iterator[Pixels]:
    """Upright RGB (H, W, 3), FPS of them a second: blobs that drift over a gradient, anew in each shot."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    columns, rows = columns / WIDTH, rows / HEIGHT
    for time in every(FPS, seconds):
        shot = int(np.searchsorted(scene.cuts, time + 1e-6))
        random = np.random.default_rng([scene.seed, shot])
        start, size = random.random((6, 2)), random.uniform(0.08, 0.22, 6)
        heading, tones = random.uniform(0, 2 * np.pi, 6), random.uniform(-0.5, 0.5, 7)
        level = 0.25 * tones[6] * (rows + columns)
        for number in range(6):
            x = (start[number, 0] + scene.speed * time * np.cos(heading[number])) % 1.0
            y = (start[number, 1] + scene.speed * time * np.sin(heading[number])) % 1.0
            away = np.minimum(np.abs(columns - x), 1 - np.abs(columns - x)) ** 2 + (rows - y) ** 2
            level = level + tones[number] * np.exp(-away / size[number] ** 2)
        flash = max((1 - (time - at) * 6 for at in scene.flashes if at - 1e-6 <= time < at + 1 / 6), default=0.0)
        turned = scene.hue + 40 * tones[shot % 7]
        yield _tint(np.clip(scene.light + 0.35 * level + 0.4 * flash, 0, 1), turned, scene.color)


def _tint(light: NDArray, hue: float, color: float) -> Pixels:
    """Luma (H, W) in one color."""
    angles = np.deg2rad([hue, hue - 120, hue - 240])
    tint = 1 + color * np.cos(angles)
    return (255 * np.clip(light[..., None] * tint / (tint @ LUMA), 0, 1)).astype(np.uint8)


def sample_scene(seed: int, seconds: float, tempos: Sequence[float] = (60, 160)) -> Scene:
    """A scene whose measures go together: fast ones are bright, quick and often cut."""
    random = np.random.default_rng(seed)
    arousal, valence = random.random(2)
    low, high = tempos
    tempo = round(low + (high - low) * arousal)
    beats = every(tempo / 60, seconds)[1:]
    shot = int(random.choice([2, 4, 8] if arousal > 0.5 else [4, 8, 16]))
    offset = int(random.integers(0, shot))
    cuts = beats[offset::shot] if random.random() < 0.85 else beats[:0]
    flashes = [beat for beat in beats if random.random() < 0.15 * arousal]
    return Scene(
        tempo=tempo,
        speed=float(0.02 + 0.5 * arousal**2),
        light=float(0.12 + 0.6 * valence),
        hue=float((30 if valence > 0.5 else 210) + random.uniform(-40, 40)),
        color=float(random.uniform(0.1, 0.9)),
        cuts=_snap_to_frames(cuts, seconds),
        flashes=_snap_to_frames(np.array(flashes), seconds),
        seed=seed,
    )


def _snap_to_frames(times: Floats, seconds: float) -> tuple[float, ...]:
    """The instants of the frames that are the first to show what happens at `times`."""
    stamps = every(FPS, seconds)
    places = np.unique(np.searchsorted(stamps, np.asarray(times, float) - 1e-6))
    return tuple(float(stamps[place]) for place in places if 0 < place < len(stamps))
