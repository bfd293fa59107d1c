"""Long generation in overlapping windows: coverage, prompts, conditions and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from v2m.core.types import ProgressFn, SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import windows
from v2m.models.inference.decoder import Decoder
from v2m.models.lm import LM, LMConfig

CONFIG = LMConfig(dim=16, num_layers=2, num_heads=2, num_codebooks=2, codebook_size=32)
WINDOW, STRIDE = 20, 12


class Plain(Decoder):
    """A reference decoder that runs the whole model at each step and records its prompts and seeds."""

    def __init__(self, lm: LM | None = None) -> None:
        torch.manual_seed(0)
        self.lm = lm or LM(CONFIG).eval().requires_grad_(False)
        self.prompts: list[Tensor | None] = []
        self.given: list[list[int]] = []

    def generate(
        self,
        branches: Sequence[CFGBranch],
        num_frames: int,
        *,
        sampling: SamplingConfig,
        seeds: Sequence[int],
        prompt: Tensor | None = None,
        progress: ProgressFn | None = None,
        capture: bool | None = None,
    ) -> Tensor:
        self.prompts.append(prompt)
        self.given.append(list(seeds))
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        codes = torch.full((len(seeds), CONFIG.num_codebooks, num_frames), CONFIG.special_token_id)
        start = 0 if prompt is None else prompt.shape[2]
        if prompt is not None:
            codes[..., :start] = prompt
        for step in range(start, num_frames + max(CONFIG.delay_pattern)):
            sequence = patterns.apply_delays(codes, CONFIG.delay_pattern, CONFIG.special_token_id)[..., : step + 1]
            logits = torch.stack([share * self.lm(sequence, condition)[:, :, -1] for share, condition in branches]).sum(
                0
            )
            for k, delay in enumerate(CONFIG.delay_pattern):
                if start <= step - delay < num_frames:
                    probs = (logits[:, k] / sampling.temperature).softmax(-1)
                    samples = [torch.multinomial(row, 1, generator=g) for row, g in zip(probs, noise, strict=True)]
                    codes[:, k, step - delay] = torch.cat(samples)
            if progress is not None:
                progress(min(1.0, (step + 1) / num_frames))
        return codes


def unconditioned(begin: int, end: int) -> list[CFGBranch]:
    return [CFGBranch(1.0, None)]


def generate_windows(frames: int, seeds: Sequence[int] = (0,), decoder: Plain | None = None) -> Tensor:
    return windows.generate_long(
        decoder or Plain(), frames, window=WINDOW, stride=STRIDE, branches=unconditioned, sampling=SamplingConfig(),
        seeds=seeds,
    )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 12, 19])
@pytest.mark.parametrize("frames", [1, 2, 19, 20, 21, 31, 32, 33, 44, 45, 200, 1001])
def test_windows_cover_all_frames_once_and_the_last_ends_at_the_total(frames: int, stride: int) -> None:
    result = windows.plan_windows(frames, WINDOW, stride)
    assert [n for begin, end, prompt in result for n in range(begin + prompt, end)] == list(range(frames))
    assert all(end - begin == min(WINDOW, frames) for begin, end, _ in result)
    assert result[0].prompt == 0
    assert all(prompt >= WINDOW - stride for _, _, prompt in result[1:])
    assert all(after.start - before.start == stride for before, after in pairwise(result[:-1]))
    assert len(result) == 1 + -(-max(frames - WINDOW, 0) // stride)


def test_window_plan_of_45_seconds_with_the_default_window_and_stride() -> None:
    """The second window hears and sees 15–45 s; VidMuse's would be shown 15–30.5 s."""
    assert windows.plan_windows(45 * 50, 30 * 50, 18 * 50) == [(0, 1500, 0), (750, 2250, 750)]


@pytest.mark.parametrize("frames", [1, 20, 21, 55])
def test_each_window_is_prompted_with_earlier_codes_and_its_own_condition(frames: int) -> None:
    decoder, ranges = Plain(), []

    def branches(begin: int, end: int) -> list[CFGBranch]:
        ranges.append((begin, end))
        return [CFGBranch(1.0, None)]

    codes = windows.generate_long(
        decoder, frames, window=WINDOW, stride=STRIDE, branches=branches, sampling=SamplingConfig(), seeds=[0, 1]
    )
    assert codes.shape == (2, CONFIG.num_codebooks, frames)
    assert int(codes.max()) < CONFIG.codebook_size
    plan = windows.plan_windows(frames, WINDOW, STRIDE)
    assert ranges == [(begin, end) for begin, end, _ in plan]
    for (begin, _, prompt), actual in zip(plan, decoder.prompts, strict=True):
        assert (actual is None) == (prompt == 0)
        assert actual is None or torch.equal(actual, codes[..., begin : begin + prompt])


def test_condition_of_a_window_does_not_affect_earlier_windows() -> None:
    plan, plain = windows.plan_windows(55, WINDOW, STRIDE), generate_windows(55)
    condition = Condition.from_tokens(5 * torch.randn(1, 3, CONFIG.dim, generator=torch.Generator().manual_seed(1)))

    def branches(begin: int, end: int) -> list[CFGBranch]:
        return [CFGBranch(1.0, condition if begin == plan[2].start else None)]

    codes = windows.generate_long(
        Plain(), 55, window=WINDOW, stride=STRIDE, branches=branches, sampling=SamplingConfig(), seeds=[0]
    )
    new = plan[2].start + plan[2].prompt
    assert torch.equal(codes[..., :new], plain[..., :new])
    assert not torch.equal(codes[..., new : plan[2].end], plain[..., new : plan[2].end])


def test_windows_use_distinct_seeds_and_output_is_reproducible() -> None:
    decoder = Plain()
    codes = generate_windows(80, (7, 8), decoder)
    drawn = [seed for given in decoder.given for seed in given]
    assert len(set(drawn)) == len(drawn) == 2 * len(windows.plan_windows(80, WINDOW, STRIDE))
    assert all(0 <= seed < 2**63 for seed in drawn)
    new = [codes[:1, :, begin + prompt : end] for begin, end, prompt in windows.plan_windows(80, WINDOW, STRIDE)[1:-1]]
    assert len(new) > 3
    assert all(float((a == b).double().mean()) < 0.5 for n, a in enumerate(new) for b in new[:n])
    assert torch.equal(codes, generate_windows(80, (7, 8)))
    assert torch.equal(codes[1:], generate_windows(80, (8,)))
    assert not torch.equal(codes[0], codes[1])


def steady() -> LM:
    """A model whose music moves on slowly: each code is nine times in ten the one before it in its codebook."""
    entries, codebooks = CONFIG.codebook_size, CONFIG.num_codebooks
    width = entries * codebooks
    lm = LM(LMConfig(dim=width, num_layers=1, num_heads=1, ffn_dim=1, num_codebooks=codebooks, codebook_size=entries))
    parts: Any = lm.requires_grad_(False)
    for weight in lm.layers.parameters():
        weight.zero_()
    for k in range(codebooks):
        own = torch.eye(width)[entries * k : entries * (k + 1)]
        parts.embeddings[k].weight.copy_(torch.cat([100 * own, torch.zeros(1, width)]))
        parts.heads[k].weight.copy_(own)
    return lm.eval()


def test_audio_is_continuous_at_window_boundaries() -> None:
    """Neighboring frames differ at the joins as they do elsewhere; with windows that know nothing of each other, the
    sound turns there."""
    torch.manual_seed(0)
    sizes = {"num_filters": 4, "hidden_size": 8, "codebook_dim": 8, "codebook_size": CONFIG.codebook_size}
    kernels = {"kernel_size": 1, "last_kernel_size": 1, "residual_kernel_size": 1}  # so that a frame is heard at once
    rates = {"upsampling_ratios": [4, 2], "sampling_rate": 3200, "target_bandwidths": [4.0]}
    codec: Any = EncodecModel(EncodecConfig(**sizes, **kernels, **rates)).eval().requires_grad_(False)
    for layer in codec.quantizer.layers:  # which begin as zeros
        layer.codebook.embed.normal_()
    frames, hop = 400, 8
    plan = windows.plan_windows(frames, WINDOW, STRIDE)
    joins = torch.tensor([begin + prompt for begin, _, prompt in plan[1:]])
    elsewhere = torch.tensor(sorted(set(range(1, frames)) - set(joins.tolist())))
    decoder = Plain(steady())

    def turns(codes: Tensor) -> tuple[float, float]:
        """How far a frame's sound is from that of the frame before it, as a share of its level: joins, elsewhere."""
        wave = codec.decode(codes[None], [None])[0][0, 0, : frames * hop].view(frames, hop)
        change = wave.diff(dim=0).square().mean(-1).sqrt() / wave.square().mean().sqrt()
        return float(change[joins - 1].mean()), float(change[elsewhere - 1].mean())

    at, between = turns(generate_windows(frames, decoder=decoder))
    assert at < 1.5 * between
    apart = [
        decoder.generate(unconditioned(0, 0), end - begin - prompt, sampling=SamplingConfig(), seeds=[n])
        for n, (begin, end, prompt) in enumerate(plan)
    ]
    at, between = turns(torch.cat(apart, dim=-1))
    assert at > 2 * between


def test_progress_is_monotonic_and_ends_at_one() -> None:
    fractions: list[float] = []
    windows.generate_long(
        Plain(), 55, window=WINDOW, stride=STRIDE, branches=unconditioned, sampling=SamplingConfig(), seeds=[0],
        progress=cast(ProgressFn, fractions.append),
    )  # fmt: skip
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert len(fractions) > 50
