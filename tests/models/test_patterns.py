"""The delay pattern against a direct implementation and audiocraft's."""

from __future__ import annotations

import pytest
import torch

from v2m.models import patterns
from v2m.models.lm import LMConfig

DELAYS = [(0,), (0, 1, 2, 3), (0, 0, 1, 1, 2, 2, 3, 3), (0, 2, 1), (1, 1)]


def by_frame(outputs: torch.Tensor, delays: tuple[int, ...]) -> torch.Tensor:
    """Predictions (B, K, S − 1, …) of each step about the next one → (B, K, T, …) by frame."""
    return patterns.revert_delays(torch.cat([outputs[:, :, :1], outputs], dim=2), delays)  # step 0 is not predicted


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("delays", DELAYS)
def test_apply_delays_shifts_codes_and_revert_delays_restores_them(delays: tuple[int, ...], frames: int) -> None:
    codes = torch.randint(64, (2, len(delays), frames))
    built = patterns.apply_delays(codes, delays, 64)
    assert built.shape[2] == frames + max(delays) + 1
    for k, delay in enumerate(delays):
        for step in range(built.shape[2]):
            frame = step - 1 - delay
            expected = codes[:, k, frame] if 0 <= frame < frames else torch.tensor([64, 64])
            assert torch.equal(built[:, k, step], expected)
    assert torch.equal(patterns.revert_delays(built, delays), codes)


@pytest.mark.parametrize("delays", DELAYS)
def test_step_outputs_are_predictions_of_the_next_step(delays: tuple[int, ...]) -> None:
    """Outputs that name the code of the next step become those codes, frame by frame; with entries behind, too."""
    codes = torch.randint(64, (2, len(delays), 9))
    built = patterns.apply_delays(codes, delays, 64)
    assert torch.equal(by_frame(built[:, :, 1:], delays), codes)
    wide = torch.nn.functional.one_hot(built[:, :, 1:])
    assert torch.equal(by_frame(wide, delays).argmax(-1), codes)


@pytest.mark.parametrize(("channels", "codebooks"), [(1, 1), (1, 4), (2, 8)])
@pytest.mark.parametrize("frames", [1, 2, 5, 40])
def test_delay_pattern_matches_audiocraft(channels: int, codebooks: int, frames: int) -> None:
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    delays = LMConfig(num_codebooks=codebooks, channels=channels, codebook_size=64).delay_pattern
    reference = DelayedPatternProvider(codebooks, delays=list(delays)).get_pattern(frames)
    codes = torch.randint(64, (2, codebooks, frames))
    expected, *_ = reference.build_pattern_sequence(codes, 64)
    built = patterns.apply_delays(codes, delays, 64)
    assert torch.equal(built, expected)
    assert torch.equal(patterns.revert_delays(built, delays), reference.revert_pattern_sequence(expected, -1)[0])
    logits = torch.randn(2, codebooks, built.shape[2], 5)
    back, _, mask = reference.revert_pattern_logits(logits.permute(0, 3, 1, 2), float("nan"))
    assert mask.all()
    assert torch.equal(by_frame(logits[:, :, :-1], delays), back.permute(0, 2, 3, 1))
