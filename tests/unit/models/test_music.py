"""What learns as a whole: its settings written down and read, and what guidance asks of it."""

from __future__ import annotations

import pytest
import torch

from v2m.models.condition import Condition
from v2m.models.conditioner import ConditionerConfig
from v2m.models.lm import LMConfig
from v2m.models.music import Branch, MusicConfig, MusicModel
from v2m.types import Sampling

LM_ = LMConfig(width=16, layers=1, heads=2, entries=8, delays=(0, 1, 1, 2))
PREFIXED = LMConfig(width=16, layers=1, heads=2, entries=8, cross_attention=False)
SEEING = ConditionerConfig(width=12, tokens=3, heads=2, head_width=4, feedforward=8)


def total(branches: list[Branch], value: dict[int, float]) -> float:
    return sum(share * value[0 if heard is None else heard.tokens.shape[1]] for share, heard in branches)


@pytest.mark.parametrize("config", [MusicConfig(LM_), MusicConfig(LM_, None, 12, SEEING, 20.0)])
def test_settings_come_back(config: MusicConfig) -> None:
    assert MusicConfig.of(config.plain) == config
    assert MusicModel(MusicConfig.of(config.plain)).config == config
    with pytest.raises(TypeError, match="wdth"):
        MusicConfig.of({"lm": {"wdth": 3}})


def test_what_is_not_there_of_a_text_is_0() -> None:
    model = MusicModel(MusicConfig(LM_, text=6))
    mask = torch.tensor([[True, True, False]])
    read = model.read(Condition(torch.randn(1, 3, 6), mask))
    assert read.tokens[0, :2].any(-1).all()
    assert not read.tokens[0, 2].any()


@pytest.mark.parametrize("t", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("v", [None, 0.0, 1.0, 2.0])
def test_guidance_weighs_nothing_the_video_and_both(t: float, v: float | None) -> None:
    """As nothing + v (video − nothing) + t (both − video): told by 1, 2 and 3 tokens, each with a value of its own."""
    model = MusicModel(MusicConfig(LM_))
    text, video = Condition.whole(torch.ones(1, 1, 16)), Condition.whole(torch.ones(1, 2, 16))
    value = {0: 0.5, 1: 10.0, 2: 7.0, 3: -2.0}
    sampling = Sampling(guidance=t, video_guidance=v)
    strength = t if v is None else v
    found = model.branches(sampling, text=text, video=video)
    assert sum(share for share, _ in found) == pytest.approx(1)
    assert all(share for share, _ in found)
    expected = value[0] + strength * (value[2] - value[0]) + t * (value[3] - value[2])
    assert total(found, value) == pytest.approx(expected)
    assert total(model.branches(sampling, text=text), value) == pytest.approx(0.5 + t * 9.5)
    assert total(model.branches(sampling, video=video), value) == pytest.approx(0.5 + strength * 6.5)
    assert model.branches(sampling) == [(1.0, None)]


def test_without_guidance_there_is_one_branch() -> None:
    text = Condition.whole(torch.ones(1, 1, 16))
    assert len(MusicModel(MusicConfig(LM_)).branches(Sampling(guidance=1.0), text=text)) == 1


def test_what_is_unwanted_alone_is_led_away_from() -> None:
    unwanted = Condition.whole(torch.ones(1, 2, 16))
    found = MusicModel(MusicConfig(LM_)).branches(Sampling(guidance=3.0), without=unwanted)
    assert found == [(-2.0, unwanted), (3.0, None)]


@pytest.mark.parametrize("unwanted", [0, 2, 5])
def test_what_stands_before_the_codes_keeps_its_places(unwanted: int) -> None:
    """Its opposite is as long: the chroma of silence, what is not wanted, and zeros."""
    model = MusicModel(MusicConfig(PREFIXED, chroma=12))
    text, melody = Condition.whole(torch.ones(1, 3, 16)), model.hear(torch.rand(1, 4, 12))
    silence = model.hear(torch.eye(12)[:1].expand(1, 4, 12)).tokens
    without = Condition.whole(torch.full((1, unwanted, 16), 2.0)) if unwanted else None
    (_, nothing), (_, both) = model.branches(Sampling(guidance=3.0), text=text, melody=melody, without=without)
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
    text, video = Condition.whole(torch.ones(1, 3, 16)), Condition.whole(torch.full((1, 2, 16), 5.0))
    found = model.branches(Sampling(guidance=3.0, video_guidance=2.0), text=text, video=video)
    heard = [None if each is None else each.tokens[0, :, 0].tolist() for _, each in found]
    assert heard == [[0, 0, 0, 0, 0], [0, 0, 0, 5, 5], [1, 1, 1, 5, 5]]
