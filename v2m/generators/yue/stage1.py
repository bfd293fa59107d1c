"""Stage 1 of YuE: a Llama that writes codebook 0 of the voice and of the rest by turns, one section after the other.

A section's place in the context: [start_of_segment] text SOA <xcodec> v₀ r₀ v₁ r₁ … EOA [end_of_segment], where v are
codes of the voice and r of the rest. R rows: the sequence itself and, where it is guided, one that starts at <xcodec>.
q new tokens, n tokens of a context, T frames (50 a second), V = 1024 choices: the codes of codebook 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from v2m.core.errors import UsageError
from v2m.core.types import ProgressFn
from v2m.generators.yue import tokens
from v2m.generators.yue.decoder import Decoder, output_rows, passed_on, product
from v2m.generators.yue.kv_cache import Slab, aligned
from v2m.generators.yue.lyrics import Part
from v2m.generators.yue.options import Settings
from v2m.generators.yue.prompt import Prompt
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.sampling import apply_cfg, apply_repetition_penalty, sample_token

VOICE, REST = 0, 1
TOGETHER = 256  # tokens of a prompt read at once: what their attention needs stays small however long the prompt is


@dataclass(frozen=True)
class Passage:
    """A section to write, `frames` long."""

    part: Part
    frames: int


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    prompt: Prompt,
    head: Sequence[int],
    passages: Sequence[Passage],
    *,
    seed: int,
    settings: Settings | None = None,
    silence: int | None = None,
    graph: bool | None = None,
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
        MissingError: The model's vocabulary is not that of YuE, or its output layer is quantized.
    """
    settings = settings or Settings()
    device = model.device
    openings = [prompt.section(passage.part) for passage in passages]
    tail = [tokens.EOA, *prompt.end_of_segment]
    sizes = [len(each) + 2 * passage.frames + len(tail) for each, passage in zip(openings, passages, strict=True)]
    limit = model.config.max_position_embeddings
    _check(len(head), sizes, limit)
    reader = _Reader(
        model,
        min(limit, len(head) + sum(sizes)),
        rows=2 if any(scale != 1 for scale in settings.guidance) else 1,
        new=1 if silence is None else 2,
        still=device.type == "cuda" if graph is None else graph,
    )
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
        picker = _Picker(settings, scale, _seen(context), _generator(seed, number, device))
        tick = _tick(progress, sum(each.frames for each in passages[:number]), frames)
        reader.start_section(guided=scale != 1)
        codes = _section(reader, picker, passage.frames, silence, tick)
        reader.end_section()
        kept.append(torch.cat([opening, codes.T.flatten() + tokens.FIRST_CODE, torch.tensor(tail, device=device)]))
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
    """For section `number` of a piece with this seed; unrelated to those of its neighbors and of other seeds."""
    state = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)  # which takes 63 bits everywhere


def _seen(context: Tensor) -> Tensor:
    """(n,) ids → (1, V): the choices that occur among them."""
    seen = torch.zeros(1, tokens.CODES + 1, dtype=torch.bool, device=context.device)
    codes = context - tokens.FIRST_CODE
    beyond = (codes < 0) | (codes >= tokens.CODES)
    return seen.index_fill_(1, codes.masked_fill(beyond, tokens.CODES), True)[:, :-1].clone()


def _tick(progress: ProgressFn | None, before: int, total: int) -> Callable[[int], None]:
    def tick(frame: int) -> None:
        if progress is not None:
            progress((before + frame) / total)

    return tick


def _section(reader: _Reader, picker: _Picker, frames: int, silence: int | None, tick: Callable[[int], None]) -> Tensor:
    """(2, T). With `silence`, which the voice then has, a drawn code and the known one after it are read at once."""
    codes = torch.full((2, frames), silence or 0, device=reader.device)
    known = codes[VOICE, :1] + tokens.FIRST_CODE
    if silence is not None:
        picker.mark(codes[VOICE, :1])
    last = torch.tensor([tokens.XCODEC], device=reader.device)
    for frame in range(frames):
        for slot in (VOICE, REST) if silence is None else (REST,):
            choice = picker.pick(reader.read(last if silence is None else torch.cat([last, known])))
            codes[slot, frame] = choice[0]
            last = choice + tokens.FIRST_CODE
        tick(frame + 1)
    return codes


class _Picker:
    """Draws the next choice; `seen` (1, V) says which occur in the context."""

    def __init__(self, settings: Settings, guidance: float, seen: Tensor, generator: torch.Generator) -> None:
        self._seen = seen
        self._settings, self._guidance, self._generator = settings, guidance, generator

    def pick(self, scores: Tensor) -> Tensor:
        """(R, V) → (1,)."""
        settings = self._settings
        logits = apply_cfg(
            scores[:1], scores[-1:], self._guidance
        )  # with one row and guidance 1: its log-probabilities
        choice = sample_token(
            apply_repetition_penalty(logits, self._seen, settings.repetition_penalty),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generator=self._generator,
        )
        self.mark(choice)
        return choice

    def mark(self, choice: Tensor) -> None:
        """From here on `choice` (1,) counts as seen."""
        self._seen.index_fill_(1, choice, True)


class _Reader:
    """The model with its memory. Both rows are given the same new tokens; the second does not see what came before the
    section, and counts its positions from there.

    Args:
        model: The language model.
        length: Tokens that the memory holds.
        rows: R at most.
        new: q, the tokens that `read` is given.
        still: Whether shapes are kept within a section.
    """

    def __init__(self, model: PreTrainedModel, length: int, *, rows: int, new: int, still: bool) -> None:
        self.device, self.filled = model.device, 0  # tokens in the memory
        self._out = output_rows(model, tokens.FIRST_CODE, tokens.first_id(1))  # (V, D)
        self._decoder = Decoder(model, Slab(model.config, rows, aligned(length), self.device, passed_on(model)))
        self._still, self._guided = still, False
        self._given = torch.zeros(new, dtype=torch.long, device=self.device)
        self._scores = torch.zeros(rows, tokens.CODES, device=self.device)
        self._steps: dict[bool, CapturedStep] = {}  # guided or not

    def forget(self) -> None:
        self._decoder.slab.grow(0)
        self.filled = 0

    def prefill(self, ids: Tensor) -> None:
        """Reads (n,) ids of a prompt into the first row."""
        self._decoder.slab.rows = slice(0, 1)
        for part in ids.split(TOGETHER):
            self._decoder(part[None])
        self.filled += len(ids)

    def start_section(self, *, guided: bool) -> None:
        """From here on `read` adds to the section."""
        slab, self._guided = self._decoder.slab, guided
        slab.rows = slice(0, 2 if guided else 1)
        if guided:
            slab.hide(1, self.filled)
        if self._still:
            slab.fix()

    def end_section(self) -> None:
        """From here on `prefill` may add to the prompt."""
        self._decoder.slab.grow(self.filled)

    def read(self, ids: Tensor) -> Tensor:
        """(q,) ids → logits (R, V), float32, of what follows; the next call may overwrite them."""
        self.filled += len(ids)
        assert self.filled <= self._decoder.slab.length
        rows = self._decoder.slab.rows
        if not self._still:
            return _logits(self._decoder, self._out, ids)
        self._given.copy_(ids)
        if self._guided not in self._steps:
            step = partial(_step, self._decoder, self._out, self._given, self._scores[rows])
            self._steps[self._guided] = CapturedStep(step, capture=self.device.type == "cuda")
        self._steps[self._guided]()
        return self._scores[rows]


def _step(decoder: Decoder, out: Tensor, given: Tensor, scores: Tensor) -> None:
    """What a CUDA graph repeats: no method of the reader, which would keep its memory alive by a circle."""
    scores.copy_(_logits(decoder, out, given))


def _logits(decoder: Decoder, out: Tensor, ids: Tensor) -> Tensor:
    """(q,) ids, given to each row → (R, V), float32, of what follows the last."""
    rows = decoder.slab.rows.stop
    return product(decoder(ids.expand(rows, -1)).float(), out)
