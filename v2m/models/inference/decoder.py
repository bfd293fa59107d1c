"""Autoregressive decoding of the music LM: every CFG branch of every clip is a row of one batch.

B clips, R rows = clips of every branch, K codebooks, T frames, S steps (`v2m.models.patterns`), V codebook size,
D model dimension, P steps of a prefix before the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from v2m.core import compat
from v2m.core.types import ProgressFn, SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import kv_cache
from v2m.models.inference.cpu_kernels import load_kernels
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.inference.kernel_choice import is_large
from v2m.models.inference.kv_cache import PREFILL_STEPS, CrossAttentionInput, KVCache
from v2m.models.inference.native_step import make_step
from v2m.models.inference.sampling import filter_logits
from v2m.models.lm import LM, sinusoidal_embedding

NOISE_STEPS = 50  # steps for which noise is drawn at once, and between reports of progress: a second of most codecs
GRAPH_GROWTH = 512  # positions by which the attention of captured steps grows


class Decoder:
    """The decoder of a music LM, made once for many calls: the weights are copied into the fastest form."""

    def __init__(self, lm: LM, *, precision: Precision | None = None) -> None:
        self.config = lm.config
        self.precision: Precision = default_precision(lm, lm.norm.weight.device) if precision is None else precision
        with torch.inference_mode():
            self._lm = InferenceLM(lm, self.precision)
        self.kernel = self._lm.kernel  # of its linear layers, as `kernel_choice` names them

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
        """Return codes (B, K, `num_frames`) int64 on the model's device; each clip's depend on its own inputs.

        `branches` hold the guided logits' weights, each with a condition of B rows or None (see
        `MusicModel.cfg_branches`); the guidance scales of `sampling` are those that they were made with. `seeds` has
        one for each clip. `prompt` (B, K, T₀ ≤ T) is continued and returned unchanged. `progress` is called about once
        per second of music. `capture` replays steps as CUDA graphs; None does so on CUDA.
        """
        with torch.inference_mode():
            capture = self._lm.device.type == "cuda" if capture is None else capture
            state = GenerationState(
                self._lm, branches, num_frames, sampling=sampling, seeds=seeds, prompt=prompt, capture=capture
            )
            state.prefill()
            state.decode(progress)
        return state.codes()


def default_precision(lm: LM, device: torch.device) -> Precision:
    """Return int8 for a large model on a CPU with our kernels, else bf16 or fp32.

    bf16 is where the device multiplies it in hardware. `bench/lm_precision.py` measures what rounding costs.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and is_large(lm) and load_kernels() is not None:
        return "int8"
    return "bf16" if device.type == "cpu" and compat.cpu_has_avx512_bf16() else "fp32"


@dataclass(frozen=True)
class RowLayout:
    """Rows of the batch: the branch and clip of each, and the condition of each.

    Rows that cross-attend come first, so that the others skip cross-attention as one slice. For two clips and the
    branches (−2.0, None), (0.5, text), (2.5, video), where clip 1 has no text:

        row  branch  clip  cross-attends to            cfg_weights   row 0    1    2    3    4    5
        0    1       0     cross_inputs[0]  (text)     clip 0          0.5  2.5    0  −2.0   0    0
        1    2       0     cross_inputs[1]  (video)    clip 1           0    0   2.5    0  −2.0  0.5
        2    2       1     cross_inputs[1]
        3    0       0     nothing                     guided logits (B, V) = cfg_weights (B, R) @ logits (R, V)
        4    0       1     nothing
        5    1       1     nothing

    An LM without cross-attention reads conditions as prefixes, left-padded to P steps so that the codes align:

        row 0   _ _ t t t | codes      t text, m melody, _ padding
        row 1   m m t t t | codes
    """

    rows: list[tuple[int, int]]  # branch and clip of each row
    cross_inputs: list[CrossAttentionInput]  # to cross-attend to, each for a range of rows
    prefixes: Tensor  # (R, P, D); P is 0 where nothing stands before the codes
    prefix_mask: Tensor  # (R, P) bool, True where a prefix step is valid
    padding: list[int]  # padded steps of each row

    @classmethod
    def from_branches(cls, branches: Sequence[CFGBranch], num_clips: int, lm: InferenceLM) -> RowLayout:
        """Lay out `num_clips` rows of every branch for `lm`."""
        empty = Condition.from_tokens(torch.zeros(num_clips, 0, lm.config.dim, dtype=lm.dtype, device=lm.device))
        conditions = [empty if part is None else part.to(lm.device, lm.dtype) for _, part in branches]
        assert all(len(part.tokens) == num_clips for part in conditions), f"a condition of other than {num_clips} rows"
        if not lm.config.cross_attention:
            rows = [(branch, clip) for branch in range(len(branches)) for clip in range(num_clips)]
            length = max(part.tokens.shape[1] for part in conditions)  # P
            pads = [length - part.tokens.shape[1] for part in conditions]
            tokens = [functional.pad(part.tokens, (0, 0, pad, 0)) for part, pad in zip(conditions, pads, strict=True)]
            mask = [functional.pad(part.mask, (pad, 0)) for part, pad in zip(conditions, pads, strict=True)]
            return cls(rows, [], torch.cat(tokens), torch.cat(mask), [pads[branch] for branch, _ in rows])
        conditional: list[tuple[int, int]] = []
        unconditional: list[tuple[int, int]] = []
        cross_inputs: list[CrossAttentionInput] = []
        for branch, condition in enumerate(conditions):
            has_tokens = condition.mask.any(dim=1).tolist()
            clips = [clip for clip in range(num_clips) if has_tokens[clip]]
            unconditional += [(branch, clip) for clip in range(num_clips) if not has_tokens[clip]]
            if clips:
                tokens, mask = kv_cache.pack_masked_tokens(condition, clips)
                cross_inputs.append(CrossAttentionInput(len(conditional), len(conditional) + len(clips), tokens, mask))
                conditional += [(branch, clip) for clip in clips]
        rows = conditional + unconditional
        no_prefix = torch.zeros(len(rows), 0, lm.config.dim, dtype=lm.dtype, device=lm.device)
        return cls(rows, cross_inputs, no_prefix, no_prefix[..., 0].bool(), [])


class GenerationState:
    """The state of one call: the sequence written so far, the KV cache, the noise of the draws."""

    def __init__(
        self,
        lm: InferenceLM,
        branches: Sequence[CFGBranch],
        num_frames: int,
        *,
        sampling: SamplingConfig,
        seeds: Sequence[int],
        prompt: Tensor | None,
        capture: bool = False,
    ) -> None:
        self.lm, self.sampling, self.seeds = lm, sampling, seeds
        self.capture = capture = capture and lm.cache_kernels is None  # a quantized cache grows on the host
        config, device = lm.config, lm.device
        self.delays, count = config.delay_pattern, len(seeds)
        if prompt is None:
            prompt = torch.zeros(count, config.num_codebooks, 0, dtype=torch.long)
        num_new = num_frames - prompt.shape[2]
        assert num_new >= 0, f"a prompt of {prompt.shape[2]} frames for {num_frames}"
        assert prompt.shape[:2] == (count, config.num_codebooks), f"a prompt {tuple(prompt.shape)} for {count} clips"
        codes = functional.pad(prompt.to(device), (0, num_new), value=-1)
        self.sequence = patterns.apply_delays(codes, self.delays, config.special_token_id)  # (B, K, S), −1 to be drawn
        self.to_draw = self.sequence < 0
        self.first_step = prompt.shape[2] + 1 + min(self.delays) if num_new else self.sequence.shape[2]  # drawn first
        self.layout = layout = RowLayout.from_branches(branches, count, lm)
        self.clip_index = torch.tensor([clip for _, clip in layout.rows], device=device)  # (R,)
        self.cfg_weights = torch.zeros(count, len(layout.rows), device=device)  # (B, R)
        for row, (branch, clip) in enumerate(layout.rows):
            self.cfg_weights[clip, row] = branches[branch][0]
        self.step_bias = self._step_bias([condition for _, condition in branches])
        self.prefix_length = layout.prefixes.shape[1]  # P
        length = kv_cache.aligned_length(self.prefix_length + self.sequence.shape[2])
        shape = (len(layout.rows), config.num_heads, length, config.dim // config.num_heads)
        options: Any = {"padding": layout.padding, "prefix_mask": layout.prefix_mask, "preallocate": capture}
        self.cache = KVCache(config.num_layers, shape, lm.cache_dtype, device, **options)
        position_ids = torch.arange(length, device=device)
        self.position_table = sinusoidal_embedding(position_ids, config.dim).to(lm.dtype)  # (positions, D)

    def _step_bias(self, conditions: Sequence[Condition | None]) -> Tensor | None:
        """(R, S, D) that is added to the steps of each row; None where no condition has any."""
        if all(condition is None or condition.step_bias is None for condition in conditions):
            return None
        num_steps, lm = self.sequence.shape[2], self.lm
        zero = torch.zeros(num_steps, lm.config.dim, dtype=lm.dtype, device=lm.device)
        branch_biases: list[Tensor | None] = []  # (B, S, D) each
        for condition in conditions:
            bias = None if condition is None or condition.step_bias is None else condition.step_bias.to(lm.device)
            branch_biases.append(None if bias is None else bias.interpolate(num_steps).to(lm.dtype))
        rows = [(branch_biases[branch], clip) for branch, clip in self.layout.rows]
        return torch.stack([zero if bias is None else bias[clip] for bias, clip in rows])

    def prefill(self) -> None:
        """Run everything known before the first drawn step, except the step that draws it."""
        cross_kv = self.lm.project_condition(self.layout.cross_inputs)
        x = self.lm.embed(self.sequence[:, :, : self.first_step - 1])[self.clip_index]  # (R, steps, D)
        if self.step_bias is not None:
            x = x + self.step_bias[:, : self.first_step - 1]
        if self.prefix_length:
            x = torch.cat([self.layout.prefixes, x], dim=1)
        position_ids = self.cache.position_ids(torch.arange(x.shape[1], device=self.lm.device))
        x = x + self.position_table[position_ids]
        for part in x.split(PREFILL_STEPS, dim=1):
            if part.shape[1]:
                self.lm(part, self.cache, cross_kv)
        # layer by layer: never a second copy of all keys and values
        kernels = self.lm.cache_kernels
        self.cross_kv = [[kv.pack(kernels) for kv in cross_kv.pop(0)] for _ in self.lm.layers]
        if kernels is not None:
            self.cache.quantize(kernels)
        self.native_step = make_step(self.lm, self.cache, self.cross_kv)

    def decode(self, progress: ProgressFn | None) -> None:
        config, device = self.lm.config, self.lm.device
        total = self.sequence.shape[2] - self.first_step
        generators = [torch.Generator(device).manual_seed(seed) for seed in self.seeds]
        size = (len(generators), NOISE_STEPS, config.num_codebooks, config.codebook_size)
        self.noise = torch.zeros(size, device=device)
        self.noise_index = torch.zeros(1, dtype=torch.long, device=device)
        captured: dict[int, CapturedStep] = {}  # by attended length: a graph has fixed shapes
        for step in range(total):
            if step % NOISE_STEPS == 0:
                self._draw_noise(generators)
                if progress is not None and step:
                    self._report(progress, step / total)
            if self.capture:
                position = self.prefix_length + self.first_step - 1 + step
                attended = min((position // GRAPH_GROWTH + 1) * GRAPH_GROWTH, self.cache.max_length)
                self.cache.freeze(attended)
                captured.setdefault(attended, CapturedStep(self._step, capture=device.type == "cuda"))()
            else:
                self._step()
        if progress is not None:
            self._report(progress, 1.0)

    def _report(self, progress: ProgressFn, fraction: float) -> None:
        if self.lm.device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # launched is not done
        progress(fraction)

    def _draw_noise(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each clip's noise from its own generator: log arrival times, as in `sampling.gumbel_argmax`."""
        self.noise_index.zero_()
        if self.sampling.temperature == 0:
            return
        for clip, generator in enumerate(generators):
            self.noise[clip].exponential_(generator=generator)
        self.noise.clamp_min_(torch.finfo(torch.float32).tiny).log_()

    def next_logits(self) -> Tensor:
        """Run the last written step; return the guided logits (B, K, V) of the next one."""
        step = self.cache.position - self.prefix_length  # (1,)
        x = self.lm.embed(self.sequence.index_select(2, step))[self.clip_index]  # (R, 1, D)
        if self.step_bias is not None:
            x = x + self.step_bias.index_select(1, step)
        x = x + self.position_table[self.cache.position_ids(self.cache.position)]
        if self.native_step is not None:
            logits = self.native_step(x)
        else:
            logits = self.lm.logits(self.lm(x, self.cache, self.cross_kv)[:, 0])
        config = self.lm.config
        return (self.cfg_weights @ logits).unflatten(-1, (config.num_codebooks, config.codebook_size))

    def _step(self) -> None:
        drawn = self._sample(self.next_logits())
        step = self.cache.position - self.prefix_length  # (1,): the cache has advanced to the step being drawn
        known = self.sequence.index_select(2, step)
        to_draw = self.to_draw.index_select(2, step)
        self.sequence.index_copy_(2, step, torch.where(to_draw, drawn[..., None], known))
        self.noise_index += 1

    def _sample(self, logits: Tensor) -> Tensor:
        """(B, K, V) → (B, K)."""
        config = self.sampling
        if config.temperature == 0:
            return logits.argmax(dim=-1)
        logits = filter_logits(logits, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
        return (logits - self.noise.index_select(1, self.noise_index)[:, 0]).argmax(dim=-1)

    def codes(self) -> Tensor:
        """Return (B, K, T), cloned out of inference mode."""
        return patterns.revert_delays(self.sequence, self.delays).clone()
