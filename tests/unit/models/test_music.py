"""What learns as a whole: its settings written down and read, and what guidance asks of it."""

from __future__ import annotations

import pytest
import torch

from v2m.models.condition import Condition, join
from v2m.models.conditioner import ConditionerConfig
from v2m.models.lm import LMConfig
from v2m.models.music import Branch, MusicConfig, MusicModel
from v2m.types import Sampling

LM_ = LMConfig(width=16, layers=1, heads=2, entries=8, delays=(0, 1, 1, 2))
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


def test_what_stands_before_the_codes_keeps_its_places() -> None:
    """Its opposite is as long: zeros, or zeros and what is not wanted."""
    lm = LMConfig(width=16, layers=1, heads=2, entries=8, cross_attention=False)
    model = MusicModel(MusicConfig(lm, chroma=12))
    text, melody = Condition.whole(torch.ones(1, 3, 16)), model.hear(torch.ones(1, 5, 12))
    (_, nothing), (_, both) = model.branches(Sampling(guidance=3.0), text=text, melody=melody)
    assert both is not None
    assert nothing is not None
    assert torch.equal(both.tokens, join(melody, text).tokens)  # pyright: ignore[reportOptionalMemberAccess]
    assert torch.equal(nothing.tokens, torch.zeros(1, 8, 16))
    unwanted = Condition.whole(torch.full((1, 2, 16), 2.0))
    (_, nothing), _ = model.branches(Sampling(guidance=3.0), text=text, melody=melody, without=unwanted)
    assert nothing is not None
    assert nothing.tokens[0, :, 0].tolist() == [0] * 6 + [2, 2]
