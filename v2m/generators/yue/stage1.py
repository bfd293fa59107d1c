"""Stage 1 of YuE: a Llama that writes codebook 0 of the voice and of the rest by turns, one section after the other.

A section's place in the context: [start_of_segment] text SOA <xcodec> v₀ r₀ v₁ r₁ … EOA [end_of_segment], where v are
codes of the voice and r of the rest. R rows: the sequence itself and, where it is guided, one that starts at <xcodec>.
q new tokens, n tokens of a context, T frames (50 a second), V = 1025 choices: the codes of codebook 0 in their order,
then the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from v2m.errors import UsageError
from v2m.generators.yue import attention, tokens
from v2m.generators.yue.cache import Slab
from v2m.generators.yue.lyrics import Part
from v2m.generators.yue.prompt import Prompt
from v2m.generators.yue.settings import Settings
from v2m.models.sampling import guide, penalise, sample
from v2m.types import Progress

VOICE, REST = 0, 1
END = tokens.CODES  # the choice that stands for EOA


@dataclass(frozen=True)
class Passage:
    """A section to write: `frames` long, or shorter where the model ends it after the fraction `may_end` of them."""

    part: Part
    frames: int
    may_end: float = 1.0

    @property
    def earliest(self) -> int:
        """Frames before which the model cannot end."""
        return max(1, math.ceil(self.may_end * self.frames))


@torch.inference_mode()
def write(
    model: LlamaForCausalLM,
    prompt: Prompt,
    head: Sequence[int],
    passages: Sequence[Passage],
    *,
    seed: int,
    settings: Settings | None = None,
    silence: int | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Codebook 0 of each passage, (2, T) on the model's device: the voice, then the rest.

    The published script draws from the whole vocabulary with text blocked; here the choice is among the codes of
    codebook 0 and the end alone. Log-probabilities then count those only, which shifts them by the mass on all other
    tokens: guidance, top-k and top-p do not see a shift, the repetition penalty does, by as little as that mass is.

    Where the context would grow too long, the oldest sections are forgotten; `head` never is. A passage draws from a
    generator of its own, so that it does not matter how many draws the one before it took.

    Args:
        model: A checkpoint of stage 1.
        prompt: Encodes the sections' texts.
        head: Ids of `Prompt.head`.
        passages: What to write, in this order.
        seed: At least 0. The same seed writes the same codes on the same machine.
        settings: How codes are drawn.
        silence: Code that the voice is kept at: nobody sings, and each frame takes one forward rather than two.
        progress: Told the fraction of all frames.

    Raises:
        UsageError: The head and one passage are longer than the model's context.
    """
    settings = settings or Settings()
    device = model.model.embed_tokens.weight.device
    openings = [prompt.section(passage.part) for passage in passages]
    tail = [tokens.EOA, *prompt.end_of_segment]
    sizes = [len(each) + 2 * passage.frames + len(tail) for each, passage in zip(openings, passages, strict=True)]
    limit = model.config.max_position_embeddings
    _check(len(head), sizes, limit)
    guided = any(scale != 1 for scale in settings.guidance)
    reader = _Reader(model, min(limit, len(head) + sum(sizes)), 2 if guided else 1)
    begin, kept, written = torch.tensor(list(head), device=device), list[Tensor](), list[Tensor]()
    frames = sum(passage.frames for passage in passages)
    for number, (passage, size) in enumerate(zip(passages, sizes, strict=True)):
        while len(begin) + sum(map(len, kept)) + size > limit:
            del kept[0]
            reader.forget()
        opening = torch.tensor(openings[number], device=device)
        context = torch.cat([begin, *kept, opening])
        reader.prefill(context[reader.filled : -1])
        scale = settings.guidance[min(number, 1)]
        reader.start_section(guided=scale != 1)
        picker = _Picker(settings, scale, _seen(context), _generator(seed, number, device))
        before = sum(each.frames for each in passages[:number])
        tick = _tick(progress, before, frames)
        if silence is None:
            codes = _sung(reader, picker, passage, tick)
        else:
            codes = _unsung(reader, picker, passage, silence, tick)
        ids = codes.T.reshape(-1) + tokens.FIRST_CODE
        kept.append(torch.cat([opening, ids, torch.tensor(tail, device=device)]))
        written.append(codes)
    return written


def _check(head: int, sizes: Sequence[int], limit: int) -> None:
    """Raises UsageError where a section (of `sizes` tokens) and the head do not fit into `limit` together."""
    if sizes and head + max(sizes) > limit:
        raise UsageError(
            f"tags, lyrics and reference take {head} tokens and the longest section {max(sizes)}, of {limit} that YuE "
            "can hold: shorten the lyrics or the reference, or make more and shorter sections"
        )


def _generator(seed: int, number: int, device: torch.device) -> torch.Generator:
    """For section `number` of a piece with this seed; unrelated to those of its neighbours and of other seeds."""
    state = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)  # which takes 63 bits everywhere


def _seen(context: Tensor) -> Tensor:
    """(n,) ids → (1, V): the choices that occur among them."""
    seen = torch.zeros(1, END + 1, dtype=torch.bool, device=context.device)
    codes = context - tokens.FIRST_CODE
    seen[0, codes[(codes >= 0) & (codes < tokens.CODES)]] = True
    seen[0, END] = (context == tokens.EOA).any()
    return seen


def _tick(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    def tick(frame: int) -> None:
        if progress is not None:
            progress((before + frame) / total)

    return tick


def _sung(reader: _Reader, picker: _Picker, passage: Passage, tick: Callable[[int], None]) -> Tensor:
    """(2, T): every code is drawn; the model may end between two frames."""
    codes = torch.empty(2, passage.frames, dtype=torch.long, device=reader.device)
    last = torch.tensor([tokens.XCODEC], device=reader.device)
    for frame in range(passage.frames):
        for slot in (VOICE, REST):
            may_end = slot == VOICE and frame >= passage.earliest
            choice = picker.pick(reader.read(last)[:, -1], may_end=may_end)
            if may_end and bool(choice == END):
                return codes[:, :frame]
            picker.seen[:, choice] = True
            codes[slot, frame] = choice[0]
            last = choice + tokens.FIRST_CODE
        tick(frame + 1)
    return codes


def _unsung(reader: _Reader, picker: _Picker, passage: Passage, silence: int, tick: Callable[[int], None]) -> Tensor:
    """(2, T) with `silence` in the voice: a drawn code and the known one after it are read in one forward."""
    codes = torch.full((2, passage.frames), silence, device=reader.device)
    known = torch.tensor([silence + tokens.FIRST_CODE], device=reader.device)
    last = torch.tensor([tokens.XCODEC], device=reader.device)
    picker.seen[:, silence] = True
    for frame in range(passage.frames):
        scores = reader.read(torch.cat([last, known]))
        if frame >= passage.earliest and bool(picker.pick(scores[:, 0], may_end=True) == END):
            reader.filled -= 1  # the silence that was read does not come
            return codes[:, :frame]
        choice = picker.pick(scores[:, 1], may_end=False)
        picker.seen[:, choice] = True
        codes[REST, frame] = choice[0]
        last = choice + tokens.FIRST_CODE
        tick(frame + 1)
    return codes


class _Picker:
    """Draws the next choice; `seen` (1, V) says which occur in the context."""

    def __init__(self, settings: Settings, guidance: float, seen: Tensor, generator: torch.Generator) -> None:
        self.seen = seen
        self._settings, self._guidance, self._generator = settings, guidance, generator

    def pick(self, scores: Tensor, *, may_end: bool) -> Tensor:
        """(R, V) → (1,)."""
        settings = self._settings
        logits = guide(scores[:1], scores[-1:], self._guidance)  # with one row and guidance 1: its log-probabilities
        logits = penalise(logits, self.seen, settings.repetition_penalty)
        if not may_end:
            logits[:, END] = -torch.inf
        return sample(
            logits,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generator=self._generator,
        )


class _Reader:
    """The model with its memory. Both rows are given the same new tokens; the second does not see what came before the
    section, and counts its positions from there.

    Args:
        model: The language model.
        length: Tokens that the memory holds.
        rows: R at most.
    """

    def __init__(self, model: LlamaForCausalLM, length: int, rows: int) -> None:
        embeddings, out = model.model.embed_tokens.weight, model.lm_head.weight
        self.device, dtype = embeddings.device, embeddings.dtype
        attention.use(model)
        self._model = model.model
        self._out = torch.cat([out[tokens.FIRST_CODE : tokens.first_id(1)], out[tokens.EOA : tokens.EOA + 1]])  # (V, D)
        self._slab = Slab(model.config, rows, length, self.device, dtype)
        self._hidden = torch.finfo(dtype).min
        self._mask = torch.zeros(rows, 1, 1, length, device=self.device, dtype=dtype)
        self._starts = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        self._guided = False

    @property
    def filled(self) -> int:
        """Tokens in the memory."""
        return self._slab.filled

    @filled.setter
    def filled(self, count: int) -> None:
        self._slab.filled = count

    def forget(self) -> None:
        self.filled = 0

    def prefill(self, ids: Tensor) -> None:
        """Reads (n,) ids of a prompt into the first row."""
        self._slab.rows = slice(0, 1)
        self._forward(ids[None], torch.arange(self.filled, self.filled + len(ids), device=self.device)[None], None)

    def start_section(self, *, guided: bool) -> None:
        """From here on `read` adds to the section."""
        self._guided = guided
        self._slab.rows = slice(0, 2 if guided else 1)
        self._mask[1:, ..., : self.filled] = self._hidden
        self._mask[1:, ..., self.filled :] = 0
        self._starts[1:] = self.filled

    def read(self, ids: Tensor) -> Tensor:
        """(q,) ids → logits (R, q, V), float32, of what follows each."""
        q, rows = len(ids), 2 if self._guided else 1
        end = self.filled + q
        positions = torch.arange(self.filled, end, device=self.device) - self._starts[:rows]
        mask = None
        if self._guided:
            mask = self._mask[..., :end].expand(rows, 1, q, end)
            if q > 1:
                mask = mask.clone()
                mask[..., -q:] += torch.full_like(mask[0, 0, :, -q:], self._hidden).triu(1)
        hidden = self._forward(ids.expand(rows, q), positions, mask)
        return (hidden @ self._out.T).float()

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        out = self._model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self._slab, use_cache=True
        )
        self._slab.filled += ids.shape[1]
        return out.last_hidden_state
