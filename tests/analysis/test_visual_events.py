"""Events at known times are in the steps of those times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.analysis.visual_events import features_from_events as picture_of
from v2m.core.timing import segment_count, segment_times
from v2m.core.types import Cut, VisualFeatures
from v2m.media import video

NAMES = {name: number for number, name in enumerate(EVENT_CHANNELS)}


def varied_features(fps: float, seconds: float = 4.0) -> VisualFeatures:
    """Gray and still, but for what a test changes."""
    times = np.arange(round(seconds * fps)) / fps
    still = {name: np.full(len(times), 0.2) for name in ("brightness", "saturation", "contrast")}
    return VisualFeatures(
        fps,
        times,
        **still,
        motion=np.zeros(len(times)),
        flow=np.zeros(len(times)),
        hues=np.zeros(12),
        warmth=0.0,
        cuts=(),
        transitions=(),
    )


def channel(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, NAMES[name]]


@pytest.mark.parametrize("begin", [0.0, 0.5])
@pytest.mark.parametrize("at", [1.0, 1.23, 2.999])
def test_cut_is_in_its_step(begin: float, at: float) -> None:
    shown = replace(varied_features(60), cuts=(Cut(at, 0.8), Cut(3.7, 0.4)))
    cuts = channel(visual_event_features(shown, begin, 3.0), "cut")
    assert len(cuts) == segment_count(3.0, 20) == 60
    [index] = np.flatnonzero(cuts == np.float32(0.8))
    assert index == int((at - begin) * 20 + 1e-6)
    assert (cuts > 0).sum() == 1, "the other lies outside"
    assert abs(segment_times(3.0, 60)[index] + begin - at) <= 0.025 + 1e-6


def test_stronger_of_two_cuts_in_a_step_counts() -> None:
    shown = replace(varied_features(60), cuts=(Cut(1.01, 0.8), Cut(1.04, 0.4)))
    assert channel(visual_event_features(shown, 0, 4), "cut")[20] == pytest.approx(0.8)


@pytest.mark.parametrize("fps", [10, 23.976, 25, 60])
def test_brightness_change_is_a_flash_at_any_frame_rate(fps: float) -> None:
    shown = varied_features(fps)
    late = shown.times >= 2.0
    light = visual_event_features(replace(shown, brightness=np.where(late, 0.7, 0.2)), 0, 4)
    first = shown.times[late][0]
    flash = channel(light, "flash")
    assert flash.sum() == pytest.approx(0.5, abs=1e-3)
    assert np.flatnonzero(flash > 1e-3)[0] == int(first * 20 + 1e-6)
    assert channel(light, "brightness")[[0, 38, 43, 79]] == pytest.approx([0.2, 0.2, 0.7, 0.7], abs=1e-3)
    assert channel(light, "motion").max() == 0


def test_motion_is_compressed_and_its_rise_is_never_negative() -> None:
    shown = varied_features(60)
    busy = (shown.times > 1.999) & (shown.times < 2.999)
    features = visual_event_features(replace(shown, motion=np.where(busy, 0.25, 0.0)), 0, 4)
    assert channel(features, "motion")[[39, 40, 59, 60]] == pytest.approx([0, 0.5, 0.5, 0], abs=1e-6)
    assert channel(features, "motion_rise")[40] == pytest.approx(0.5, abs=1e-6)
    assert channel(features, "motion_rise").sum() == pytest.approx(0.5, abs=1e-5)


def test_flow_is_compressed() -> None:
    shown = varied_features(60)
    late = shown.times > 1.999
    features = channel(visual_event_features(replace(shown, flow=np.where(late, 0.1, 0.0)), 0, 4), "flow")
    assert features[[39, 40, 79]] == pytest.approx([0, 0.5, 0.5], abs=1e-6)


def test_features_of_a_range_equal_that_part_of_the_whole() -> None:
    """Also its first step, whose change is against what was shown before."""
    shown = varied_features(30)
    random = np.random.default_rng(0)
    curves = {
        name: random.random(len(shown.times)) / 2 for name in ("brightness", "contrast", "motion", "flow", "saturation")
    }
    shown = replace(shown, **curves, cuts=(Cut(2.0, 0.5),))
    whole = visual_event_features(shown, 0, 4)
    np.testing.assert_allclose(visual_event_features(shown, 1.5, 1.0), whole[30:50], atol=1e-6)
    assert whole.shape == (80, len(EVENT_CHANNELS))
    assert 0 <= whole.min() <= whole.max() <= 1


def test_range_may_end_after_the_last_frame() -> None:
    features = visual_event_features(varied_features(10, seconds=1.0), 0, 1.5)
    assert channel(features, "brightness") == pytest.approx(np.full(30, 0.2))


def test_cuts_of_a_real_file_are_in_their_steps(media: Path) -> None:
    features = channel(visual_event_features(video.open(media / "cuts.mp4").visual_features(), 0, 4), "cut")
    assert np.flatnonzero(features).tolist() == [24, 52]  # 1.2 s and 2.6 s


def test_features_are_recovered_from_events() -> None:
    """Steps of a constant picture between changes at their edges lose nothing but where in its step a cut lies."""
    shown = varied_features(20)
    moving = np.where(shown.times < 2, 0.1, 0.4)
    shown = replace(shown, motion=moving, flow=moving / 2, brightness=moving, cuts=(Cut(1.0, 0.8), Cut(3.7, 0.4)))
    features = picture_of(visual_event_features(shown, 0.0, 4.0), EVENT_CHANNELS, 4.0)
    for name in ("motion", "flow", "brightness", "saturation", "contrast"):
        assert getattr(features, name) == pytest.approx(getattr(shown, name), rel=1e-5), name
    assert [cut.strength for cut in features.cuts] == pytest.approx([0.8, 0.4])
    assert [cut.time for cut in features.cuts] == pytest.approx([1.025, 3.725])
    assert features.times[0] == 0.025
    assert not picture_of(np.ones((8, 1)), ("brightness",), 0.4).cuts
