"""YuE's second language model: to each frame's first code, which stage 1 wrote, the other seven, greedily.

A stem is cut into windows. In each, the model reads all first codes of the window, then frame after frame is given the
frame's first code again and answers with seven. Here windows of all stems stand side by side, each token passes through
the model once, and the last code of a frame goes in together with the first of the next: 7 forwards a frame, on one
memory. The tokens are those that the published loop finds, which reads the whole window anew for every frame.

R windows side by side (rows), T frames, K = 8 codebooks, D width of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from v2m.errors import MissingError
from v2m.generators.yue.cache import Slab, row_bytes
from v2m.generators.yue.decoder import Decoder
from v2m.generators.yue.graph import Repeated
from v2m.generators.yue.tokens import CODEBOOKS, CODES, SOA, STAGE_1, STAGE_2, first_id
from v2m.types import Progress

WINDOW = 300  # frames, as in training
MARKS = 3  # tokens of the prompt that are no codes
ALIGNED = 8  # a mask whose rows are no multiple of this long is copied by CUDA's kernels in each layer
SHARE = 0.8  # of the free memory: the rest is for what a forward needs besides


def refine(
    model: PreTrainedModel,
    streams: Sequence[Tensor],
    *,
    window: int = WINDOW,
    batch: int | None = None,
    graph: bool | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """(T,) first codes 0–1023 of each stem → (8, T) codes of each on the CPU, int64, the first codes on top.

    Args:
        model: The stage 2 `LlamaForCausalLM`.
        streams: Stems; they may be of unequal lengths, and empty.
        window: Frames that the model sees at once.
        batch: Windows side by side; None takes all, on CUDA as many as its free memory has room for.
        graph: Whether all shapes are kept, and each frame is launched as one CUDA graph; None does so on CUDA. On the
            CPU the same steps run one by one, which is slower than without.

    Raises:
        MissingError: The model's vocabulary is not that of YuE.
    """
    assert window >= 1
    assert batch is None or batch >= 1
    heads = _heads(model)
    found = [torch.empty(CODEBOOKS, len(stream), dtype=torch.long) for stream in streams]
    pieces = [
        (stem, begin, stream[begin : begin + window].to("cpu", torch.long))
        for stem, stream in enumerate(streams)
        for begin in range(0, len(stream), window)
    ]
    pieces.sort(key=lambda piece: -len(piece[2]))  # rows that end first stand last and can be dropped
    still = graph if graph is not None else model.device.type == "cuda"
    batches = list(_batches(pieces, batch or _room(model, window, len(pieces))))
    total, done = sum(len(rows[0][2]) for rows in batches), 0
    with torch.inference_mode():
        for rows in batches:
            frames = _Frames(model, heads, [codes for *_, codes in rows], still=still)
            for _ in frames.run():
                done += 1
                if progress is not None:
                    progress(done / total)
            for (stem, begin, codes), row in zip(rows, frames.codes(), strict=True):
                found[stem][:, begin : begin + len(codes)] = row[:, : len(codes)]
    return found


def length(window: int) -> int:
    """Positions of the memory that a window of so many frames takes: the last code is never read."""
    needed = MARKS + window + CODEBOOKS * window - 1
    return -(-needed // ALIGNED) * ALIGNED


class _Frames:
    """R windows (T,) side by side, longest first; shorter ones are padded at the start of their prompt."""

    def __init__(self, model: PreTrainedModel, heads: Tensor, windows: Sequence[Tensor], *, still: bool) -> None:
        self.heads, self.still = heads, still
        self.lengths = [len(window) for window in windows]
        self.longest = self.lengths[0]
        device, count = model.device, len(windows)
        given = torch.zeros(count, self.longest, dtype=torch.long)  # beyond a window's end: any code, never looked at
        for row, window in enumerate(windows):
            assert window.min() >= 0
            assert window.max() < CODES
            given[row, : len(window)] = window
        self.first = given.to(device)  # (R, T)
        self.others = torch.zeros(count, self.longest, CODEBOOKS - 1, dtype=torch.long, device=device)
        self.last = torch.zeros(count, 1, dtype=torch.long, device=device)  # token of the previous frame's last code
        self.frame = torch.zeros(1, dtype=torch.long, device=device)
        pad = [self.longest - size for size in self.lengths]
        self.slab = Slab(model.config, count, length(self.longest), device, _dtype(model), pad=pad)
        self.decoder = Decoder(model, self.slab)
        self.prompt = torch.cat([_prompt(window, self.longest) for window in windows]).to(device)

    def run(self) -> Iterator[None]:
        """Writes `others`; yields after each frame (which the device may not have reached yet)."""
        codes = self._forward(torch.cat([self.prompt, self._given()], dim=1), 0)
        if self.still:
            self.slab.fix()
        self._finish(codes)
        yield
        step = Repeated(self._next, capture=self.still and self.first.device.type == "cuda")
        for frame in range(1, self.longest):
            if not self.still:
                self._narrow(sum(size > frame for size in self.lengths))
            step()
            yield

    def codes(self) -> Tensor:
        """(R, K, T) on the CPU."""
        return torch.cat([self.first[:, None], self.others.transpose(1, 2)], dim=1).cpu()

    def _next(self) -> None:
        """One frame: every number that differs from the frame before is on the device."""
        rows = self.slab.rows
        self._finish(self._forward(torch.cat([self.last[rows], self._given()], dim=1), 0))

    def _finish(self, codes: Tensor) -> None:
        """From the (R, 1) codes of slot 0 on, the rest of the frame."""
        found = [codes]
        for slot in range(1, CODEBOOKS - 1):
            found.append(self._forward(found[-1] + first_id(slot), slot))
        rows = self.slab.rows
        self.last[rows] = found[-1] + first_id(CODEBOOKS - 1)
        self.others[rows].index_copy_(1, self.frame, torch.cat(found, dim=1)[:, None])
        self.frame += 1

    def _forward(self, tokens: Tensor, slot: int) -> Tensor:
        """(R, q) tokens → (R, 1) codes of codebook `slot` + 1: its logits alone are computed, in float32."""
        return functional.linear(self.decoder(tokens).float(), self.heads[slot]).argmax(dim=-1, keepdim=True)

    def _given(self) -> Tensor:
        """(R, 1) tokens of this frame's first codes."""
        return self.first[self.slab.rows].index_select(1, self.frame) + first_id(0)

    def _narrow(self, count: int) -> None:
        self.slab.rows = slice(0, count)


def _prompt(window: Tensor, longest: int) -> Tensor:
    """(T,) first codes → (1, longest + 3) tokens, which end side by side."""
    tokens = [SOA, STAGE_1, *(window + first_id(0)).tolist(), STAGE_2]
    return torch.tensor([[SOA] * (longest + MARKS - len(tokens)) + tokens])


def _heads(model: PreTrainedModel) -> Tensor:
    """(7, 1024, D) float32: the output rows of codebooks 1 to 7."""
    weight = model.get_parameter("lm_head.weight")
    begin, end = first_id(1), first_id(CODEBOOKS)
    if weight.shape[0] < end:
        raise MissingError(f"these are not the weights of YuE's stage 2: {weight.shape[0]} tokens, not {end} or more")
    with torch.inference_mode():
        return weight[begin:end].float().view(CODEBOOKS - 1, CODES, -1)


def _dtype(model: PreTrainedModel) -> torch.dtype:
    """What the layers pass on, whatever the weights are stored in."""
    return model.get_parameter("model.embed_tokens.weight").dtype


def _room(model: PreTrainedModel, window: int, count: int) -> int:
    if model.device.type != "cuda":
        return max(count, 1)
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(int(SHARE * free) // row_bytes(model.config, length(window), _dtype(model)), 1)


def _batches(pieces: list[tuple[int, int, Tensor]], most: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    """As few as can be, and even: one row too many does not leave a batch of one."""
    count = -(-len(pieces) // most)
    for index in range(count):
        yield pieces[index * len(pieces) // count : (index + 1) * len(pieces) // count]
