"""Visual features of frames whose light, color, motion and cuts are known by construction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from v2m.analysis.visual_features import extract_features
from v2m.core.types import Floats, Pixels, VisualFeatures
from v2m.media import video

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
H, W = 54, 96


@dataclass
class Frames:
    """Frames in memory as a FrameScanner; evenly timed at `fps` unless `times` are given."""

    frames: np.ndarray
    fps: float = 25.0
    times: Floats | None = None
    chunk: int = 64

    def scan(self, width: int, fps: float) -> Iterator[tuple[Floats, Pixels]]:
        frames = np.clip(np.round(self.frames), 0, 255).astype(np.uint8)
        times = np.arange(len(frames)) / self.fps if self.times is None else self.times
        for first in range(0, len(frames), self.chunk):
            yield times[first : first + self.chunk], frames[first : first + self.chunk]


def extract(frames: np.ndarray, fps: float = 25.0) -> VisualFeatures:
    return extract_features(Frames(frames, fps), len(frames) / fps)


def cut_frames(frames: np.ndarray, fps: float = 25.0) -> list[int]:
    return [round(cut.time * fps) for cut in extract(frames, fps).cuts]


def scenery(seed: int, width: int = 594) -> np.ndarray:
    """A wide still: hills and trees of random color at several scales, (H, width, 3) in 20–235."""
    random = np.random.default_rng(seed)
    image = np.zeros((H, width, 3))
    for size, weight in ((18, 0.5), (6, 0.3), (2, 0.2)):
        blocks = random.uniform(20, 235, (H // size, width // size, 3))
        image += weight * blocks.repeat(size, 0).repeat(size, 1)
    return image


def shot(seed: int, frames: int = 50, speed: float = 1.0) -> np.ndarray:
    """A pan over `scenery` at `speed` pixels a frame (0 = still), there and back, (frames, H, W, 3)."""
    still = scenery(seed)
    room = still.shape[1] - W
    places = np.abs((np.arange(frames) * speed + room) % (2 * room) - room).astype(int)
    return np.stack([still[:, place : place + W] for place in places])


def ramp(first: float, last: float, frames: int) -> np.ndarray:
    return np.linspace(first, last, frames)[:, None, None, None]


def brighten(frames: np.ndarray, at: dict[int, float]) -> np.ndarray:
    """`frames` with flashes: so much light added `at` frame numbers."""
    out = frames.astype(float)
    for number, light in at.items():
        out[number] += light
    return out


def add_title(frames: np.ndarray, first: int) -> np.ndarray:
    """`frames` with a white line of text along the lower edge from frame `first` on."""
    out = frames.copy()
    out[first:, -9:-5, 20:-20] = 255
    return out


def add_grain(frames: np.ndarray, sigma: float) -> np.ndarray:
    return frames + np.random.default_rng(0).normal(0, sigma, frames.shape)


@pytest.mark.parametrize("fps", [1, 10, 24, 60])
def test_cuts_are_at_the_first_frame_of_the_new_shot(fps: float) -> None:
    frames = np.concatenate([shot(1, 31), shot(2, 47), shot(3, 20), shot(4, 60)])
    assert [cut.time for cut in extract(frames, fps).cuts] == pytest.approx([31 / fps, 78 / fps, 98 / fps])


def test_cut_times_are_the_given_timestamps() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.07, 100)) + 3.0
    picture = extract_features(Frames(np.concatenate([shot(1, 40), shot(2, 60)]), times=times), 10.0)
    assert [cut.time for cut in picture.cuts] == [times[40]]
    assert (picture.times == times).all()


def test_chunk_size_does_not_matter() -> None:
    frames = add_grain(np.concatenate([shot(1, 40), shot(2, 33), shot(3, 40)]), 5)
    one, many = (extract_features(Frames(frames, chunk=size), 5.0) for size in (1000, 1))
    assert [cut.time for cut in one.cuts] == [cut.time for cut in many.cuts]
    for curve in ("brightness", "saturation", "contrast", "motion", "flow", "hues"):
        assert np.allclose(getattr(one, curve), getattr(many, curve), atol=1e-5), curve


def test_larger_change_is_a_stronger_cut() -> None:
    base = shot(1)
    frames = np.concatenate([base * 0.3, base[:, ::-1] * 0.4, shot(2) * 0.3, 255 - 0.3 * shot(3)])
    strengths = [cut.strength for cut in extract(frames).cuts]
    assert len(strengths) == 3
    assert strengths[0] < 0.6 < strengths[2] <= 1
    assert strengths[1] < strengths[2]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(shot(1, 100, 0), id="still"),
        pytest.param(shot(1, 100, 4), id="pan"),
        pytest.param(shot(1, 60, 12), id="whip pan"),
        pytest.param(np.concatenate([shot(1, 30, 0), shot(1, 60, 8)]), id="sudden pan"),
        pytest.param(shot(1, 96, 3)[::4].repeat(4, 0), id="stutter"),
        pytest.param(add_title(shot(1, 80, 0), 40), id="subtitle"),
        pytest.param(add_grain(shot(1, 80, 0), 25), id="grain"),
        pytest.param(add_grain(shot(1, 80, 0) * 0.1, 12), id="grain in the dark"),
        pytest.param(brighten(shot(1, 80), {30: 220, 31: 200, 50: 180}), id="flash"),
        pytest.param(brighten(shot(1, 80), {30: 200, 31: 140, 32: 90, 33: 50, 34: 20}), id="flash that dies away"),
        pytest.param(brighten(shot(1, 80), dict.fromkeys(range(0, 80, 2), -200.0)), id="strobe"),
        pytest.param(shot(1, 80) * ramp(0.2, 1.0, 80), id="rising light"),
        pytest.param(shot(1, 80) * (1 - ramp(0, 1, 80)) + shot(2, 80) * ramp(0, 1, 80), id="dissolve"),
        pytest.param(shot(1, 80) * np.minimum(1, ramp(0, 4, 80)), id="fade in at the start"),
        pytest.param(shot(1, 80) * np.minimum(1, ramp(4, 0, 80)), id="fade out at the end"),
    ],
)
def test_changes_that_are_no_cuts(frames: np.ndarray) -> None:
    assert cut_frames(frames) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frames: frames * 0.1, id="in the dark"),
        pytest.param(lambda frames: add_grain(frames, 25), id="in grain"),
        pytest.param(lambda frames: frames.mean(-1, keepdims=True).repeat(3, -1), id="in black and white"),
        pytest.param(lambda frames: brighten(frames, {20: 200, 21: 200}), id="after a flash"),
        pytest.param(lambda frames: brighten(frames, {50: 200, 51: 130, 52: 60}), id="under a flash"),
    ],
)
def test_difficult_cuts(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert cut_frames(change(np.concatenate([shot(1, 50), shot(2, 50)]))) == [50]


def test_cuts_between_pans_and_into_noise() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (40, H, W, 3))
    frames = np.concatenate([shot(1, 50, 1.5), shot(2, 50, 2), noise, shot(3, 50)])
    assert cut_frames(frames) == [50, 100, 140]


@pytest.mark.parametrize("black", [1, 12])
def test_fade_through_black_is_one_cut_at_the_new_picture(black: int) -> None:
    out, back = shot(1, 50) * np.minimum(1, ramp(3, 0, 50)), shot(2, 50) * np.minimum(1, ramp(0, 3, 50))
    (cut,) = cut_frames(np.concatenate([out, np.zeros((black, H, W, 3)), back]))
    assert 50 + black < cut <= 50 + black + 2  # the first frame of the fade in is still black


def test_fade_in_after_black_is_a_cut() -> None:
    frames = np.concatenate([np.zeros((30, H, W, 3)), shot(1, 60) * np.minimum(1, ramp(0.05, 4, 60))])
    assert cut_frames(frames) == [30]


def test_motion_grows_with_speed_and_excludes_cuts() -> None:
    still, slow, fast = (extract(shot(1, 80, speed)).motion.mean() for speed in (0, 1, 4))
    assert still == 0
    assert 0 < 2 * slow < fast
    two = extract(np.concatenate([shot(1, 50, 0), shot(2, 50, 0)]))
    assert len(two.cuts) == 1
    assert two.motion.max() == 0


def test_flow_grows_with_speed_at_any_contrast_and_light() -> None:
    """A pan of so many pixels a frame; the lamp flickers."""

    def flow(speed: float, contrast: float) -> float:
        """In pixels a frame."""
        frames = contrast * shot(1, 80, speed) + 40
        return float(extract(brighten(frames, dict.fromkeys(range(20, 60, 7), 15.0))).flow.mean() / 25 * W)

    strong, weak = (np.array([flow(speed, contrast) for speed in (0, 0.5, 1, 2)]) for contrast in (0.8, 0.4))
    for speeds in (strong, weak):
        assert speeds[0] < 0.02
        assert (speeds[1:] / [0.5, 1, 2]).min() > 0.4
        assert (speeds[1:] / [0.5, 1, 2]).max() < 1
        assert speeds[2:] / speeds[1:-1] == pytest.approx(2, rel=0.2)
    assert weak == pytest.approx(strong, rel=0.25, abs=0.02)


def test_flow_excludes_cuts() -> None:
    two = extract(np.concatenate([shot(1, 50, 0), shot(2, 50, 0)]))
    assert len(two.cuts) == 1
    assert two.flow.max() == 0


def test_motion_is_per_second_not_per_frame() -> None:
    moving = shot(1, 100, 2)
    assert extract(moving[::2], 12.5).motion.mean() == pytest.approx(extract(moving, 25).motion.mean(), rel=0.3)


@pytest.mark.parametrize(
    ("rgb", "brightness", "saturation", "hue", "warmth"),
    [
        ((255, 0, 0), 0.2126, 1.0, 0, 0.82),
        ((255, 128, 0), 0.57, 1.0, 1, 0.95),
        ((255, 255, 0), 0.9278, 1.0, 2, 0.82),
        ((0, 255, 0), 0.7152, 1.0, 4, 0.0),
        ((0, 128, 255), 0.43, 1.0, 7, -0.95),
        ((100, 50, 50), 0.238, 0.5, 0, 0.68),
        ((128, 128, 128), 0.502, 0.0, None, 0.0),
        ((3, 0, 3), 0.003, 0.19, None, 0.0),
    ],
)
def test_flat_colors(rgb: tuple, brightness: float, saturation: float, hue: int | None, warmth: float) -> None:
    picture = extract(np.full((5, H, W, 3), rgb))
    assert picture.brightness == pytest.approx([brightness] * 5, abs=0.005)
    assert picture.saturation == pytest.approx([saturation] * 5, abs=0.005)
    assert picture.contrast == pytest.approx([0] * 5, abs=1e-4)
    assert picture.hues.tolist() == [float(number == hue) for number in range(12)]
    assert picture.warmth == pytest.approx(warmth, abs=0.03)


def test_contrast_is_the_deviation_of_luma() -> None:
    halves = np.zeros((3, H, W, 3))
    halves[:, :, W // 2 :] = 255
    assert extract(halves).contrast == pytest.approx([0.5] * 3, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, H, W), (2, H, W), (3, 1, 1), (40, 1, 96), (40, 300, 2)])
def test_unusual_frame_sizes(shape: tuple[int, int, int]) -> None:
    picture = extract(np.random.default_rng(0).uniform(0, 255, (*shape, 3)))
    assert picture.cuts == ()
    for curve in (
        picture.times,
        picture.brightness,
        picture.saturation,
        picture.contrast,
        picture.motion,
        picture.flow,
    ):
        assert curve.shape == shape[:1]
        assert np.isfinite(curve).all()
    assert picture.hues.sum() == pytest.approx(1)
    assert picture.fps >= 10


def test_progress_rises_to_the_end() -> None:
    seen: list[float] = []

    def note(fraction: float) -> None:
        seen.append(fraction)

    extract_features(Frames(shot(1, 100), chunk=30), 4.0, note)
    assert seen == sorted(seen)
    assert len(seen) == 4
    assert 0.98 < seen[-1] <= 1


def test_example_clip_has_the_documented_cuts() -> None:
    listed = re.findall(r"\d+\.\d\d", (EXAMPLES / "README.md").read_text().rsplit("shown:", 1)[1])
    with_cuts = video.open(EXAMPLES / "bunny_wakes.mp4")
    assert [f"{cut.time:.2f}" for cut in with_cuts.visual_features().cuts] == listed
