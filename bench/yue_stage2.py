"""YuE stage 2 against the published loop on the same Llama: `uv run python -m bench.yue_stage2`.

The published loop calls `generate()` once a frame with all of the window so far; `refine_published` does the same on a
random Llama in the published format, and `v2m.generators.yue.stage2.refine` must give the same tokens. Both refine the
same windows, four per batch as published; `refine` alone also one window and several more. Times are CPU seconds of one
thread, which other load changes little. `--runs` repeats both in turn: the median of their ratios, and all of them.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.utils import logging

from tests.fixtures.tiny import yue_lm
from tests.reference.yue_stage2 import refine_published
from v2m.generators.yue.stage2 import refine
from v2m.generators.yue.tokenizer import CODEBOOK_SIZE, FRAME_RATE

Result = TypeVar("Result")


def time_call(function: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=300, help="of a window (50 are a second)")
    parser.add_argument("--windows", type=int, default=5, help="refined by both; 5 are 30 s of a stem")
    parser.add_argument("--rows", type=int, default=10, help="windows in one batch of `refine` alone; 0: none")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=8, help="eight share a key, as published of stage 1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        dims = {"hidden": args.hidden, "layers": args.layers, "heads": args.heads, "kv_heads": args.heads // 8}
        path = yue_lm.write(Path(folder), yue_lm.STAGE_2_VOCAB, ffn=args.hidden * 11 // 4, **dims)
        figures = measure(LlamaForCausalLM.from_pretrained(path), args.frames, args.windows, args.rows, args.runs)
    print(json.dumps(figures))
    sys.exit(0 if figures["identical"] else 1)


def measure(model: Any, frames: int, windows: int, rows: int, runs: int) -> dict[str, Any]:
    """Print the table; return the last line's figures."""
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    random = torch.Generator().manual_seed(1)
    stream = torch.randint(CODEBOOK_SIZE, (frames * max(windows, rows),), generator=random)
    compared = stream[: frames * windows]

    def fast(stage1_codes: Tensor) -> Tensor:
        return refine(model, [stage1_codes], window=frames)[0]

    fast(stream[:3])  # a warm-up run
    print(f"{millions:.1f} M parameters, one thread, windows of {frames} frames")
    print(f"{'':<28}{'s':>9}{'frames/s':>10}")
    for count in filter(None, {1, rows} - {windows}):
        seconds, _ = time_call(lambda: fast(stream[: frames * count]))  # noqa: B023 - called at once
        _row(f"one cache, {count} windows", seconds, frames * count)
    speedups, identical = list[float](), True
    for _ in range(runs):
        fast_s, tokens = time_call(lambda: fast(compared))
        _row(f"one cache, {windows} windows", fast_s, len(compared))
        slow_s, expected = time_call(lambda: refine_published(model, compared, frames))
        _row(f"as published, {windows} windows", slow_s, len(compared))
        speedups.append(round(slow_s / fast_s, 1))
        identical &= torch.equal(expected, tokens)
    return {
        "speedup": statistics.median(speedups),
        "speedups": speedups,
        "identical": identical,
        "frames": frames,
        "params_m": round(millions, 1),
    }


def _row(name: str, seconds: float, frames: int) -> None:
    rate = frames / seconds
    print(f"{name:<28}{seconds:>9.2f}{rate:>10.1f}   {rate / FRAME_RATE:.2f} x real time", flush=True)


if __name__ == "__main__":
    main()
