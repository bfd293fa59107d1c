"""YuE's second language model: to each frame's first code, which stage 1 wrote, the other seven, greedily.

A stem is cut into windows. In each, the model reads all first codes of the window, then frame after frame is given the
frame's first code again and answers with seven. Here windows of all stems stand side by side, each token passes through
the model once, and the last code of a frame goes in together with the first of the next: 7 forwards a frame, on one
memory. The tokens are those that the published loop finds, which reads the whole window anew for every frame.

R windows side by side (rows), T frames, K = 8 codebooks, D width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from v2m.core.types import ProgressFn
from v2m.generators.yue.decoder import LlamaDecoder, hidden_dtype, linear, lm_head_rows, make_cache, row_bytes
from v2m.generators.yue.tokens import CODEBOOK_SIZE, NUM_CODEBOOKS, SOA, STAGE_1, STAGE_2, first_id
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.kv_cache import aligned_length

WINDOW_FRAMES = 300  # frames, as in training
NUM_MARKERS = 3  # tokens of the prompt that are no codes
MEMORY_SHARE = 0.8  # of CUDA's free memory: the rest is for what a forward needs besides
MAX_CPU_ROWS = 32  # windows side by side elsewhere: more are hardly faster and take 5 GB


def refine(
    model: PreTrainedModel,
    streams: Sequence[Tensor],
    *,
    window: int = WINDOW_FRAMES,
    batch_size: int | None = None,
    use_graph: bool | None = None,
    progress: ProgressFn | None = None,
) -> list[Tensor]:
    """(T,) first codes 0–1023 of each stem → (8, T) codes of each on the CPU, int64, the first codes on top.

    Args:
        model: The stage 2 `LlamaForCausalLM`.
        streams: Stems; they may be of unequal lengths, and empty.
        window: Frames that the model sees at once.
        batch: Windows side by side; None takes as many as CUDA's free memory has room for, elsewhere 32.
        graph: Whether all shapes are kept, and each frame is launched as one CUDA graph; None does so on CUDA. On the
            CPU the same steps run one by one, which is slower than without.

    Raises:
        DependencyError: The model's vocabulary is not that of YuE, or its output layer is quantized.
    """
    assert window >= 1
    assert batch_size is None or batch_size >= 1
    heads = lm_head_rows(model, first_id(1), first_id(NUM_CODEBOOKS)).view(NUM_CODEBOOKS - 1, CODEBOOK_SIZE, -1)
    found = [torch.empty(NUM_CODEBOOKS, len(stream), dtype=torch.long) for stream in streams]
    pieces = [
        (stem, begin, stream[begin : begin + window].to("cpu", torch.long))
        for stem, stream in enumerate(streams)
        for begin in range(0, len(stream), window)
    ]
    pieces.sort(key=lambda piece: -len(piece[2]))  # rows that end first stand last and can be dropped
    still = use_graph if use_graph is not None else model.device.type == "cuda"
    batches = list(_batches(pieces, batch_size or _max_rows(model, window, len(pieces))))
    total, done = sum(len(rows[0][2]) for rows in batches), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done / total)

    for rows in batches:
        refined = _refine_batch(model, heads, [codes for *_, codes in rows], still, tick)
        for (stem, begin, codes), row in zip(rows, refined, strict=True):
            found[stem][:, begin : begin + len(codes)] = row[:, : len(codes)]
    return found


def cache_length(window: int) -> int:
    """Positions of the memory that a window of so many frames takes: the last code is never read."""
    return aligned_length(NUM_MARKERS + window + NUM_CODEBOOKS * window - 1)


@torch.inference_mode()
def _refine_batch(
    model: PreTrainedModel, heads: Tensor, windows: Sequence[Tensor], static_shapes: bool, tick: Callable[[], None]
) -> Tensor:
    """(R, K, T) on the CPU. The memory of these windows is free before that of the next is laid out."""
    frames = _FrameDecoder(model, heads, windows, static_shapes=static_shapes)
    for _ in frames.run():
        tick()
    return frames.codes()


class _FrameDecoder:
    """R windows (T,) side by side, longest first; shorter ones are padded at the start of their prompt."""

    def __init__(
        self, model: PreTrainedModel, heads: Tensor, windows: Sequence[Tensor], *, static_shapes: bool
    ) -> None:
        self.heads, self.static_shapes = heads, static_shapes
        self.lengths = [len(window) for window in windows]
        self.max_length = self.lengths[0]
        device, count = model.device, len(windows)
        given = torch.zeros(
            count, self.max_length, dtype=torch.long
        )  # beyond a window's end: any code, never looked at
        for row, window in enumerate(windows):
            assert window.min() >= 0
            assert window.max() < CODEBOOK_SIZE
            given[row, : len(window)] = window
        self.first_codes = given.to(device)  # (R, T)
        self.other_codes = torch.zeros(count, self.max_length, NUM_CODEBOOKS - 1, dtype=torch.long, device=device)
        self.last_token = torch.zeros(
            count, 1, dtype=torch.long, device=device
        )  # token of the previous frame's last code
        self.frame = torch.zeros(1, dtype=torch.long, device=device)
        pad = [self.max_length - size for size in self.lengths]
        self.cache = make_cache(model, count, cache_length(self.max_length), padding=pad)
        self.decoder = LlamaDecoder(model, self.cache)
        self.prompt = torch.cat([_prompt(window, self.max_length) for window in windows]).to(device)

    def run(self) -> Iterator[None]:
        """Writes `others`; yields after each frame (which the device may not have reached yet)."""
        codes = self._forward(torch.cat([self.prompt, self._first_token()], dim=1), 0)
        if self.static_shapes:
            self.cache.freeze()
        self._complete_frame(codes)
        yield
        step = CapturedStep(self._next, capture=self.static_shapes and self.first_codes.device.type == "cuda")
        for frame in range(1, self.max_length):
            if not self.static_shapes:
                self._keep_rows(sum(size > frame for size in self.lengths))
            step()
            yield

    def codes(self) -> Tensor:
        """(R, K, T) on the CPU."""
        return torch.cat([self.first_codes[:, None], self.other_codes.transpose(1, 2)], dim=1).cpu()

    def _next(self) -> None:
        """One frame: every number that differs from the frame before is on the device."""
        rows = self.cache.rows
        self._complete_frame(self._forward(torch.cat([self.last_token[rows], self._first_token()], dim=1), 0))

    def _complete_frame(self, codes: Tensor) -> None:
        """From the (R, 1) codes of slot 0 on, the rest of the frame."""
        found = [codes]
        for slot in range(1, NUM_CODEBOOKS - 1):
            found.append(self._forward(found[-1] + first_id(slot), slot))
        rows = self.cache.rows
        self.last_token[rows] = found[-1] + first_id(NUM_CODEBOOKS - 1)
        self.other_codes[rows].index_copy_(1, self.frame, torch.cat(found, dim=1)[:, None])
        self.frame += 1

    def _forward(self, tokens: Tensor, slot: int) -> Tensor:
        """(R, q) tokens → (R, 1) codes of codebook `slot` + 1: its logits alone are computed, in float32."""
        return linear(self.decoder(tokens).float(), self.heads[slot]).argmax(dim=-1, keepdim=True)

    def _first_token(self) -> Tensor:
        """(R, 1) tokens of this frame's first codes."""
        return self.first_codes[self.cache.rows].index_select(1, self.frame) + first_id(0)

    def _keep_rows(self, count: int) -> None:
        self.cache.rows = slice(0, count)


def _prompt(window: Tensor, longest: int) -> Tensor:
    """(T,) first codes → (1, longest + 3) tokens, which end side by side."""
    tokens = [SOA, STAGE_1, *(window + first_id(0)).tolist(), STAGE_2]
    return torch.tensor([[SOA] * (longest + NUM_MARKERS - len(tokens)) + tokens])


def _max_rows(model: PreTrainedModel, window: int, count: int) -> int:
    if model.device.type != "cuda":
        return max(min(count, MAX_CPU_ROWS), 1)
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(int(MEMORY_SHARE * free) // row_bytes(model.config, cache_length(window), hidden_dtype(model)), 1)


def _batches(pieces: list[tuple[int, int, Tensor]], max_rows: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    """Even batches, as few as possible: one extra row does not leave a batch of one."""
    count = -(-len(pieces) // max_rows)
    for index in range(count):
        yield pieces[index * len(pieces) // count : (index + 1) * len(pieces) // count]
