"""YuE stage 2 against the published loop on the same Llama: `uv run python -m bench.yue_stage2`.

The published loop calls `generate()` once a frame with all that there is of the window so far; `slow` does just that,
on a random Llama in the published format, and `v2m.generators.yue.stage2.refine` must find the same tokens. Both take
one batch as published, four windows, once; the fast way alone takes one window too, and several. Times are seconds of
the processor on one thread: other work on the machine counts less. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from tests.fixtures.tiny import yue_lm
from v2m.generators.yue.stage2 import refine
from v2m.generators.yue.tokens import CODEBOOK_SIZE, EOA, FRAME_RATE, NUM_CODEBOOKS, SOA, STAGE_1, STAGE_2, first_id

Result = TypeVar("Result")


class _Slots(LogitsProcessor):
    """Leaves to each token its own codebook's entries. `begin`: tokens before the first that is chosen."""

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        low = first_id(1 + input_ids.shape[1] - self.begin)
        allowed = torch.full_like(scores, -torch.inf)
        allowed[:, low : low + CODEBOOK_SIZE] = scores[:, low : low + CODEBOOK_SIZE]
        return allowed


def slow(model: Any, stream: Tensor, window: int = 300, batch: int = 4) -> Tensor:
    """(T,) → (8, T) as published: whole windows `batch` at a time, what is left over by itself."""
    whole = len(stream) // window * window
    windows = stream[:whole].view(-1, window)
    parts = [_windows(model, windows[k : k + batch]) for k in range(0, len(windows), batch)]
    if whole < len(stream):
        parts.append(_windows(model, stream[None, whole:]))
    return torch.cat([part.permute(2, 0, 1).flatten(1) for part in parts], dim=1)


def _windows(model: Any, windows: Tensor) -> Tensor:
    """(R, T) → (R, T, 8)."""
    first = windows + first_id(0)
    column = torch.ones_like(first[:, :1])
    ids = torch.cat([SOA * column, STAGE_1 * column, first, STAGE_2 * column], dim=1)
    begin = ids.shape[1]
    for frame in range(windows.shape[1]):
        ids = torch.cat([ids, first[:, frame : frame + 1]], dim=1)
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=NUM_CODEBOOKS - 1,
            max_new_tokens=NUM_CODEBOOKS - 1,
            do_sample=False,
            eos_token_id=EOA,
            pad_token_id=EOA,
            logits_processor=LogitsProcessorList([_Slots(ids.shape[1])]),
        )
        assert isinstance(found, Tensor)
        ids = found
    offsets = torch.tensor([first_id(book) for book in range(NUM_CODEBOOKS)])
    return ids[:, begin:].view(len(windows), -1, NUM_CODEBOOKS) - offsets


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=300, help="of a window (50 are a second)")
    parser.add_argument("--windows", type=int, default=5, help="taken both ways, side by side; 5 are 30 s of a stem")
    parser.add_argument("--rows", type=int, default=10, help="windows at once, the fast way alone; 0: none")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=8, help="eight share a key, as published of stage 1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        dims = {"hidden": given.hidden, "layers": given.layers, "heads": given.heads, "kv_heads": given.heads // 8}
        made = yue_lm.write(Path(folder), yue_lm.STAGE_2_VOCAB, ffn=given.hidden * 11 // 4, **dims)
        figures = measure(LlamaForCausalLM.from_pretrained(made), given.frames, given.windows, given.rows)
    print(json.dumps(figures))
    sys.exit(0 if figures["identical"] else 1)


def measure(model: Any, frames: int, windows: int, rows: int) -> dict[str, float | bool]:
    """Prints the table; returns the last line's figures."""
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    random = torch.Generator().manual_seed(1)
    stream = torch.randint(CODEBOOK_SIZE, (frames * max(windows, rows),), generator=random)
    compared = stream[: frames * windows]

    def fast(given: Tensor) -> Tensor:
        return refine(model, [given], window=frames)[0]

    fast(stream[:3])  # the first call pays for the libraries' start
    print(f"{millions:.1f} M parameters, one thread, windows of {frames} frames")
    print(f"{'':<28}{'s':>9}{'frames/s':>10}")
    fast_s, found = timed(lambda: fast(compared))
    _row(f"one memory, {windows} windows", fast_s, len(compared))
    for count in filter(None, {1, rows} - {windows}):
        seconds, _ = timed(lambda: fast(stream[: frames * count]))  # noqa: B023 - called at once
        _row(f"one memory, {count} windows", seconds, frames * count)
    slow_s, expected = timed(lambda: slow(model, compared, frames))
    _row(f"as published, {windows} windows", slow_s, len(compared))
    return {
        "speedup": round(slow_s / fast_s, 1),
        "identical": torch.equal(expected, found),
        "frames": frames,
        "params_m": round(millions, 1),
    }


def _row(name: str, seconds: float, frames: int) -> None:
    rate = frames / seconds
    print(f"{name:<28}{seconds:>9.2f}{rate:>10.1f}   {rate / FRAME_RATE:.2f} x real time", flush=True)


if __name__ == "__main__":
    main()
