"""MusicModel: config round trip, CFG branches and null tokens."""

from __future__ import annotations

import pytest
import torch

from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.lm import LMConfig
from v2m.models.music_model import NUM_NULL_TOKENS, MusicConfig, MusicModel
from v2m.models.visual_conditioner import ConditionerConfig, VisualInputs

LM_ = LMConfig(dim=16, num_layers=1, num_heads=2, codebook_size=8, delays=(0, 1, 1, 2))
PREFIXED = LMConfig(dim=16, num_layers=1, num_heads=2, codebook_size=8, cross_attention=False)
TEMPORAL = ConditionerConfig(vision_dim=12, num_tokens=3, num_heads=2, head_dim=4, ffn_dim=8, num_event_channels=2)
VIDMUSE = ConditionerConfig(
    kind="vidmuse", vision_dim=12, num_tokens=3, num_heads=2, head_dim=4, ffn_dim=8, null_tokens=False
)


def total(branches: list[CFGBranch], value: dict[int, float]) -> float:
    return sum(share * value[0 if condition is None else condition.tokens.shape[1]] for share, condition in branches)


@pytest.mark.parametrize(
    "config", [MusicConfig(LM_), MusicConfig(LM_, None, 12, TEMPORAL, 20.0), MusicConfig(LM_, 6, None, VIDMUSE)]
)
def test_config_round_trips_through_dict(config: MusicConfig) -> None:
    assert MusicConfig.from_dict(config.to_dict()) == config
    assert MusicModel(MusicConfig.from_dict(config.to_dict())).config == config
    with pytest.raises(TypeError, match="wdth"):
        MusicConfig.from_dict({"lm": {"wdth": 3}})


def test_masked_text_tokens_are_projected_to_zero() -> None:
    model = MusicModel(MusicConfig(LM_, text_dim=6))
    mask = torch.tensor([[True, True, False]])
    read = model.project_text(Condition(torch.randn(1, 3, 6), mask))
    assert read.tokens[0, :2].any(-1).all()
    assert not read.tokens[0, 2].any()


@pytest.mark.parametrize("t", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("v", [None, 0.0, 1.0, 2.0])
def test_cfg_branches_weight_unconditional_video_and_joint_predictions(t: float, v: float | None) -> None:
    """As nothing + v (video − nothing) + t (both − video): told by 1, 2 and 3 tokens, each with a value of its own."""
    model = MusicModel(MusicConfig(LM_))
    text, video = Condition.from_tokens(torch.ones(1, 1, 16)), Condition.from_tokens(torch.ones(1, 2, 16))
    value = {0: 0.5, 1: 10.0, 2: 7.0, 3: -2.0}
    sampling = SamplingConfig(cfg_scale=t, video_cfg_scale=v)
    strength = t if v is None else v
    result = model.cfg_branches(sampling, text=text, video=video)
    assert sum(share for share, _ in result) == pytest.approx(1)
    assert all(share for share, _ in result)
    expected = value[0] + strength * (value[2] - value[0]) + t * (value[3] - value[2])
    assert total(result, value) == pytest.approx(expected)
    assert total(model.cfg_branches(sampling, text=text), value) == pytest.approx(0.5 + t * 9.5)
    assert total(model.cfg_branches(sampling, video=video), value) == pytest.approx(0.5 + strength * 6.5)
    assert model.cfg_branches(sampling) == [(1.0, None)]


def test_cfg_scale_1_uses_a_single_branch() -> None:
    text = Condition.from_tokens(torch.ones(1, 1, 16))
    assert len(MusicModel(MusicConfig(LM_)).cfg_branches(SamplingConfig(cfg_scale=1.0), text=text)) == 1


def test_negative_prompt_alone_gives_negative_and_unconditional_branches() -> None:
    negative = Condition.from_tokens(torch.ones(1, 2, 16))
    result = MusicModel(MusicConfig(LM_)).cfg_branches(SamplingConfig(cfg_scale=3.0), negative=negative)
    assert result == [(-2.0, negative), (3.0, None)]


@pytest.mark.parametrize("negative_length", [0, 2, 5])
def test_prefix_conditions_have_equal_length_in_all_cfg_branches(negative_length: int) -> None:
    """Its opposite is as long: the chroma of silence, what is not wanted, and zeros."""
    model = MusicModel(MusicConfig(PREFIXED, num_chroma=12))
    text, melody = Condition.from_tokens(torch.ones(1, 3, 16)), model.project_melody(torch.rand(1, 4, 12))
    silence = model.project_melody(torch.eye(12)[:1].expand(1, 4, 12)).tokens
    negative_text = Condition.from_tokens(torch.full((1, negative_length, 16), 2.0)) if negative_length else None
    (_, uncond), (_, cond) = model.cfg_branches(
        SamplingConfig(cfg_scale=3.0), text=text, melody=melody, negative=negative_text
    )
    assert uncond is not None
    assert cond is not None
    length = max(negative_length, 3)
    assert cond.tokens[0, 4:, 0].tolist() == [1] * 3 + [0] * (length - 3)
    assert uncond.tokens[0, 4:, 0].tolist() == [2] * negative_length + [0] * (length - negative_length)
    assert torch.equal(cond.tokens[:, :4], melody.tokens)
    assert torch.equal(uncond.tokens[:, :4], silence)
    assert cond.mask.all()
    assert uncond.mask.all()


def test_prefix_video_is_replaced_by_zeros_in_unconditional_branches() -> None:
    model = MusicModel(MusicConfig(PREFIXED))
    text, video = Condition.from_tokens(torch.ones(1, 3, 16)), Condition.from_tokens(torch.full((1, 2, 16), 5.0))
    result = model.cfg_branches(SamplingConfig(cfg_scale=3.0, video_cfg_scale=2.0), text=text, video=video)
    tokens = [None if item is None else item.tokens[0, :, 0].tolist() for _, item in result]
    assert tokens == [[0, 0, 0, 0, 0], [0, 0, 0, 5, 5], [1, 1, 1, 5, 5]]


def make_inputs(batch: int, frames: int = 4) -> VisualInputs:
    near, rhythm = torch.randn(batch, frames, 3, 12), torch.rand(batch, frames, 2)
    times = torch.arange(frames).expand(batch, -1) + 0.5
    mask = torch.ones(batch, frames, dtype=torch.bool)
    return VisualInputs(near, times, mask, near.flip(1), times, mask, rhythm, times, mask)


def valid_tokens(condition: Condition | None) -> list[torch.Tensor]:
    """Unmasked tokens (S, D) of each row."""
    assert condition is not None
    return [tokens[mask] for tokens, mask in zip(*condition[:2], strict=True)]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-6)


def test_dropped_text_and_video_rows_are_replaced_by_null_tokens() -> None:
    torch.manual_seed(0)
    model = MusicModel(MusicConfig(LM_, 6, None, TEMPORAL))
    text = Condition(torch.randn(4, 3, 6), torch.tensor([[True] * 3, [True, True, False], [True] * 3, [False] * 3]))
    inputs = make_inputs(4)
    no_text, no_video = torch.tensor([False, True, True, False]), torch.tensor([False, False, True, True])
    words, pictures = valid_tokens(model.project_text(text)), valid_tokens(model.encode_video(inputs))
    assert model.null_text is not None
    assert model.null_video is not None
    expected = [
        torch.cat([words[0], pictures[0]]),
        torch.cat([model.null_text[0], pictures[1]]),
        torch.cat([model.null_text[0], model.null_video[0]]),
        torch.cat([model.null_text[0], model.null_video[0]]),  # it had no words to begin with
    ]
    result = valid_tokens(model.build_condition(text, inputs, no_text, no_video))
    assert all(map(same, result, expected))
    assert all(map(same, valid_tokens(model.build_condition(None, None)), expected[3:]))
    model.lm(
        torch.zeros(4, 4, 5, dtype=torch.long), model.build_condition(text, inputs, no_text, no_video)
    ).sum().backward()
    assert model.null_text.grad is not None
    assert model.null_text.grad.abs().amax(-1).all()


def test_model_without_null_tokens_masks_dropped_rows_and_vidmuse_ignores_text() -> None:
    model = MusicModel(MusicConfig(LM_, 6, None, VIDMUSE))
    assert not {"null_text", "null_video"} & model.state_dict().keys()
    text, inputs = Condition.from_tokens(torch.randn(2, 3, 6)), make_inputs(2)
    first, second = valid_tokens(model.build_condition(text, inputs, None, torch.tensor([False, True])))
    assert same(first, valid_tokens(model.encode_video(inputs))[0])
    assert not len(second)
    assert model.build_condition(text, None) is None
    assert model.build_condition(None, inputs) is not None


def test_cfg_branches_use_the_learned_null_tokens() -> None:
    model = MusicModel(MusicConfig(LM_, 6, None, TEMPORAL))
    text, video = Condition.from_tokens(torch.randn(1, 3, 16)), model.encode_video(make_inputs(1))
    assert model.null_text is not None
    assert model.null_video is not None
    null_text, null_video = model.null_text[0], model.null_video[0]
    sampling = SamplingConfig(cfg_scale=3.0, video_cfg_scale=2.0)
    shares, conditions = zip(*model.cfg_branches(sampling, text=text, video=video), strict=True)
    assert shares == (-1.0, -1.0, 3.0)
    expected = [[null_text, null_video], [null_text, video.tokens[0]], [text.tokens[0], video.tokens[0]]]
    assert all(same(valid_tokens(item)[0], torch.cat(parts)) for item, parts in zip(conditions, expected, strict=True))
    (_, uncond), (_, cond) = model.cfg_branches(SamplingConfig(cfg_scale=3.0), text=text)
    assert same(valid_tokens(uncond)[0], torch.cat([null_text, null_video]))
    assert same(valid_tokens(cond)[0], torch.cat([text.tokens[0], null_video]))
    (_, uncond), _ = model.cfg_branches(SamplingConfig(cfg_scale=3.0), video=video, negative=text)
    assert same(valid_tokens(uncond)[0], torch.cat([text.tokens[0], null_video]))
    ((share, condition),) = model.cfg_branches(SamplingConfig())
    assert share == 1
    assert same(valid_tokens(condition)[0], torch.cat([null_text, null_video]))
    assert NUM_NULL_TOKENS == len(null_text) == len(null_video)


def test_null_tokens_require_cross_attention() -> None:
    with pytest.raises(ValueError, match="cross_attention alone"):
        MusicConfig(PREFIXED, conditioner=TEMPORAL)
