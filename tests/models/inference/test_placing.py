"""Event times can be learned with the temporal conditioner, and not with the published VidMuse one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from v2m.models.lm import LMConfig
from v2m.models.losses import codebook_cross_entropy, model_inputs
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.models.visual_conditioner import ConditionerConfig, ConditionerKind, VisualInputs

RATE, FRAMES, CLIPS = 10, 24, 32
CUT_RATE = 0.15  # share of frames at which there is a cut
CHANCE_LOSS = 0.42  # entropy of a cut at that rate, in nats


def make_batch(generator: torch.Generator) -> tuple[Tensor, VisualInputs]:
    """Codes (B, 1, T) that are 1 where there is a cut; pictures that show which of two shots is on."""
    cuts = torch.rand(CLIPS, FRAMES, generator=generator) < CUT_RATE
    shots = cuts.cumsum(1) % 2
    pictures = torch.ones(CLIPS, FRAMES // 4, 1, 4)
    pictures[..., 1] = shots[:, 2::4, None] * 2.0 - 1
    near = pictures, (torch.arange(FRAMES // 4) * 0.4 + 0.2).expand(CLIPS, -1), torch.ones(CLIPS, FRAMES // 4) > 0
    instants = ((torch.arange(FRAMES) + 0.5) / RATE).expand(CLIPS, -1), torch.ones(CLIPS, FRAMES) > 0
    return cuts.long()[:, None], VisualInputs(*near, *near, cuts[..., None].float(), *instants)


def train(kind: ConditionerKind, steps: int = 250) -> float:
    """The mean loss of the last ten steps."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    sizes = ConditionerConfig(
        kind=kind,
        vision_dim=4,
        num_tokens=1,
        num_layers=1,
        num_heads=2,
        head_dim=8,
        ffn_dim=16,
        num_fusion_heads=2,
        num_event_channels=1,
        num_event_layers=1,
        event_stride=2,
        codec_frame_rate=RATE,
    )
    lm = LMConfig(dim=32, num_layers=1, num_heads=2, num_codebooks=1, codebook_size=2, ffn_dim=64)
    model = MusicModel(MusicConfig(lm, text_dim=None, conditioner=sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        codes, inputs = make_batch(generator)
        lengths = torch.full((CLIPS,), FRAMES)
        logits = model.lm(
            model_inputs(codes, lengths, lm.delay_pattern, lm.special_token_id), model.build_condition(None, inputs)
        )
        loss = codebook_cross_entropy(logits, codes, lengths, lm.delay_pattern).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def test_only_the_temporal_conditioner_learns_cut_times() -> None:
    assert train("v2m") < 0.1
    assert train("vidmuse") == pytest.approx(CHANCE_LOSS, abs=0.05)
