"""Transitions found in made pictures whose spans are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from v2m.analysis.visual_features import extract_features
from v2m.core.types import Floats, Pixels, Transition, VisualFeatures

FPS = 24
HEIGHT, WIDTH = 54, 96


@dataclass
class StubFrames:
    """Frames in memory as a source, handed out in unequal chunks."""

    frames: Pixels

    def scan(self, width: int, fps: float) -> Iterator[tuple[Floats, Pixels]]:
        edges = [*range(0, len(self.frames), 17), len(self.frames)]
        for first, last in pairwise(edges):
            yield np.arange(first, last) / FPS, self.frames[first:last]


def shot(seed: int, seconds: float, pan: float = 0.0) -> Floats:
    """Return frames 0–1 of a textured picture that pans by `pan` widths a second."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((6, 8, 3)), np.ones((9, 12, 1)))
    picture = np.clip(0.75 * coarse + 0.25 * rng.random((HEIGHT, WIDTH, 3)), 0, 1)
    shifts = [round(pan * WIDTH * n / FPS) for n in range(round(seconds * FPS))]
    return np.stack([np.roll(picture, shift, 1) for shift in shifts])


def dissolve(first: Floats, second: Floats, seconds: float) -> Floats:
    """Join two shots over the last `seconds` of one and the first of the other."""
    count = round(seconds * FPS)
    share = (np.arange(count) / count)[:, None, None, None]
    blend = (1 - share) * first[-count:] + share * second[:count]
    return np.concatenate([first[:-count], blend, second[count:]])


def features(frames: Floats) -> VisualFeatures:
    pixels = np.round(255 * frames).astype(np.uint8)
    return extract_features(StubFrames(pixels), len(pixels) / FPS)


def spans(found: Sequence[Transition], kind: str) -> list[tuple[float, float]]:
    return [(part.start, part.end) for part in found if part.kind == kind]


@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("pan", [0.0, 0.1])
def test_a_dissolve_is_found_with_its_span(seconds: float, pan: float) -> None:
    result = features(dissolve(shot(1, 3.0, pan), shot(2, 4.0, -pan), seconds))
    assert not result.cuts
    assert [part.kind for part in result.transitions] == ["dissolve"]
    [(start, end)] = spans(result.transitions, "dissolve")
    assert abs((start + end) / 2 - (3.0 - seconds / 2)) < 0.15
    assert 0.5 * seconds < end - start < 1.5 * seconds


def test_a_cut_a_pan_and_changing_light_are_no_transitions() -> None:
    cut = features(np.concatenate([shot(1, 2.0), shot(2, 2.0)]))
    assert len(cut.cuts) == 1
    assert not cut.transitions
    assert not features(shot(3, 4.0, pan=0.4)).transitions
    light = 0.6 + 0.4 * np.sin(np.arange(96) / 15)[:, None, None, None]
    assert not features(shot(4, 4.0) * light).transitions


@pytest.mark.parametrize("color", [0.0, 1.0])
def test_fades_are_found_with_their_spans(color: float) -> None:
    share = np.clip(np.arange(48) / 24, 0, 1)[:, None, None, None]
    out = (1 - share) * shot(1, 2.0) + share * color
    result = features(np.concatenate([shot(1, 2.0), out, out[::-1], shot(1, 2.0)]))
    assert spans(result.transitions, "fade out") == [pytest.approx((2.0, 3.0), abs=0.1)]
    assert spans(result.transitions, "fade in") == [pytest.approx((5.0, 6.0), abs=0.1)]
    assert not spans(result.transitions, "dissolve")


@pytest.mark.parametrize("count", [1, 3])
def test_a_flash_is_found_and_a_lasting_light_is_not(count: int) -> None:
    frames = shot(1, 4.0)
    frames[50 : 50 + count] = 1 - (1 - frames[50 : 50 + count]) * 0.2
    result = features(frames)
    assert [part.kind for part in result.transitions] == ["flash"]
    assert spans(result.transitions, "flash") == [pytest.approx((50 / FPS, (50 + count) / FPS))]
    frames[50:] = 1 - (1 - shot(1, 4.0)[50:]) * 0.2
    assert not spans(features(frames).transitions, "flash")


def test_a_jolt_within_a_shot_is_sudden_motion() -> None:
    frames = shot(1, 5.0)
    for step, offset in enumerate((4, 7, -4, -5)):
        frames[60 + step] = np.roll(frames[60 + step], offset, 1)
    result = features(frames)
    assert [part.kind for part in result.transitions] == ["motion"]
    assert abs(result.transitions[0].start - 61.5 / FPS) < 0.15
    assert not features(shot(1, 5.0, pan=0.3)).transitions


def test_transitions_do_not_depend_on_chunks_and_short_videos_have_none() -> None:
    frames = dissolve(shot(1, 3.0), shot(2, 3.0), 1.0)
    whole = features(frames).transitions
    source = StubFrames(np.round(255 * frames).astype(np.uint8))
    source.scan = lambda width, fps: iter([(np.arange(len(frames)) / FPS, source.frames)])  # type: ignore[method-assign]
    assert extract_features(source, len(frames) / FPS).transitions == whole
    for count in (1, 2, 3, 5):
        assert not features(shot(1, 1.0)[:count]).transitions


def test_a_crop_keeps_what_it_overlaps_and_shifts_it() -> None:
    base = features(shot(1, 4.0))
    parts = (Transition("dissolve", 0.5, 1.5, 1.0), Transition("flash", 3.0, 3.1, 0.5))
    cropped = replace(base, transitions=parts).crop(1.0, 2.5)
    assert cropped.transitions == (Transition("dissolve", -0.5, 0.5, 1.0),)
