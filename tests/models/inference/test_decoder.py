"""The fast decoder against the whole model run anew at each step, and what must not change what a clip becomes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference import slow_models
from v2m.core.types import SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import CFGBranch, Condition, StepBias
from v2m.models.inference import fast_linear
from v2m.models.inference.decoder import Decoder, GenerationState
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.inference.kv_cache import MIN_PACKED_TOKENS, CrossKV, KVCache, PackedCrossKV, pack_masked_tokens
from v2m.models.lm import LM, LMConfig, sinusoidal_embedding

GREEDY = SamplingConfig(temperature=0.0)
D, V = 32, 40


def model(**changes: Any) -> LM:
    """Weights large enough for what is heard and what was written to decide the codes."""
    torch.manual_seed(0)
    lm = LM(LMConfig(dim=D, num_layers=2, num_heads=4, codebook_size=V, **changes)).eval().requires_grad_(False)
    for weight in lm.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3)
    return lm


def branches(clips: int = 2) -> list[CFGBranch]:
    """Three of them: nothing, a short one, of which the second clip has none, and a longer one with gaps and cues."""
    torch.manual_seed(1)
    short = Condition.from_tokens(torch.randn(clips, 3, D))
    short.mask[1:2] = False
    long = Condition(torch.randn(clips, 7, D), torch.rand(clips, 7) > 0.4)
    cues = StepBias(torch.randn(clips, 9, D), 2.5 + 20 * torch.arange(9).expand(clips, -1), torch.ones(clips, 9) > 0)
    cues.mask[1:2, 3:] = False
    return [CFGBranch(-2.0, None), CFGBranch(0.5, short), CFGBranch(2.5, long._replace(step_bias=cues))]


def one(all_of_them: list[CFGBranch], clip: int) -> list[CFGBranch]:
    return [CFGBranch(share, heard and heard.select(slice(clip, clip + 1))) for share, heard in all_of_them]


STEREO = {"num_codebooks": 8, "channels": 2}


@pytest.mark.parametrize("changes", [{}, STEREO, {"cross_attention": False}], ids=["mono", "stereo", "prefix"])
@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
def test_greedy_codes_are_those_of_the_whole_model_run_anew(changes: dict[str, Any], fixed: bool) -> None:
    """Also beyond the places where the memory grows; `fixed` is how a captured step sees it."""
    lm = model(**changes)
    expected = slow_models.greedy(lm, branches(), 200, clips=2)
    found = Decoder(lm, precision="fp32").generate(branches(), 200, sampling=GREEDY, seeds=[1, 2], capture=fixed)
    assert torch.equal(found, expected)
    assert len(expected.unique()) > 10


@pytest.mark.parametrize("cross", [True, False])
def test_a_prompt_is_kept_and_gone_on_from(cross: bool) -> None:
    lm = model(cross_attention=cross)
    decoder = Decoder(lm, precision="fp32")
    whole = decoder.generate(branches(), 300, sampling=GREEDY, seeds=[1, 2])
    again = decoder.generate(branches(), 300, sampling=GREEDY, seeds=[1, 2], prompt=whole[..., :270])
    assert torch.equal(again, whole)
    given = torch.randint(V, (2, 4, 9))
    other = decoder.generate(branches(), 20, sampling=GREEDY, seeds=[1, 2], prompt=given)
    assert torch.equal(other[..., :9], given)
    assert not torch.equal(other[..., 9:], whole[..., 9:20])
    assert torch.equal(decoder.generate(branches(), 9, sampling=GREEDY, seeds=[1, 2], prompt=given), given)


@pytest.mark.parametrize("cross", [True, False])
def test_a_clip_does_not_depend_on_those_beside_it(cross: bool) -> None:
    decoder = Decoder(model(cross_attention=cross), precision="fp32")
    drawn = SamplingConfig(top_k=20, top_p=0.95)
    both = decoder.generate(branches(), 120, sampling=drawn, seeds=[5, 6])
    for clip, seed in enumerate([5, 6]):
        alone = decoder.generate(one(branches(), clip), 120, sampling=drawn, seeds=[seed])
        assert torch.equal(alone[0], both[clip])
    assert not torch.equal(both[0], both[1])


def test_seeds_decide() -> None:
    decoder = Decoder(model(), precision="fp32")
    codes = decoder.generate([CFGBranch(1.0, None)], 60, sampling=SamplingConfig(), seeds=[3, 3, 4])
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])
    assert int(codes.max()) < V
    assert int(codes.min()) >= 0


def test_one_choice_is_the_likeliest_and_shares_add_up() -> None:
    decoder = Decoder(model(), precision="fp32")
    heard = branches()[2][1]
    likeliest = decoder.generate([CFGBranch(1.0, heard)], 60, sampling=GREEDY, seeds=[1, 2])
    only = decoder.generate([CFGBranch(1.0, heard)], 60, sampling=SamplingConfig(top_k=1), seeds=[1, 2])
    split = decoder.generate([CFGBranch(0.25, heard), CFGBranch(0.75, heard)], 60, sampling=GREEDY, seeds=[1, 2])
    assert torch.equal(likeliest, only)
    assert torch.equal(likeliest, split)


def test_codes_are_drawn_by_their_probabilities() -> None:
    """The first code of 4000 clips against the model's own softmax: χ² with 39 degrees of freedom, 99.9 % point."""
    lm, clips = model(), 4000
    codes = Decoder(lm, precision="fp32").generate(
        [CFGBranch(1.0, None)], 1, sampling=SamplingConfig(top_k=0), seeds=range(clips)
    )
    expected = clips * lm(torch.full((1, 4, 1), V))[0, 0, 0].softmax(-1)
    counts = torch.bincount(codes[:, 0, 0], minlength=V)
    common = expected > 5
    assert float(((counts - expected)[common] ** 2 / expected[common]).sum()) < 72.1


def logits(lm: LM, precision: fast_linear.Precision) -> tuple[Tensor, Tensor]:
    """Of the step after a sequence, by the decoder's layers and by the model's own."""
    stack = InferenceLM(lm, precision)
    codes = torch.randint(V, (2, 4, 20), generator=torch.Generator().manual_seed(0))
    past = KVCache(2, (2, 4, 24, D // 4), stack.cache_dtype, torch.device("cpu"))
    x = stack.embed(codes) + sinusoidal_embedding(torch.arange(20), D).to(stack.dtype)
    out = x
    for part in x.split([13, 1, 1, 5], dim=1):
        out = stack(part, past, stack.project_condition([]))
    return stack.logits(out[:, -1]), lm(codes)[:, :, -1].flatten(1)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 0.05), ("int8", 0.05)])
def test_logits_are_the_models_within_rounding(precision: fast_linear.Precision, bound: float) -> None:
    found, expected = logits(model(), precision)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max() / expected.abs().max()) < bound


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_without_the_libraries_kernels_the_logits_are_the_same(
    monkeypatch: pytest.MonkeyPatch, precision: fast_linear.Precision
) -> None:
    monkeypatch.setattr(fast_linear, "onednn_ops", lambda: None)
    monkeypatch.setattr(fast_linear, "has_int8_dynamic_kernel", lambda device: False)
    monkeypatch.setattr(fast_linear, "has_int8_weight_kernel", lambda device: False)
    found, expected = logits(model(), precision)
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.05


def test_tokens_that_are_there_come_first_and_no_more_room_is_kept() -> None:
    mask = torch.tensor([[False, True, False, True], [True, False, False, False], [False] * 4])
    tokens = torch.arange(12.0).view(3, 4, 1)
    found, there = pack_masked_tokens(Condition(tokens, mask), [0, 1])
    assert found[..., 0].tolist()[0] == [1.0, 3.0]
    assert found[1, 0, 0] == 4.0
    assert there is not None
    assert there[:, 0, 0].tolist() == [[True, True], [True, False]]
    assert pack_masked_tokens(Condition(tokens, mask), [0])[1] is None


@pytest.mark.skipif(fast_linear.onednn_ops() is None, reason="PyTorch is built without oneDNN")
@pytest.mark.parametrize("heads", [6, 8, 16])
@pytest.mark.parametrize("masked", [False, True])
def test_settled_attention_finds_what_attention_finds(heads: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 3, heads, MIN_PACKED_TOKENS, 8, generator=generator).bfloat16()
    mask = (
        torch.zeros(3, 1, 1, MIN_PACKED_TOKENS)
        .masked_fill_(torch.arange(MIN_PACKED_TOKENS) > 99, -torch.inf)
        .bfloat16()
        if masked
        else None
    )
    across = CrossKV(0, 3, keys, values, mask)
    query = torch.randn(3, heads, 1, 8, generator=generator)
    settled = across.pack()
    assert isinstance(settled, PackedCrossKV)
    assert isinstance(CrossKV(0, 3, keys[:, :, 1:], values[:, :, 1:], mask).pack(), CrossKV), "it does not pay"
    expected = functional.scaled_dot_product_attention(
        query, keys.float(), values.float(), attn_mask=None if mask is None else mask.float(), scale=1.0
    )
    assert (settled(query) - expected).abs().max() < 0.02 * expected.abs().max()
    assert settled(query).dtype == query.dtype


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_much_that_is_heard_is_heard_right(precision: fast_linear.Precision) -> None:
    """Two clips, of which one hears a part of it."""
    lm = model()
    heard = Condition.from_tokens(torch.randn(2, MIN_PACKED_TOKENS + 9, D))
    heard.mask[1, 100:] = False
    prompt = torch.randint(V, (2, 4, 5))
    guided = [CFGBranch(-1.0, None), CFGBranch(2.0, heard)]
    with torch.inference_mode():
        state = GenerationState(
            InferenceLM(lm, precision), guided, 6, sampling=SamplingConfig(), seeds=[0, 1], prompt=prompt
        )
        state.prefill()
        found = state.next_logits()
    sequence = patterns.apply_delays(prompt, lm.config.delay_pattern, lm.config.special_token_id)[..., :6]
    expected = 2 * lm(sequence, heard)[:, :, -1] - lm(sequence)[:, :, -1]
    assert (found - expected).abs().max() / expected.abs().max() < 0.05


def test_progress_is_told_and_ends_at_1() -> None:
    told: list[float] = []

    def tell(fraction: float) -> None:
        told.append(fraction)

    Decoder(model(), precision="fp32").generate([CFGBranch(1.0, None)], 160, sampling=GREEDY, seeds=[1], progress=tell)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 4


@pytest.mark.gpu
def test_captured_steps_write_what_the_same_steps_do() -> None:
    decoder = Decoder(model().cuda(), precision="fp32")
    there = [CFGBranch(share, heard and heard.to("cuda")) for share, heard in branches()]
    one_by_one, captured = (
        decoder.generate(there, 300, sampling=SamplingConfig(), seeds=[1, 2], capture=capture)
        for capture in (False, True)
    )
    assert torch.equal(one_by_one, captured)
