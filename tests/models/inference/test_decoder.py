"""Decoder against the uncached model, and independence of the clips in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference import slow_models
from v2m.core import compat
from v2m.core.types import SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import CFGBranch, Condition, StepBias
from v2m.models.inference import fast_linear, inference_lm, kernel_choice
from v2m.models.inference.decoder import Decoder, GenerationState
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.inference.kv_cache import MIN_PACKED_TOKENS, CrossKV, KVCache, PackedCrossKV, pack_masked_tokens
from v2m.models.lm import LM, LMConfig, sinusoidal_embedding

GREEDY = SamplingConfig(temperature=0.0)
D, V = 32, 40


def model(**changes: Any) -> LM:
    """Weights large enough for the conditions and the prompt to determine the codes."""
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
    return [CFGBranch(share, condition and condition.select(slice(clip, clip + 1))) for share, condition in all_of_them]


STEREO = {"num_codebooks": 8, "channels": 2}


@pytest.mark.parametrize("changes", [{}, STEREO, {"cross_attention": False}], ids=["mono", "stereo", "prefix"])
@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
def test_greedy_codes_match_the_uncached_model(changes: dict[str, Any], fixed: bool) -> None:
    """Also beyond the places where the memory grows; `fixed` is how a captured step sees it."""
    lm = model(**changes)
    expected = slow_models.greedy(lm, branches(), 200, clips=2)
    result = Decoder(lm, precision="fp32").generate(branches(), 200, sampling=GREEDY, seeds=[1, 2], capture=fixed)
    assert torch.equal(result, expected)
    assert len(expected.unique()) > 10


@pytest.mark.parametrize("cross", [True, False])
def test_prompt_is_kept_and_continued(cross: bool) -> None:
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
def test_clips_in_a_batch_are_independent(cross: bool) -> None:
    decoder = Decoder(model(cross_attention=cross), precision="fp32")
    drawn = SamplingConfig(top_k=20, top_p=0.95)
    both = decoder.generate(branches(), 120, sampling=drawn, seeds=[5, 6])
    for clip, seed in enumerate([5, 6]):
        alone = decoder.generate(one(branches(), clip), 120, sampling=drawn, seeds=[seed])
        assert torch.equal(alone[0], both[clip])
    assert not torch.equal(both[0], both[1])


def test_codes_are_determined_by_the_seed() -> None:
    decoder = Decoder(model(), precision="fp32")
    codes = decoder.generate([CFGBranch(1.0, None)], 60, sampling=SamplingConfig(), seeds=[3, 3, 4])
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])
    assert int(codes.max()) < V
    assert int(codes.min()) >= 0


def test_top_k_1_equals_greedy_and_branch_weights_are_additive() -> None:
    decoder = Decoder(model(), precision="fp32")
    condition = branches()[2][1]
    greedy = decoder.generate([CFGBranch(1.0, condition)], 60, sampling=GREEDY, seeds=[1, 2])
    only = decoder.generate([CFGBranch(1.0, condition)], 60, sampling=SamplingConfig(top_k=1), seeds=[1, 2])
    split = decoder.generate(
        [CFGBranch(0.25, condition), CFGBranch(0.75, condition)], 60, sampling=GREEDY, seeds=[1, 2]
    )
    assert torch.equal(greedy, only)
    assert torch.equal(greedy, split)


def test_codes_follow_the_model_probabilities() -> None:
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


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 0.05), ("int8", 0.05), ("int4", 0.5)])
def test_logits_match_the_model_within_rounding(precision: fast_linear.Precision, bound: float) -> None:
    result, expected = logits(model(), precision)
    assert result.dtype == torch.float32
    assert float((result - expected).abs().max() / expected.abs().max()) < bound


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 0.05), ("int8", 0.05), ("int4", 0.5)])
@pytest.mark.parametrize("name", ["onednn", "fbgemm", "torch"])
def test_logits_match_the_model_by_every_kernel_of_pytorch(
    monkeypatch: pytest.MonkeyPatch, precision: fast_linear.Precision, bound: float, name: str
) -> None:
    monkeypatch.setenv("V2M_CPU_KERNELS", "0")
    monkeypatch.setattr(fast_linear, "has_int8_weight_kernel", lambda device: False)
    kernels = {kernel.name: kernel for kernel in kernel_choice.available_kernels(precision, torch.device("cpu"))}
    assert "torch" in kernels
    assert not any(name.startswith("native") for name in kernels)
    monkeypatch.setattr(inference_lm, "choose_kernel", lambda *_: kernels.get(name, kernels["torch"]))
    result, expected = logits(model(), precision)
    assert float((result - expected).abs().max() / expected.abs().max()) < bound


def test_pack_masked_tokens_moves_valid_tokens_first_and_trims() -> None:
    mask = torch.tensor([[False, True, False, True], [True, False, False, False], [False] * 4])
    tokens = torch.arange(12.0).view(3, 4, 1)
    result, valid = pack_masked_tokens(Condition(tokens, mask), [0, 1])
    assert result[..., 0].tolist()[0] == [1.0, 3.0]
    assert result[1, 0, 0] == 4.0
    assert valid is not None
    assert valid[:, 0, 0].tolist() == [[True, True], [True, False]]
    assert pack_masked_tokens(Condition(tokens, mask), [0])[1] is None


@pytest.mark.skipif(not compat.onednn_supports(torch.bfloat16), reason="oneDNN lacks bfloat16 on this CPU")
@pytest.mark.parametrize("heads", [6, 8, 16])
@pytest.mark.parametrize("masked", [False, True])
def test_packed_cross_attention_matches_sdpa(heads: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 3, heads, MIN_PACKED_TOKENS, 8, generator=generator).bfloat16()
    mask = (
        torch.zeros(3, 1, 1, MIN_PACKED_TOKENS)
        .masked_fill_(torch.arange(MIN_PACKED_TOKENS) > 99, -torch.inf)
        .bfloat16()
        if masked
        else None
    )
    cross = CrossKV(0, 3, keys, values, mask)
    query = torch.randn(3, heads, 1, 8, generator=generator)
    packed = cross.pack()
    assert isinstance(packed, PackedCrossKV)
    assert isinstance(CrossKV(0, 3, keys[:, :, 1:], values[:, :, 1:], mask).pack(), CrossKV), "it does not pay"
    expected = functional.scaled_dot_product_attention(
        query, keys.float(), values.float(), attn_mask=None if mask is None else mask.float(), scale=1.0
    )
    assert (packed(query) - expected).abs().max() < 0.02 * expected.abs().max()
    assert packed(query).dtype == query.dtype


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_long_conditions_give_correct_logits_at_reduced_precision(precision: fast_linear.Precision) -> None:
    """Two clips, of which one hears a part of it."""
    lm = model()
    condition = Condition.from_tokens(torch.randn(2, MIN_PACKED_TOKENS + 9, D))
    condition.mask[1, 100:] = False
    prompt = torch.randint(V, (2, 4, 5))
    guided = [CFGBranch(-1.0, None), CFGBranch(2.0, condition)]
    with torch.inference_mode():
        state = GenerationState(
            InferenceLM(lm, precision), guided, 6, sampling=SamplingConfig(), seeds=[0, 1], prompt=prompt
        )
        state.prefill()
        result = state.next_logits()
    sequence = patterns.apply_delays(prompt, lm.config.delay_pattern, lm.config.special_token_id)[..., :6]
    expected = 2 * lm(sequence, condition)[:, :, -1] - lm(sequence)[:, :, -1]
    assert (result - expected).abs().max() / expected.abs().max() < 0.05


def test_progress_is_monotonic_and_ends_at_one() -> None:
    fractions: list[float] = []

    def tell(fraction: float) -> None:
        fractions.append(fraction)

    Decoder(model(), precision="fp32").generate([CFGBranch(1.0, None)], 160, sampling=GREEDY, seeds=[1], progress=tell)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) == 4


@pytest.mark.gpu
def test_cuda_graph_codes_match_eager_steps() -> None:
    decoder = Decoder(model().cuda(), precision="fp32")
    cuda_branches = [CFGBranch(share, condition and condition.to("cuda")) for share, condition in branches()]
    eager, captured = (
        decoder.generate(cuda_branches, 300, sampling=SamplingConfig(), seeds=[1, 2], capture=capture)
        for capture in (False, True)
    )
    assert torch.equal(eager, captured)
