"""Stage 2 of YuE: a Llama that adds the other seven codebooks to each frame's first code, greedily.

A stem is cut into windows. In each the model reads all first codes of the window, then, frame after frame, is given the
frame's first code again and answers with seven:

    prompt SOA <stage_1> c₀ of all frames <stage_2>, then for each frame: c₀ | c₁ c₂ c₃ c₄ c₅ c₆ c₇

Windows of all stems are the rows of one batch, each token passes through the model once, and a frame's last code goes
in together with the first of the next: seven forwards a frame, on one KV cache. The tokens are those of the published
loop, which reads the whole window again for every frame.

R rows, T frames, K = 8 codebooks, q new tokens, D dimension of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from v2m.core.types import ProgressFn
from v2m.generators.yue.decoder import LlamaDecoder, hidden_dtype, linear, lm_head_rows, make_cache, row_bytes
from v2m.generators.yue.tokenizer import CODEBOOK_SIZE, NUM_CODEBOOKS, SOA, STAGE_1, STAGE_2, first_id
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.models.inference.kv_cache import aligned_length

WINDOW_FRAMES = 300  # as in training
NUM_MARKERS = 3  # of the prompt
MEMORY_SHARE = 0.8  # of CUDA's free memory: the rest is for what a forward needs besides
MAX_CPU_ROWS = 32  # more are hardly faster and take 5 GB


class _Window(NamedTuple):
    """First codes (T,) of the frames from `start` on of the stem number `stem`."""

    stem: int
    start: int
    codes: Tensor


def refine(
    model: PreTrainedModel,
    streams: Sequence[Tensor],
    *,
    window: int = WINDOW_FRAMES,
    batch_size: int | None = None,
    use_graph: bool | None = None,
    progress: ProgressFn | None = None,
) -> list[Tensor]:
    """First codes (T,) of each stem, 0–1023 → all codes (K, T) of each, int64 on the CPU.

    The model is stage 2's; stems may be of unequal lengths, and empty. It reads `window` frames at once, in batches of
    `batch_size` windows: None takes as many as CUDA's free memory has room for, elsewhere 32. `use_graph` is as in
    `stage1.generate_codes`, for the steps of a frame together.
    """
    assert window >= 1
    assert batch_size is None or batch_size >= 1
    heads = lm_head_rows(model, first_id(1), first_id(NUM_CODEBOOKS)).view(NUM_CODEBOOKS - 1, CODEBOOK_SIZE, -1)
    refined = [torch.empty(NUM_CODEBOOKS, len(stream), dtype=torch.long) for stream in streams]
    windows = [
        _Window(stem, start, stream[start : start + window].to("cpu", torch.long))
        for stem, stream in enumerate(streams)
        for start in range(0, len(stream), window)
    ]
    windows.sort(key=lambda item: -len(item.codes))  # rows that end first are the last and can be dropped
    static_shapes = use_graph if use_graph is not None else model.device.type == "cuda"
    batches = list(_even_batches(windows, batch_size or _max_rows(model, window, len(windows))))
    total, done = sum(len(batch[0].codes) for batch in batches), 0

    def frame_done() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done / total)

    for batch in batches:
        rows = _refine_batch(model, heads, [item.codes for item in batch], static_shapes, frame_done)
        for (stem, start, codes), row in zip(batch, rows, strict=True):
            refined[stem][:, start : start + len(codes)] = row[:, : len(codes)]
    return refined


def cache_length(window: int) -> int:
    """Positions of the KV cache that a window of so many frames takes: the last code is never read."""
    return aligned_length(NUM_MARKERS + window + NUM_CODEBOOKS * window - 1)


@torch.inference_mode()
def _refine_batch(
    model: PreTrainedModel,
    heads: Tensor,
    windows: Sequence[Tensor],
    static_shapes: bool,
    frame_done: Callable[[], None],
) -> Tensor:
    """Codes (R, K, T) on the CPU. The KV cache is freed on return, before the next batch reserves its own."""
    decoder = _BatchDecoder(model, heads, windows, static_shapes=static_shapes)
    for _ in decoder.run():
        frame_done()
    return decoder.codes()


class _BatchDecoder:
    """R windows (T,), longest first; shorter ones are padded at the start, so that prompts end together."""

    def __init__(
        self, model: PreTrainedModel, heads: Tensor, windows: Sequence[Tensor], *, static_shapes: bool
    ) -> None:
        self.heads, self.static_shapes = heads, static_shapes  # heads (K - 1, 1024, D)
        self.lengths = [len(window) for window in windows]
        count, device, frames = len(windows), model.device, self.lengths[0]
        first_codes = torch.zeros(count, frames, dtype=torch.long)  # beyond a window's end: any code, its row is unused
        for row, window in enumerate(windows):
            assert window.min() >= 0
            assert window.max() < CODEBOOK_SIZE
            first_codes[row, : len(window)] = window
        self.first_codes = first_codes.to(device)  # (R, T)
        self.other_codes = torch.zeros(count, frames, NUM_CODEBOOKS - 1, dtype=torch.long, device=device)
        self.last_id = torch.zeros(count, 1, dtype=torch.long, device=device)  # of the previous frame's last code
        self.frame = torch.zeros(1, dtype=torch.long, device=device)
        padding = [frames - length for length in self.lengths]
        self.cache = make_cache(model, count, cache_length(frames), padding=padding)
        self.decoder = LlamaDecoder(model, self.cache)
        self.prompt = torch.cat([_prompt_ids(window, frames) for window in windows]).to(device)

    def run(self) -> Iterator[None]:
        """Decode `other_codes`; yields after each frame, which the device may not have reached yet."""
        codes = self._forward(torch.cat([self.prompt, self._first_ids()], dim=1), 0)  # prefill
        if self.static_shapes:
            self.cache.freeze()
        self._complete_frame(codes)
        yield
        step = CapturedStep(self._next_frame, capture=self.static_shapes and self.first_codes.device.type == "cuda")
        for frame in range(1, self.lengths[0]):
            if not self.static_shapes:
                self.cache.rows = slice(0, sum(length > frame for length in self.lengths))
            step()
            yield

    def codes(self) -> Tensor:
        return torch.cat([self.first_codes[:, None], self.other_codes.transpose(1, 2)], dim=1).cpu()

    def _next_frame(self) -> None:
        """Decode one frame; all that differs between frames is on the device: a CUDA graph replays this."""
        ids = torch.cat([self.last_id[self.cache.rows], self._first_ids()], dim=1)
        self._complete_frame(self._forward(ids, 0))

    def _complete_frame(self, codes: Tensor) -> None:
        """Decode the rest of a frame whose codes (R, 1) of codebook 1 are `codes`."""
        frame_codes, rows = [codes], self.cache.rows
        for head in range(1, NUM_CODEBOOKS - 1):
            frame_codes.append(self._forward(frame_codes[-1] + first_id(head), head))
        self.last_id[rows] = frame_codes[-1] + first_id(NUM_CODEBOOKS - 1)
        self.other_codes[rows].index_copy_(1, self.frame, torch.cat(frame_codes, dim=1)[:, None])
        self.frame += 1

    def _forward(self, ids: Tensor, head: int) -> Tensor:
        """Ids (R, q) → codes (R, 1) of codebook `head` + 1: its logits alone are computed, in float32."""
        return linear(self.decoder(ids).float(), self.heads[head]).argmax(dim=-1, keepdim=True)

    def _first_ids(self) -> Tensor:
        """Ids (R, 1) of this frame's first codes."""
        return self.first_codes[self.cache.rows].index_select(1, self.frame) + first_id(0)


def _prompt_ids(window: Tensor, frames: int) -> Tensor:
    """First codes (T,) → ids (1, `frames` + 3), padded at the start."""
    ids = [SOA, STAGE_1, *(window + first_id(0)).tolist(), STAGE_2]
    return torch.tensor([[SOA] * (frames + NUM_MARKERS - len(ids)) + ids])


def _max_rows(model: PreTrainedModel, window: int, count: int) -> int:
    if model.device.type != "cuda":
        return max(min(count, MAX_CPU_ROWS), 1)
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(int(MEMORY_SHARE * free) // row_bytes(model.config, cache_length(window), hidden_dtype(model)), 1)


def _even_batches(windows: list[_Window], max_rows: int) -> Iterator[list[_Window]]:
    """Split into even batches, as few as possible: one window too many does not leave a batch of one."""
    count = -(-len(windows) // max_rows)
    for index in range(count):
        yield windows[index * len(windows) // count : (index + 1) * len(windows) // count]
