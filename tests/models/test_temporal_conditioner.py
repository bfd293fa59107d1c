"""TemporalConditioner: timing, masking and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from v2m.models.lm import sinusoidal_embedding
from v2m.models.visual_conditioner import EVENT_KERNEL, ConditionerConfig, TemporalConditioner, VisualInputs

SIZES = ConditionerConfig(
    vision_dim=12,
    num_tokens=5,
    num_layers=1,
    num_heads=2,
    head_dim=4,
    ffn_dim=24,
    num_pooled_tokens=2,
    num_event_channels=3,
    num_event_layers=2,
    codec_frame_rate=10,
)
POOLED, STRIDE = SIZES.num_pooled_tokens, SIZES.event_stride


@pytest.fixture
def model() -> TemporalConditioner:
    torch.manual_seed(0)
    return TemporalConditioner(SIZES, 16).eval()


def make_inputs(near: int = 4, whole: int = 3, rhythm: int = 12, *, seed: int = 0) -> VisualInputs:
    """Two clips of 2 s: their near frames, those of the whole video of 6 s from 1.5 s before, and the rhythm."""
    random = torch.Generator().manual_seed(seed)

    def steps(count: int, seconds: float, begin: float = 0.0) -> tuple[Tensor, Tensor]:
        times = begin + (torch.arange(count) + 0.5) * seconds / count
        return times.expand(2, -1), torch.ones(2, count, dtype=torch.bool)

    return VisualInputs(
        torch.randn(2, near, 5, 12, generator=random),
        *steps(near, 2.0),
        torch.randn(2, whole, 5, 12, generator=random),
        *steps(whole, 6.0, -1.5),
        torch.rand(2, rhythm, 3, generator=random),
        *steps(rhythm, 2.0),
    )


def test_token_positions_use_the_frame_rate_of_the_language_model(model: TemporalConditioner) -> None:
    """The same shown a second later differs by the waves of ten steps, where nothing is made of frames."""
    plain = make_inputs()
    torch.nn.init.zeros_(model.out.weight)
    later = {name: getattr(plain, name) + 1.0 for name in ("short_term_times", "event_times")}
    moved = model(plain._replace(**later)).tokens - model(plain).tokens
    halves = plain.event_times.unflatten(1, (-1, STRIDE)).mean(-1)
    places = 10 * torch.cat([plain.short_term_times.repeat_interleave(POOLED, 1), halves], dim=1)[0]
    assert torch.allclose(moved[0], sinusoidal_embedding(places + 10, 16) - sinusoidal_embedding(places, 16), atol=1e-4)


def test_frames_attend_globally_and_events_locally(model: TemporalConditioner) -> None:
    before = make_inputs(rhythm=40)
    frames, beats = model(before).tokens.split((4 * POOLED, 20), dim=1)
    near, rhythm = before.short_term.clone(), before.events.clone()
    near[:, 1] += 1.0 + torch.randn(2, 5, 12)
    rhythm[:, 20] += 1.0
    other_frames, other_beats = model(before._replace(short_term=near, events=rhythm)).tokens.split(
        (4 * POOLED, 20), dim=1
    )
    assert ((other_frames - frames).abs().amax(-1) > 1e-4).all()
    changed = (other_beats - beats).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]  # instants 16 to 24: two kernels of 5
    whole = model(before._replace(long_term=torch.randn_like(before.long_term))).tokens
    assert ((whole[:, : 4 * POOLED] - frames).abs().amax(-1) > 1e-4).all()
    assert torch.equal(whole[:, 4 * POOLED :], beats)


@pytest.mark.parametrize("garbage", [7.0, float("nan")])
def test_masked_inputs_have_no_effect(model: TemporalConditioner, garbage: float) -> None:
    """A clip that ends early, with anything behind its end, is as if there were nothing behind it."""
    inputs = make_inputs(near=4, whole=3, rhythm=12)
    lengths = {"short_term": 3, "long_term": 2, "event": 9}
    short = {name: getattr(inputs, name).clone() for name in inputs._fields}
    for name, count in lengths.items():
        short[f"{name}_mask"][:, count:] = False
        short["events" if name == "event" else name][:, count:] = garbage
    result = model(VisualInputs(**short))
    cut = {
        field: value[:, : next(count for name, count in lengths.items() if field.startswith(name))]
        for field, value in inputs._asdict().items()
    }
    expected = model(VisualInputs(**cut))
    assert result.mask.tolist() == [[True] * 6 + [False] * 2 + [True] * 5 + [False]] * 2
    assert torch.allclose(result.tokens[result.mask], expected.tokens[expected.mask], atol=1e-5)
    assert not result.tokens[~result.mask].any()


def test_fully_masked_inputs_give_finite_zero_tokens(model: TemporalConditioner) -> None:
    inputs = make_inputs()
    masks = {
        f"{item}_mask": torch.zeros_like(getattr(inputs, f"{item}_mask"))
        for item in ("short_term", "long_term", "event")
    }
    result = model(inputs._replace(**masks))
    assert not result.mask.any()
    assert not result.tokens.any()


def test_masked_long_term_frames_have_no_effect(model: TemporalConditioner) -> None:
    inputs = make_inputs()._replace(long_term_mask=torch.zeros(2, 3, dtype=torch.bool))
    other = inputs._replace(long_term=inputs.long_term + 5.0, long_term_times=inputs.long_term_times + 9.0)
    assert torch.equal(model(inputs).tokens, model(other).tokens)


@pytest.mark.parametrize("pooled", [2, 5])
def test_all_parameters_receive_gradients(pooled: int) -> None:
    model = TemporalConditioner(replace(SIZES, num_pooled_tokens=pooled), 16)
    result = model(make_inputs())
    assert result.tokens.shape == (2, 4 * pooled + 12 // STRIDE, 16)
    assert result.step_bias is not None
    bias = result.step_bias.interpolate(20)
    assert not bias.any()  # before anything is learned
    ((result.tokens * torch.randn_like(result.tokens)).sum() + (bias * torch.randn_like(bias)).sum()).backward()
    assert not [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]


def test_event_step_bias_is_local_to_the_time_of_the_event(model: TemporalConditioner) -> None:
    """What a cue says of an instant reaches as far as the convolutions and the line to the next instant."""
    torch.nn.init.normal_(model.rhythm.cue.weight)
    inputs = make_inputs()
    changed = inputs._replace(events=inputs.events.clone())
    changed.events[0, 3] += 5
    before, after = (model(item).step_bias for item in (inputs, changed))
    assert before is not None
    assert after is not None
    steps = int(inputs.event_times.max() * SIZES.codec_frame_rate)
    moved = (after.interpolate(steps) - before.interpolate(steps)).abs().amax(-1)
    place = inputs.event_times[0] * SIZES.codec_frame_rate
    reach = SIZES.num_event_layers * (EVENT_KERNEL // 2) + 1
    assert moved[0].argmax().item() == pytest.approx(place[3].item(), abs=(place[1] - place[0]).item() * reach)
    assert not moved[0, int(place[3 + reach]) + 1 :].any()
    assert not moved[1].any()


def test_tokens_depend_on_the_position_of_the_window_in_the_video(model: TemporalConditioner) -> None:
    """The same window of a longer video, of which the frames look alike."""
    inputs = make_inputs()
    longer = inputs._replace(long_term_times=inputs.long_term_times * 2, long_term=inputs.long_term.clone())
    assert ((model(longer).tokens - model(inputs).tokens).abs().amax(-1)[:, : 4 * POOLED] > 1e-4).all()


def test_with_rotary_time_attention_depends_on_differences_of_times_alone() -> None:
    """Later by 1.5 s, frames differ by their added step embeddings only; unlike with sinusoidal time."""
    inputs = make_inputs()
    later = {name: getattr(inputs, name) + 1.5 for name in ("short_term_times", "long_term_times")}
    swapped = inputs._replace(short_term_times=inputs.short_term_times.flip(1))

    def frame_tokens(model: TemporalConditioner, inputs: VisualInputs) -> Tensor:
        """Of the frames, without the step embedding."""
        places = SIZES.codec_frame_rate * inputs.short_term_times.repeat_interleave(POOLED, 1)[0]
        return model(inputs).tokens[:, : len(places)] - sinusoidal_embedding(places, 16)

    for encoding, is_relative in (("rotary", True), ("sinusoidal", False)):
        torch.manual_seed(0)
        model = TemporalConditioner(replace(SIZES, time_encoding=encoding), 16).eval()
        plain = frame_tokens(model, inputs)
        assert torch.allclose(frame_tokens(model, inputs._replace(**later)), plain, atol=1e-4) is is_relative
        assert not torch.allclose(frame_tokens(model, swapped), plain, atol=1e-2)
