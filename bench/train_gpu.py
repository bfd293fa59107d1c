"""Training throughput and MFU at MusicGen-small's size in bfloat16 on a GPU.

    uv run python -m bench.train_gpu
    uv run python -m bench.train_gpu --batches 4 8 16 --steps 30
    uv run python -m bench.train_gpu --tiny --device cpu     # a trial run

Random weights, shards of the published sizes, clips of 30 s, the command's own module and trainer: conditioner,
losses, clipping and AdamW included. Variants: layers compiled or not, activations kept or recomputed, batches.
`mfu` is the language model's floating-point operations (`tests/fixtures/flops.py`) over the time and the GPU's peak; on
other devices there is none. A token is one step of the language model, all codebooks. The last line, of the best
variant, is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.fixtures import flops, train_setup
from v2m.core.errors import is_out_of_memory
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.models import losses
from v2m.training.module import LitMusicLM

ROOT = Path(__file__).parents[1]

WARMUP_STEPS = 5  # not counted: compilation, caches


class StepCountingLM(LitMusicLM):
    """Record the number of steps that the language model reads."""

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        lm = self.music_model.config.lm
        self.steps = losses.model_inputs(batch.codes, batch.lengths, lm.delay_pattern, lm.special_token_id).shape[2]
        return super().training_step(batch, _)


def count_condition_tokens(model: LitMusicLM, batch: Batch) -> int:
    """Return the number of condition tokens that each step attends to."""
    with torch.no_grad():
        condition = model.music_model.build_condition(batch.text, batch.visual)
    assert condition is not None
    return condition.tokens.shape[1]


def measure_variant(
    folder: Path, args: argparse.Namespace, batch: int, recompute: bool, compiled: bool
) -> dict[str, Any]:
    """Return the figures of one configuration; none where memory ran out."""
    config = train_setup.SIZES["tiny" if args.tiny else "small"]
    settings: dict[str, Any] = {"lm": config, "conditioner": train_setup.CONDITIONER, "window": args.window}
    model = StepCountingLM(**settings, gradient_checkpointing=recompute, compile=compiled)
    data = ShardData(folder, batch_size=batch, window=args.window, num_workers=args.workers)
    clock = train_setup.Clock()
    options = {"batch": batch, "recompute": recompute, "compile": compiled}
    try:
        train_setup.trainer(WARMUP_STEPS + args.steps, args.device, "bf16-mixed", clock).fit(model, data)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {**options, "tokens_s": 0.0, "mfu": None}
    seconds = median(clock.seconds[WARMUP_STEPS - 1 :])
    width = count_condition_tokens(model.cpu(), next(iter(data.train_dataloader())))
    operations = flops.training(model.music_model.config.lm, batch, model.steps, width)
    name = torch.cuda.get_device_name() if args.device == "cuda" else ""
    peak = flops.peak(name)
    return {
        **options,
        "tokens_s": round(batch * model.steps / seconds, 1),
        "mfu": None if peak is None else round(operations / seconds / peak, 4),
        "tflops": round(operations / seconds / 1e12, 3),
        "step_ms": round(1000 * seconds, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if name else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a language model of two layers")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device; try this script with --tiny --device cpu")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = train_setup.write(Path(temporary), max(32, *args.batches), args.window + 10)
        compile_options = (False,) if args.no_compile else (False, True)
        for compiled, recompute, batch in product(compile_options, (False, True), args.batches):
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            results.append(measure_variant(folder, args, batch, recompute, compiled))
            print(", ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
            gc.collect()
    best = max(results, key=lambda result: result["tokens_s"])
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(json.dumps({**best, "model": "tiny" if args.tiny else "small", "device": device, "variants": len(results)}))


if __name__ == "__main__":
    main()
