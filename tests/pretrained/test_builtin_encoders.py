"""Encoders without weights: what their values say of a frame and of a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v2m.core.errors import UsageError
from v2m.pretrained.builtin_encoders import NUM_HASH_BITS, FrameStatistics, HashedWords

RED, GREEN = (200, 20, 20), (20, 200, 20)


def flat(color: tuple[int, int, int], size: tuple[int, int] = (90, 160)) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (1, *size, 3)).copy()


def test_tokens_of_a_frame_are_its_own_and_its_quarters_statistics() -> None:
    frame = flat(RED)
    frame[:, :45, 80:] = GREEN  # the upper right quarter
    tokens = FrameStatistics().encode(frame)
    assert tokens.shape == (1, FrameStatistics.num_tokens, FrameStatistics.dim)
    red, green = tokens[0, :, 0], tokens[0, :, 1]
    assert red.argmin() == 2  # of: whole, upper left, upper right, lower left, lower right
    assert green.argmax() == 2
    assert red[1].item() == pytest.approx(200 / 255, abs=0.01)
    assert tokens.min() >= 0
    assert tokens.max() <= 1


def test_tokens_hardly_depend_on_the_size_at_which_a_frame_is_decoded() -> None:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (1, 24, 32, 3), np.uint8)
    large = small.repeat(8, axis=1).repeat(8, axis=2)
    tokens = (
        FrameStatistics().encode(np.concatenate([small.repeat(4, 1).repeat(4, 2)])),
        FrameStatistics().encode(large),
    )
    assert (tokens[0] - tokens[1]).abs().max() < 0.05


def test_no_frames_give_no_tokens() -> None:
    empty = FrameStatistics().encode(np.zeros((0, 8, 8, 3), np.uint8))
    assert empty.shape == (0, FrameStatistics.num_tokens, FrameStatistics.dim)


@pytest.mark.parametrize(("pooling", "aspect"), [("all", "squash"), ("grid", "vidmuse")])
def test_another_pooling_or_aspect_is_refused(pooling: str, aspect: str) -> None:
    with pytest.raises(UsageError, match="leave them out"):
        FrameStatistics(pooling, aspect)


def test_equal_words_have_equal_vectors_and_others_are_nearly_orthogonal() -> None:
    encoded = HashedWords().encode(["calm piano, 96 bpm", "Piano and strings", ""])
    assert encoded.mask.sum(dim=1).tolist() == [4, 3, 0]
    assert not encoded.tokens[~encoded.mask].any()
    assert torch.equal(encoded.tokens[0, 1], encoded.tokens[1, 0])
    piano, strings = encoded.tokens[1, 0], encoded.tokens[1, 2]
    assert abs(float(piano @ strings)) < 0.4 * NUM_HASH_BITS


def test_numbers_that_are_close_have_close_vectors() -> None:
    tokens = HashedWords().encode(["96", "100", "60", "96.5"]).tokens[:, 0]
    distances = (tokens - tokens[0]).norm(dim=1)
    assert 0 < distances[3] < distances[1] < distances[2]


def test_sharps_and_flats_are_part_of_a_tonic() -> None:
    tokens = HashedWords().encode(["F# minor", "F minor", "Gb minor"])
    assert tokens.mask.sum(dim=1).tolist() == [2, 2, 2]
    assert not torch.equal(tokens.tokens[0, 0], tokens.tokens[1, 0])
