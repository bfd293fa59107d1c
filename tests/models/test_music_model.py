"""What learns as a whole: its settings written down and read, and what guidance asks of it."""

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
SEEING = ConditionerConfig(vision_dim=12, num_tokens=3, num_heads=2, head_dim=4, ffn_dim=8, num_event_channels=2)
BAG = ConditionerConfig(
    kind="vidmuse", vision_dim=12, num_tokens=3, num_heads=2, head_dim=4, ffn_dim=8, null_tokens=False
)


def total(branches: list[CFGBranch], value: dict[int, float]) -> float:
    return sum(share * value[0 if heard is None else heard.tokens.shape[1]] for share, heard in branches)


@pytest.mark.parametrize(
    "config", [MusicConfig(LM_), MusicConfig(LM_, None, 12, SEEING, 20.0), MusicConfig(LM_, 6, None, BAG)]
)
def test_settings_come_back(config: MusicConfig) -> None:
    assert MusicConfig.from_dict(config.to_dict()) == config
    assert MusicModel(MusicConfig.from_dict(config.to_dict())).config == config
    with pytest.raises(TypeError, match="wdth"):
        MusicConfig.from_dict({"lm": {"wdth": 3}})


def test_what_is_not_there_of_a_text_is_0() -> None:
    model = MusicModel(MusicConfig(LM_, text_dim=6))
    mask = torch.tensor([[True, True, False]])
    read = model.project_text(Condition(torch.randn(1, 3, 6), mask))
    assert read.tokens[0, :2].any(-1).all()
    assert not read.tokens[0, 2].any()


@pytest.mark.parametrize("t", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("v", [None, 0.0, 1.0, 2.0])
def test_guidance_weighs_nothing_the_video_and_both(t: float, v: float | None) -> None:
    """As nothing + v (video − nothing) + t (both − video): told by 1, 2 and 3 tokens, each with a value of its own."""
    model = MusicModel(MusicConfig(LM_))
    text, video = Condition.from_tokens(torch.ones(1, 1, 16)), Condition.from_tokens(torch.ones(1, 2, 16))
    value = {0: 0.5, 1: 10.0, 2: 7.0, 3: -2.0}
    sampling = SamplingConfig(cfg_scale=t, video_cfg_scale=v)
    strength = t if v is None else v
    found = model.cfg_branches(sampling, text=text, video=video)
    assert sum(share for share, _ in found) == pytest.approx(1)
    assert all(share for share, _ in found)
    expected = value[0] + strength * (value[2] - value[0]) + t * (value[3] - value[2])
    assert total(found, value) == pytest.approx(expected)
    assert total(model.cfg_branches(sampling, text=text), value) == pytest.approx(0.5 + t * 9.5)
    assert total(model.cfg_branches(sampling, video=video), value) == pytest.approx(0.5 + strength * 6.5)
    assert model.cfg_branches(sampling) == [(1.0, None)]


def test_without_guidance_there_is_one_branch() -> None:
    text = Condition.from_tokens(torch.ones(1, 1, 16))
    assert len(MusicModel(MusicConfig(LM_)).cfg_branches(SamplingConfig(cfg_scale=1.0), text=text)) == 1


def test_what_is_unwanted_alone_is_led_away_from() -> None:
    unwanted = Condition.from_tokens(torch.ones(1, 2, 16))
    found = MusicModel(MusicConfig(LM_)).cfg_branches(SamplingConfig(cfg_scale=3.0), negative=unwanted)
    assert found == [(-2.0, unwanted), (3.0, None)]


@pytest.mark.parametrize("unwanted", [0, 2, 5])
def test_what_stands_before_the_codes_keeps_its_places(unwanted: int) -> None:
    """Its opposite is as long: the chroma of silence, what is not wanted, and zeros."""
    model = MusicModel(MusicConfig(PREFIXED, num_chroma=12))
    text, melody = Condition.from_tokens(torch.ones(1, 3, 16)), model.project_melody(torch.rand(1, 4, 12))
    silence = model.project_melody(torch.eye(12)[:1].expand(1, 4, 12)).tokens
    without = Condition.from_tokens(torch.full((1, unwanted, 16), 2.0)) if unwanted else None
    (_, nothing), (_, both) = model.cfg_branches(
        SamplingConfig(cfg_scale=3.0), text=text, melody=melody, negative=without
    )
    assert nothing is not None
    assert both is not None
    words = max(unwanted, 3)
    assert both.tokens[0, 4:, 0].tolist() == [1] * 3 + [0] * (words - 3)
    assert nothing.tokens[0, 4:, 0].tolist() == [2] * unwanted + [0] * (words - unwanted)
    assert torch.equal(both.tokens[:, :4], melody.tokens)
    assert torch.equal(nothing.tokens[:, :4], silence)
    assert both.mask.all()
    assert nothing.mask.all()


def test_a_video_before_the_codes_has_zeros_for_its_opposite() -> None:
    model = MusicModel(MusicConfig(PREFIXED))
    text, video = Condition.from_tokens(torch.ones(1, 3, 16)), Condition.from_tokens(torch.full((1, 2, 16), 5.0))
    found = model.cfg_branches(SamplingConfig(cfg_scale=3.0, video_cfg_scale=2.0), text=text, video=video)
    heard = [None if each is None else each.tokens[0, :, 0].tolist() for _, each in found]
    assert heard == [[0, 0, 0, 0, 0], [0, 0, 0, 5, 5], [1, 1, 1, 5, 5]]


def seen(batch: int, frames: int = 4) -> VisualInputs:
    near, rhythm = torch.randn(batch, frames, 3, 12), torch.rand(batch, frames, 2)
    times = torch.arange(frames).expand(batch, -1) + 0.5
    mask = torch.ones(batch, frames, dtype=torch.bool)
    return VisualInputs(near, times, mask, near.flip(1), times, mask, rhythm, times, mask)


def heard(condition: Condition | None) -> list[torch.Tensor]:
    """What of each row is there, (S, D)."""
    assert condition is not None
    return [tokens[mask] for tokens, mask in zip(*condition[:2], strict=True)]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-6)


def test_text_and_video_are_dropped_by_row_for_what_was_learned_in_their_place() -> None:
    torch.manual_seed(0)
    model = MusicModel(MusicConfig(LM_, 6, None, SEEING))
    text = Condition(torch.randn(4, 3, 6), torch.tensor([[True] * 3, [True, True, False], [True] * 3, [False] * 3]))
    shown = seen(4)
    no_text, no_video = torch.tensor([False, True, True, False]), torch.tensor([False, False, True, True])
    words, pictures = heard(model.project_text(text)), heard(model.encode_video(shown))
    assert model.null_text is not None
    assert model.null_video is not None
    wanted = [
        torch.cat([words[0], pictures[0]]),
        torch.cat([model.null_text[0], pictures[1]]),
        torch.cat([model.null_text[0], model.null_video[0]]),
        torch.cat([model.null_text[0], model.null_video[0]]),  # it had no words to begin with
    ]
    found = heard(model.build_condition(text, shown, no_text, no_video))
    assert all(map(same, found, wanted))
    assert all(map(same, heard(model.build_condition(None, None)), wanted[3:]))
    model.lm(
        torch.zeros(4, 4, 5, dtype=torch.long), model.build_condition(text, shown, no_text, no_video)
    ).sum().backward()
    assert model.null_text.grad is not None
    assert model.null_text.grad.abs().amax(-1).all()


def test_without_nulls_what_is_dropped_is_not_there_and_vidmuse_reads_no_text() -> None:
    model = MusicModel(MusicConfig(LM_, 6, None, BAG))
    assert not {"null_text", "null_video"} & model.state_dict().keys()
    text, shown = Condition.from_tokens(torch.randn(2, 3, 6)), seen(2)
    first, second = heard(model.build_condition(text, shown, None, torch.tensor([False, True])))
    assert same(first, heard(model.encode_video(shown))[0])
    assert not len(second)
    assert model.build_condition(text, None) is None
    assert model.build_condition(None, shown) is not None


def test_guidance_leads_away_from_the_learned_nulls() -> None:
    model = MusicModel(MusicConfig(LM_, 6, None, SEEING))
    text, video = Condition.from_tokens(torch.randn(1, 3, 16)), model.encode_video(seen(1))
    assert model.null_text is not None
    assert model.null_video is not None
    none, blind = model.null_text[0], model.null_video[0]
    sampling = SamplingConfig(cfg_scale=3.0, video_cfg_scale=2.0)
    shares, conditions = zip(*model.cfg_branches(sampling, text=text, video=video), strict=True)
    assert shares == (-1.0, -1.0, 3.0)
    wanted = [[none, blind], [none, video.tokens[0]], [text.tokens[0], video.tokens[0]]]
    assert all(same(heard(each)[0], torch.cat(parts)) for each, parts in zip(conditions, wanted, strict=True))
    (_, nothing), (_, both) = model.cfg_branches(SamplingConfig(cfg_scale=3.0), text=text)
    assert same(heard(nothing)[0], torch.cat([none, blind]))
    assert same(heard(both)[0], torch.cat([text.tokens[0], blind]))
    (_, nothing), _ = model.cfg_branches(SamplingConfig(cfg_scale=3.0), video=video, negative=text)
    assert same(heard(nothing)[0], torch.cat([text.tokens[0], blind]))
    ((share, alone),) = model.cfg_branches(SamplingConfig())
    assert share == 1
    assert same(heard(alone)[0], torch.cat([none, blind]))
    assert NUM_NULL_TOKENS == len(none) == len(blind)


def test_nulls_cannot_stand_before_the_codes() -> None:
    with pytest.raises(ValueError, match="cross_attention alone"):
        MusicConfig(PREFIXED, conditioner=SEEING)
