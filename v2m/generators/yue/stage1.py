"""Stage 1 of YuE: a Llama that writes codebook 0 of the voice and of the rest by turns, one section after the other.

A section's place in the context: [start_of_segment] text SOA <xcodec> v₀ r₀ v₁ r₁ … EOA [end_of_segment], where v are
codes of the voice and r of the rest. R rows: the sequence itself and, where it is guided, one that starts at <xcodec>.
q new tokens, n tokens of a context, T frames (50 a second), V = 1024 choices: the codes of codebook 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from v2m.core.errors import UsageError
from v2m.core.types import ProgressFn
from v2m.generators.yue import tokens
from v2m.generators.yue.decoder import LlamaDecoder, linear, lm_head_rows, make_cache
from v2m.generators.yue.lyrics import LyricsSection
from v2m.generators.yue.options import YuESampling
from v2m.generators.yue.prompt import PromptEncoder
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.kv_cache import PREFILL_STEPS
from v2m.models.inference.sampling import apply_cfg, apply_repetition_penalty, sample_token
from v2m.models.inference.windows import window_seed

VOCALS, INSTRUMENTAL = 0, 1


@dataclass(frozen=True)
class SectionPlan:
    """A section to write, `frames` long."""

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
    """Codebook 0 of each passage, (2, T) on the model's device: the voice, then the rest.

    The published script draws from the whole vocabulary with text blocked, and a section ends where the model says so.
    Here each runs its frames, planned on the video's cuts, and its end is appended: the choice is among the codes of
    codebook 0 alone. Log-probabilities then count those only, which shifts them by the mass on all other tokens:
    guidance, top-k and top-p do not see a shift, the repetition penalty does, by as little as that mass is.

    Where the context would grow too long, the oldest sections are forgotten; `head` never is. A passage draws from a
    generator of its own, so that it does not matter how many draws the one before it took.

    Args:
        model: A `LlamaForCausalLM`, a checkpoint of stage 1.
        prompt: Encodes the sections' texts.
        head: Ids of `Prompt.head`.
        passages: What to write, in this order.
        seed: At least 0. The same seed writes the same codes on the same machine.
        settings: How codes are drawn.
        silence: Code that the voice is kept at: nobody sings, and each frame takes one forward rather than two.
        graph: Whether all shapes are kept, and each forward is launched as one CUDA graph; None does so on CUDA. On
            the CPU the same forwards run one by one, which is slower than without.
        progress: Told the fraction of all frames.

    Raises:
        UsageError: The head and one passage are longer than the model's context.
        DependencyError: The model's vocabulary is not that of YuE, or its output layer is quantized.
    """
    sampling = sampling or YuESampling()
    device = model.device
    openings = [prompt.section(passage.lyrics) for passage in sections]
    tail = [tokens.EOA, *prompt.end_of_segment]
    sizes = [len(each) + 2 * passage.num_frames + len(tail) for each, passage in zip(openings, sections, strict=True)]
    limit = model.config.max_position_embeddings
    _check_context_length(len(head), sizes, limit)
    reader = _Context(
        model,
        min(limit, len(head) + sum(sizes)),
        rows=2 if any(scale != 1 for scale in sampling.cfg_scale) else 1,
        num_new=1 if silence_code is None else 2,
        static_shapes=device.type == "cuda" if use_graph is None else use_graph,
    )
    begin, kept, written = torch.tensor(list(head), device=device), list[Tensor](), list[Tensor]()
    frames = sum(passage.num_frames for passage in sections)
    for number, (passage, size) in enumerate(zip(sections, sizes, strict=True)):
        while len(begin) + sum(map(len, kept)) + size > limit:
            del kept[0]
            reader.reset()
        opening = torch.tensor(openings[number], device=device)
        context = torch.cat([begin, *kept, opening])
        reader.prefill(context[reader.num_tokens : -1])
        scale = sampling.cfg_scale[min(number, 1)]
        picker = _TokenSampler(sampling, scale, _code_mask(context), _section_generator(seed, number, device))
        tick = _tick(progress, sum(each.num_frames for each in sections[:number]), frames)
        reader.start_section(use_cfg=scale != 1)
        codes = _generate_section(reader, picker, passage.num_frames, silence_code, tick)
        reader.end_section()
        kept.append(torch.cat([opening, codes.T.flatten() + tokens.FIRST_CODE, torch.tensor(tail, device=device)]))
        written.append(codes)
    return written


def _check_context_length(head: int, sizes: Sequence[int], limit: int) -> None:
    """Raises UsageError where a section (of `sizes` tokens) and the head do not fit into `limit` together."""
    if sizes and head + max(sizes) > limit:
        raise UsageError(
            f"tags, lyrics and reference take {head} tokens and the longest section {max(sizes)}, of {limit} that YuE "
            "can hold: shorten the lyrics or the reference, or make more and shorter sections"
        )


def _section_generator(seed: int, index: int, device: torch.device) -> torch.Generator:
    """For section `number` of a piece with this seed; unrelated to those of its neighbors and of other seeds."""
    return torch.Generator(device).manual_seed(window_seed(seed, index))


def _code_mask(context: Tensor) -> Tensor:
    """(n,) ids → (1, V): the choices that occur among them."""
    seen = torch.zeros(1, tokens.CODEBOOK_SIZE + 1, dtype=torch.bool, device=context.device)
    codes = context - tokens.FIRST_CODE
    beyond = (codes < 0) | (codes >= tokens.CODEBOOK_SIZE)
    return seen.index_fill_(1, codes.masked_fill(beyond, tokens.CODEBOOK_SIZE), True)[:, :-1].clone()


def _tick(progress: ProgressFn | None, before: int, total: int) -> Callable[[int], None]:
    def tick(frame: int) -> None:
        if progress is not None:
            progress((before + frame) / total)

    return tick


def _generate_section(
    context: _Context, sampler: _TokenSampler, num_frames: int, silence_code: int | None, tick: Callable[[int], None]
) -> Tensor:
    """(2, T). With `silence`, which the voice then has, a drawn code and the known one after it are read at once."""
    codes = torch.full((2, num_frames), silence_code or 0, device=context.device)
    known = codes[VOCALS, :1] + tokens.FIRST_CODE
    if silence_code is not None:
        sampler.mark_used(codes[VOCALS, :1])
    last = torch.tensor([tokens.XCODEC], device=context.device)
    for frame in range(num_frames):
        for slot in (VOCALS, INSTRUMENTAL) if silence_code is None else (INSTRUMENTAL,):
            choice = sampler.sample(context.step(last if silence_code is None else torch.cat([last, known])))
            codes[slot, frame] = choice[0]
            last = choice + tokens.FIRST_CODE
        tick(frame + 1)
    return codes


class _TokenSampler:
    """Draws the next choice; `seen` (1, V) says which occur in the context."""

    def __init__(self, sampling: YuESampling, cfg_scale: float, used_codes: Tensor, generator: torch.Generator) -> None:
        self._used_codes = used_codes
        self._sampling, self._cfg_scale, self._generator = sampling, cfg_scale, generator

    def sample(self, scores: Tensor) -> Tensor:
        """(R, V) → (1,)."""
        settings = self._sampling
        logits = apply_cfg(
            scores[:1], scores[-1:], self._cfg_scale
        )  # with one row and guidance 1: its log-probabilities
        choice = sample_token(
            apply_repetition_penalty(logits, self._used_codes, settings.repetition_penalty),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generator=self._generator,
        )
        self.mark_used(choice)
        return choice

    def mark_used(self, choice: Tensor) -> None:
        """From here on `choice` (1,) counts as seen."""
        self._used_codes.index_fill_(1, choice, True)


class _Context:
    """The model with its memory. Both rows are given the same new tokens; the second does not see what came before the
    section, and counts its positions from there.

    Args:
        model: The language model.
        length: Tokens that the memory holds.
        rows: R at most.
        new: q, the tokens that `read` is given.
        still: Whether shapes are kept within a section.
    """

    def __init__(self, model: PreTrainedModel, length: int, *, rows: int, num_new: int, static_shapes: bool) -> None:
        self.device, self.num_tokens = model.device, 0  # tokens in the memory
        self._head = lm_head_rows(model, tokens.FIRST_CODE, tokens.first_id(1))  # (V, D)
        self._decoder = LlamaDecoder(model, make_cache(model, rows, length))
        self._static_shapes, self._use_cfg = static_shapes, False
        self._input_ids = torch.zeros(num_new, dtype=torch.long, device=self.device)
        self._logits = torch.zeros(rows, tokens.CODEBOOK_SIZE, device=self.device)
        self._steps: dict[bool, CapturedStep] = {}  # guided or not

    def reset(self) -> None:
        self._decoder.cache.unfreeze(0)
        self.num_tokens = 0

    def prefill(self, ids: Tensor) -> None:
        """Reads (n,) ids of a prompt into the first row."""
        self._decoder.cache.rows = slice(0, 1)
        for part in ids.split(PREFILL_STEPS):
            self._decoder(part[None])
        self.num_tokens += len(ids)

    def start_section(self, *, use_cfg: bool) -> None:
        """From here on `read` adds to the section."""
        cache, self._use_cfg = self._decoder.cache, use_cfg
        cache.rows = slice(0, 2 if use_cfg else 1)
        if use_cfg:
            cache.set_padding(1, self.num_tokens)
        if self._static_shapes:
            cache.freeze()

    def end_section(self) -> None:
        """From here on `prefill` may add to the prompt."""
        self._decoder.cache.unfreeze(self.num_tokens)

    def step(self, ids: Tensor) -> Tensor:
        """(q,) ids → logits (R, V), float32, of what follows; the next call may overwrite them."""
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
    """(q,) ids, given to each row → (R, V), float32, of what follows the last."""
    rows = decoder.cache.rows.stop
    return linear(decoder(ids.expand(rows, -1)).float(), head)
