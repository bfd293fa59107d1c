"""Writing with a music language model: all branches of the guidance and all clips side by side, one pass a step.

B clips, R rows = those of every branch, K codebooks, T frames, S steps (`v2m.models.patterns`), N steps of noise, V
entries, D width, P steps before the codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from v2m.core.types import ProgressFn, SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import Condition
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.inference.kv_cache import CrossAttentionInput, KVCache, pack_masked_tokens
from v2m.models.inference.sampling import filter_logits
from v2m.models.lm import LM, sinusoidal_embedding
from v2m.models.music_model import CFGBranch

NOISE_STEPS = 50  # steps for which noise is drawn, and after which progress is told: a second of most codecs
PREFILL_STEPS = 256  # steps of a prompt read at once: what their attention needs stays small however long it is
GRAPH_GROWTH = 512  # steps that captured attention grows by


class Decoder:
    """Made once, for many calls; the weights are copied in the form that multiplies fastest.

    Args:
        lm: What writes, on the device where it shall.
        precision: Of the weights; None is what suits the device.
    """

    def __init__(self, lm: LM, *, precision: Precision | None = None) -> None:
        self.config = lm.config
        device = lm.norm.weight.device
        self.precision: Precision = default_precision(device) if precision is None else precision
        with torch.inference_mode():
            self._lm = InferenceLM(lm, self.precision)

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
        """Codes (B, K, `frames`) int64 on the model's device.

        A clip's codes depend on its own seed and conditions, not on what is written beside it.

        Args:
            branches: Shares of the guided logits, with a condition of B rows each, or None.
            frames: T, the prompt's included.
            sampling: Temperature, top-k and top-p; its guidance is what `branches` were made with.
            seeds: One for each clip.
            prompt: Codes (B, K, T₀ ≤ T) to go on from, returned unchanged.
            progress: Told after each second or so.
            capture: Whether steps are replayed as CUDA graphs; None is where there is CUDA.
        """
        with torch.inference_mode():
            capture = self._lm.device.type == "cuda" if capture is None else capture
            given = {"sampling": sampling, "seeds": seeds, "prompt": prompt, "capture": capture}
            piece = _GenerationState(self._lm, branches, num_frames, **given)
            piece.prefill()
            piece.decode(progress)
        return piece.codes()

    def next_logits(self, branches: Sequence[CFGBranch], prompt: Tensor) -> Tensor:
        """Guided logits (B, K, V) float32 of the first step after the codes `prompt` (B, K, T₀), for measuring."""
        with torch.inference_mode():
            given = {"sampling": SamplingConfig(), "seeds": range(len(prompt)), "prompt": prompt}
            piece = _GenerationState(self._lm, branches, prompt.shape[2] + 1, **given)
            piece.prefill()
            return piece.next_logits()


def default_precision(device: torch.device) -> Precision:
    """bf16 where the device multiplies it, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


class _GenerationState:
    """One call: what is written, and what the model remembers of it."""

    def __init__(
        self,
        stack: InferenceLM,
        branches: Sequence[CFGBranch],
        frames: int,
        *,
        sampling: SamplingConfig,
        seeds: Sequence[int],
        prompt: Tensor | None,
        capture: bool = False,
    ) -> None:
        self.lm, self.sampling, self.seeds, self.capture = stack, sampling, seeds, capture
        config, device = stack.config, stack.device
        self.pattern, count = config.delay_pattern, len(seeds)
        if prompt is None:
            prompt = torch.zeros(count, config.num_codebooks, 0, dtype=torch.long)
        open_ = frames - prompt.shape[2]
        assert open_ >= 0, f"a prompt of {prompt.shape[2]} frames for {frames}"
        assert prompt.shape[:2] == (count, config.num_codebooks), f"a prompt {tuple(prompt.shape)} for {count} clips"
        given = functional.pad(prompt.to(device), (0, open_), value=-1)
        self.sequence = patterns.apply_delays(
            given, self.pattern, config.special_token_id
        )  # (B, K, S), −1 where it is to be drawn
        self.unknown = self.sequence < 0
        self.first_step = (
            prompt.shape[2] + 1 + min(self.pattern) if open_ else self.sequence.shape[2]
        )  # step drawn first
        self._lay_out_rows(branches, count)

    def _lay_out_rows(self, branches: Sequence[CFGBranch], count: int) -> None:
        """Lays the rows out, those that listen first, and puts what they listen to in front of them or beside."""
        config, device, dtype = self.lm.config, self.lm.device, self.lm.dtype
        listening: list[tuple[int, int]] = []  # branch and clip of each row
        silent: list[tuple[int, int]] = []
        self.cross_inputs: list[CrossAttentionInput] = []
        self.prefixes: list[Tensor] = []
        there: list[Tensor] = []
        for branch, (_, condition) in enumerate(branches):
            assert condition is None or len(condition.tokens) == count, f"a condition of other than {count} rows"
            if condition is None or not config.cross_attention:
                silent += [(branch, clip) for clip in range(count)]
                empty = torch.zeros(count, 0, config.dim, dtype=dtype, device=device)
                self.prefixes += list(empty if condition is None else condition.tokens.to(device, dtype))
                there += list(empty[..., 0].bool() if condition is None else condition.mask.to(device))
                continue
            heard = [bool(each) for each in condition.mask.any(dim=1).tolist()]
            hears = [clip for clip in range(count) if heard[clip]]
            silent += [(branch, clip) for clip in range(count) if not heard[clip]]
            if hears:
                tokens, mask = pack_masked_tokens(condition.to(device, dtype), hears)
                begin = len(listening)
                listening += [(branch, clip) for clip in hears]
                self.cross_inputs.append(CrossAttentionInput(begin, len(listening), tokens, mask))
        rows = listening + silent
        self.clip_index = torch.tensor([clip for _, clip in rows], device=device)
        self.cfg_weights = torch.zeros(count, len(rows), device=device)
        for row, (branch, clip) in enumerate(rows):
            self.cfg_weights[clip, row] = branches[branch][0]
        self.step_bias = self._step_bias_rows([condition for _, condition in branches], rows)
        self.prefix_length = max((len(each) for each in self.prefixes), default=0)  # P
        pads = [self.prefix_length - len(each) for each in self.prefixes] if self.prefix_length else [0]
        self.pad = torch.tensor(pads, device=device)
        length = -(-(self.prefix_length + self.sequence.shape[2]) // 8) * 8
        shape = (len(rows), config.num_heads, length, config.dim // config.num_heads)
        mask = None
        if self.prefix_length:
            mask = torch.stack([functional.pad(each, (pad, 0)) for each, pad in zip(there, pads, strict=True)])
        self.cache = KVCache(
            config.num_layers, shape, self.lm.cache_dtype, device, prefix_mask=mask, preallocate=self.capture
        )
        self.position_table = sinusoidal_embedding(torch.arange(length, device=device), config.dim).to(
            dtype
        )  # (positions, D)

    def _step_bias_rows(self, conditions: Sequence[Condition | None], rows: Sequence[tuple[int, int]]) -> Tensor | None:
        """(R, S, D) that is added to the steps of the `rows`, each of a branch and a clip; None where nothing is."""
        if all(each is None or each.step_bias is None for each in conditions):
            return None
        steps, stack = self.sequence.shape[2], self.lm
        none = torch.zeros(steps, stack.config.dim, dtype=stack.dtype, device=stack.device)
        told: list[Tensor | None] = []
        for each in conditions:
            cues = None if each is None or each.step_bias is None else each.step_bias.to(stack.device)
            told.append(None if cues is None else cues.interpolate(steps).to(stack.dtype))
        found = [(told[branch], clip) for branch, clip in rows]
        return torch.stack([none if spread is None else spread[clip] for spread, clip in found])

    def prefill(self) -> None:
        """All that is known before the first step that is drawn, but the step that draws it."""
        heard = self.lm.project_condition(self.cross_inputs)
        known = self.lm.embed(self.sequence[:, :, : self.first_step - 1])[self.clip_index]
        if self.step_bias is not None:
            known = known + self.step_bias[:, : self.first_step - 1]
        if self.prefix_length:
            pads = self.pad.tolist()
            before = [functional.pad(each, (0, 0, pad, 0)) for each, pad in zip(self.prefixes, pads, strict=True)]
            known = torch.cat([torch.stack(before), known], dim=1)
        places = torch.arange(known.shape[1], device=self.lm.device) - self.pad[:, None]
        known = known + self.position_table[places.clamp_(min=0)]
        for part in known.split(PREFILL_STEPS, dim=1):
            if part.shape[1]:
                self.lm(part, self.cache, heard)
        self.cross_kv = [[each.pack() for each in heard.pop(0)] for _ in self.lm.layers]  # no second copy of all

    def decode(self, progress: ProgressFn | None) -> None:
        """The steps that are drawn."""
        config, device = self.lm.config, self.lm.device
        total = self.sequence.shape[2] - self.first_step
        generators = [torch.Generator(device).manual_seed(seed) for seed in self.seeds]
        self.noise = torch.zeros(
            len(generators), NOISE_STEPS, config.num_codebooks, config.codebook_size, device=device
        )
        self.noise_index = torch.zeros(1, dtype=torch.long, device=device)
        steps: dict[int, CapturedStep] = {}
        for step in range(total):
            if step % NOISE_STEPS == 0:
                self._draw_noise(generators)
                if progress is not None and step:
                    self._report(progress, step / total)
            if self.capture:
                place = self.prefix_length + self.first_step - 1 + step
                self.cache.attended_length = min((place // GRAPH_GROWTH + 1) * GRAPH_GROWTH, self.cache.max_length)
                repeated = steps.setdefault(
                    self.cache.attended_length, CapturedStep(self._step, capture=device.type == "cuda")
                )
                repeated()
            else:
                self._step()
        if progress is not None:
            self._report(progress, 1.0)

    def _report(self, progress: ProgressFn, fraction: float) -> None:
        if self.lm.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        progress(fraction)

    def _draw_noise(self, generators: Sequence[torch.Generator]) -> None:
        """The next noise of each clip, from its own generator: exponential races as `sampling.draw` has them."""
        self.noise_index.zero_()
        if self.sampling.temperature == 0:
            return
        for clip, generator in enumerate(generators):
            self.noise[clip].exponential_(generator=generator)
        self.noise.clamp_min_(torch.finfo(torch.float32).tiny).log_()

    def next_logits(self) -> Tensor:
        """What was written last through the layers → guided logits (B, K, V) of what comes next."""
        at = self.cache.position - self.prefix_length  # (1,)
        x = self.lm.embed(self.sequence.index_select(2, at))[self.clip_index]
        if self.step_bias is not None:
            x = x + self.step_bias.index_select(1, at)
        x = x + self.position_table[(self.cache.position - self.pad)[:, None]]
        x = self.lm(x, self.cache, self.cross_kv)
        config = self.lm.config
        return (self.cfg_weights @ self.lm.logits(x[:, 0])).unflatten(-1, (config.num_codebooks, config.codebook_size))

    def _step(self) -> None:
        drawn = self._sample(self.next_logits())
        at = (
            self.cache.position - self.prefix_length
        )  # (1,), of the step that follows what was written last: it is passed on now
        before = self.sequence.index_select(2, at)
        unknown = self.unknown.index_select(2, at)
        self.sequence.index_copy_(2, at, torch.where(unknown, drawn[..., None], before))
        self.noise_index += 1

    def _sample(self, logits: Tensor) -> Tensor:
        """(B, K, V) → (B, K)."""
        given = self.sampling
        if given.temperature == 0:
            return logits.argmax(dim=-1)
        logits = filter_logits(logits, temperature=given.temperature, top_k=given.top_k, top_p=given.top_p)
        return (logits - self.noise.index_select(1, self.noise_index)[:, 0]).argmax(dim=-1)

    def codes(self) -> Tensor:
        """(B, K, T), fit for training, too."""
        return patterns.revert_delays(self.sequence, self.pattern).clone()
