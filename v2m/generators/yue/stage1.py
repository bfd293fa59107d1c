"""Stage 1 of YuE: a Llama that writes codebook 0 of the vocal and the instrumental track in turn.

A section in the context: [start_of_segment] text SOA <xcodec> v₀ i₀ v₁ i₁ … EOA [end_of_segment], where v are codes of
the vocal track and i of the instrumental one.

R rows of the KV cache, q new tokens, n tokens of a prompt, T frames (50 a second), V = 1024 codes of codebook 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from v2m.core.errors import UsageError
from v2m.core.progress import sub_progress
from v2m.core.types import ProgressFn
from v2m.generators.options import YuESampling
from v2m.generators.yue import tokenizer
from v2m.generators.yue.decoder import LlamaDecoder, linear, lm_head_rows, make_cache
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.kv_cache import PREFILL_STEPS
from v2m.models.inference.sampling import apply_cfg, apply_repetition_penalty, sample_token
from v2m.models.inference.windows import window_seed

VOCALS, INSTRUMENTAL = 0, 1


@dataclass(frozen=True)
class SectionPlan:
    """A section to write, `num_frames` long."""

    lyrics: LyricsSection
    num_frames: int


@torch.inference_mode()
def generate_codes(
    model: PreTrainedModel,
    prompt: PromptEncoder,
    head: Sequence[int],
    sections: Sequence[SectionPlan],
    *,
    seed: int,
    sampling: YuESampling | None = None,
    silence_code: int | None = None,
    use_graph: bool | None = None,
    progress: ProgressFn | None = None,
) -> list[Tensor]:
    """Generate codebook 0 of each section, (2, T) on the model's device: vocals, then instrumental.

    The published script draws from the whole vocabulary with text blocked, and a section ends where the model ends it.
    Here each has its planned frames, after which its end is appended: the choice is among the codes of codebook 0
    alone. Log-probabilities then count those only, which shifts them by the mass on all other tokens: guidance, top-k
    and top-p do not depend on a shift, the repetition penalty does, by as little as that mass is.

    Where the context would grow too long, the oldest sections are dropped; `head`, ids of `PromptEncoder.head`, never
    is (UsageError if it and one section are too long). A section draws from a generator of its own, so that it does not
    depend on the number of draws before it.

    The same `seed` ≥ 0 writes the same codes on the same machine. With `silence_code`, the code of all vocals, nobody
    sings, and each frame takes one forward rather than two. `use_graph` keeps all shapes and launches each decode step
    as one CUDA graph; None does so on CUDA. On the CPU the same steps run one by one, which is slower than without.
    """
    sampling = sampling or YuESampling()
    device, limit = model.device, model.config.max_position_embeddings
    openings = [prompt.section(section.lyrics) for section in sections]
    closing = [tokenizer.EOA, *prompt.end_of_segment]
    sizes = [
        len(opening) + 2 * section.num_frames + len(closing)
        for opening, section in zip(openings, sections, strict=True)
    ]
    _check_context_length(len(head), sizes, limit)
    context = _Context(
        model,
        min(limit, len(head) + sum(sizes)),
        rows=1 if sampling.cfg_scale == sampling.first_section_cfg_scale == 1 else 2,
        num_new=1 if silence_code is None else 2,
        static_shapes=device.type == "cuda" if use_graph is None else use_graph,
    )
    head_ids, closing_ids = torch.tensor(list(head), device=device), torch.tensor(closing, device=device)
    history, outputs = list[Tensor](), list[Tensor]()  # ids of the sections in the context, codes of all
    done, total = 0, sum(section.num_frames for section in sections)
    for index, (section, size) in enumerate(zip(sections, sizes, strict=True)):
        while len(head) + sum(map(len, history)) + size > limit:
            del history[0]
            context.reset()
        opening = torch.tensor(openings[index], device=device)
        ids = torch.cat([head_ids, *history, opening])
        context.prefill(ids[context.num_tokens : -1])  # the last id, <xcodec>, is the first decode step's
        cfg_scale = sampling.section_cfg_scale(index)
        generator = torch.Generator(device).manual_seed(window_seed(seed, index))
        sampler = _TokenSampler(sampling, cfg_scale, _used_codes(ids), generator)
        context.start_section(use_cfg=cfg_scale != 1)
        part = sub_progress(progress, done / total, (done + section.num_frames) / total)
        codes = _generate_section(context, sampler, section.num_frames, silence_code, part)
        context.end_section()
        history.append(torch.cat([opening, codes.T.flatten() + tokenizer.FIRST_CODE, closing_ids]))
        outputs.append(codes)
        done += section.num_frames
    return outputs


def _check_context_length(head: int, sizes: Sequence[int], limit: int) -> None:
    """Raise UsageError where a section (of `sizes` tokens) and the head do not fit into `limit` together."""
    if sizes and head + max(sizes) > limit:
        raise UsageError(
            f"tags, lyrics and reference take {head} tokens and the longest section {max(sizes)}, of {limit} that YuE "
            "can hold: shorten the lyrics or the reference, or make more and shorter sections"
        )


def _used_codes(ids: Tensor) -> Tensor:
    """(1, V) bool: the codes of codebook 0 that occur among `ids` (n,)."""
    codes = ids - tokenizer.FIRST_CODE
    used = torch.zeros(1, tokenizer.CODEBOOK_SIZE, dtype=torch.bool, device=ids.device)
    used[0, codes[(codes >= 0) & (codes < tokenizer.CODEBOOK_SIZE)]] = True
    return used


def _generate_section(
    context: _Context, sampler: _TokenSampler, num_frames: int, silence_code: int | None, progress: ProgressFn
) -> Tensor:
    """Codes (2, T). With `silence_code` a decode step takes the last drawn code and the one after it."""
    codes = torch.full((2, num_frames), silence_code or 0, device=context.device)
    silence_id = codes[VOCALS, :1] + tokenizer.FIRST_CODE
    if silence_code is not None:
        sampler.mark_used(codes[VOCALS, :1])
    last_id = torch.tensor([tokenizer.XCODEC], device=context.device)
    for frame in range(num_frames):
        for track in (VOCALS, INSTRUMENTAL) if silence_code is None else (INSTRUMENTAL,):
            logits = context.step(last_id if silence_code is None else torch.cat([last_id, silence_id]))
            code = sampler.sample(logits)
            codes[track, frame] = code[0]
            last_id = code + tokenizer.FIRST_CODE
        progress((frame + 1) / num_frames)
    return codes


@dataclass
class _TokenSampler:
    """Draws the next code; `used_codes` (1, V) are those in the context, for the repetition penalty."""

    sampling: YuESampling
    cfg_scale: float
    used_codes: Tensor
    generator: torch.Generator

    def sample(self, logits: Tensor) -> Tensor:
        """Logits (R, V) of the conditional and, if there is one, the unconditional row → code (1,)."""
        guided = apply_cfg(logits[:1], logits[-1:], self.cfg_scale)  # of one row: its log-probabilities
        code = sample_token(
            apply_repetition_penalty(guided, self.used_codes, self.sampling.repetition_penalty),
            temperature=self.sampling.temperature,
            top_k=self.sampling.top_k,
            top_p=self.sampling.top_p,
            generator=self.generator,
        )
        self.mark_used(code)
        return code

    def mark_used(self, code: Tensor) -> None:
        self.used_codes.index_fill_(1, code, True)


class _Context:
    """The model with its KV cache, whose rows are the branches of classifier-free guidance.

        row 0  conditional    head, sections before, text SOA <xcodec> v₀ i₀ v₁ …
        row 1  unconditional  _____________________________ <xcodec> v₀ i₀ v₁ …    _ padding

    Prefill is of row 0 alone; a decode step gives both rows the same `num_new` tokens. The padding of row 1 is masked,
    and its positions count from the section's first code. `length` is that of the cache; `static_shapes` last for a
    section.
    """

    def __init__(self, model: PreTrainedModel, length: int, *, rows: int, num_new: int, static_shapes: bool) -> None:
        self.device, self.num_tokens = model.device, 0  # tokens in the cache
        self._head = lm_head_rows(model, tokenizer.FIRST_CODE, tokenizer.first_id(1))  # (V, D)
        self._decoder = LlamaDecoder(model, make_cache(model, rows, length))
        self._static_shapes, self._use_cfg = static_shapes, False
        self._input_ids = torch.zeros(num_new, dtype=torch.long, device=self.device)
        self._logits = torch.zeros(rows, tokenizer.CODEBOOK_SIZE, device=self.device)
        self._steps: dict[bool, CapturedStep] = {}  # by `use_cfg`

    def reset(self) -> None:
        self._decoder.cache.unfreeze(0)
        self.num_tokens = 0

    def prefill(self, ids: Tensor) -> None:
        """Read the ids (n,) of a prompt into the first row."""
        self._decoder.cache.rows = slice(0, 1)
        for part in ids.split(PREFILL_STEPS):
            self._decoder(part[None])
        self.num_tokens += len(ids)

    def start_section(self, *, use_cfg: bool) -> None:
        cache, self._use_cfg = self._decoder.cache, use_cfg
        cache.rows = slice(0, 2 if use_cfg else 1)
        if use_cfg:
            cache.set_padding(1, self.num_tokens)
        if self._static_shapes:
            cache.freeze()

    def end_section(self) -> None:
        """End the decode steps, so that `prefill` may follow."""
        self._decoder.cache.unfreeze(self.num_tokens)

    def step(self, ids: Tensor) -> Tensor:
        """Decode step: ids (q,) → logits (R, V) float32 of the next code; the next call may overwrite them."""
        self.num_tokens += len(ids)
        assert self.num_tokens <= self._decoder.cache.max_length
        rows = self._decoder.cache.rows
        if not self._static_shapes:
            return _compute_logits(self._decoder, self._head, ids)
        self._input_ids.copy_(ids)
        if self._use_cfg not in self._steps:
            step = partial(_write_logits, self._decoder, self._head, self._input_ids, self._logits[rows])
            self._steps[self._use_cfg] = CapturedStep(step, capture=self.device.type == "cuda")
        self._steps[self._use_cfg]()
        return self._logits[rows]


def _write_logits(decoder: LlamaDecoder, head: Tensor, input_ids: Tensor, logits: Tensor) -> None:
    """Body of the CUDA graph; a function, since a method would keep its memory alive by a cycle."""
    logits.copy_(_compute_logits(decoder, head, input_ids))


def _compute_logits(decoder: LlamaDecoder, head: Tensor, ids: Tensor) -> Tensor:
    """Logits (R, V) float32 after the last of `ids` (q,), which each row is given."""
    rows = decoder.cache.rows.stop
    return linear(decoder(ids.expand(rows, -1)).float(), head)
