"""Training throughput and MFU at MusicGen-small's size in bfloat16 on a GPU.

    uv run python -m bench.train_gpu
    uv run python -m bench.train_gpu --batches 4 8 16 32 --steps 30
    uv run python -m bench.train_gpu --small --device cpu     # a trial run

Random weights, shards of the published sizes, clips of 30 s, the command's own module: conditioner, losses, clipping
and AdamW included. Variants: batches, layers compiled or not, PyTorch's attention kernels, activations recomputed, the
optimizer of one kernel or of many; then the phases and kinds of operations of a step, and last the command's own
trainer with its loader, of the fastest. `mfu` is the language model's floating-point operations
(`tests/fixtures/flops.py`) over the time and the GPU's published peak, `share_of_peak` over the rate of a product
measured in the same run. A token is one step of the language model, all codebooks. Each line is one JSON object, the
last one with all figures.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import sdpa_kernel
from torch.optim import AdamW

from bench import roofline
from bench.gpu_figures import Figures, preferred_backends
from bench.train_profile import ProfiledLM, Training, load_batch, operation_shares, phase_seconds
from tests.fixtures import flops, train_setup
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.training.optim import param_groups

WARMUP_STEPS = 5  # not counted: kernels are chosen
FIRST_BATCH = 8


class Variants:
    """Steps of one model, with one thing changed at a time; figures are added as they come."""

    def __init__(self, figures: Figures, training: Training, args: argparse.Namespace, folder: Path) -> None:
        self.figures, self.training, self.steps, self.folder = figures, training, args.steps, folder
        self.window = args.window
        self.tokens_s: dict[str, float] = {}

    def batch(self, size: int) -> Batch:
        return load_batch(self.folder, size, self.window, self.training.device)

    def compile_layers(self) -> None:
        """Compile the layers for the next shapes alone: others before them would make the code general."""
        torch.compiler.reset()
        for layer in self.training.lm.layers:
            layer.compile()

    def measure(self, name: str, size: int, context: AbstractContextManager[Any] | None = None) -> None:
        """Add the figures of `self.training` as it is, with batches of `size`."""
        training, device = self.training, self.training.device
        self._release()
        with self.figures.attempt(name), context or nullcontext():
            batch = self.batch(size)
            for _ in range(WARMUP_STEPS if self.steps > WARMUP_STEPS else 1):
                training.step(batch)
            seconds = roofline.median_seconds(partial(training.step, batch), device, self.steps)
            self._add(name, batch, seconds)

    def _release(self) -> None:
        self.training.optimizer.zero_grad()
        gc.collect()
        if self.training.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _add(self, name: str, batch: Batch, seconds: float) -> None:
        operations, figures = self.training.operations(batch), self.figures
        num_steps = batch.codes.shape[2] + max(self.training.lm.config.delay_pattern)
        self.tokens_s[name] = len(batch.codes) * num_steps / seconds
        measured, published = figures.values["peak_tflops"] * 1e12, flops.peak(figures.values["device"])
        variant: dict[str, Any] = {"step_ms": 1000 * seconds, "tokens_s": self.tokens_s[name]}
        variant["share_of_peak"] = operations / seconds / measured
        variant["mfu"] = None if published is None else operations / seconds / published
        if self.training.device.type == "cuda":
            variant["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        figures.add(variants={name: variant})
        best = max(self.tokens_s, key=lambda key: self.tokens_s[key])
        chosen = figures.values["variants"][best]
        figures.add(fastest=best, **{key: chosen[key] for key in ("mfu", "share_of_peak", "tokens_s")})


def set_optimizer(training: Training, **options: Any) -> None:
    """Give the module an AdamW of its own groups with other `options`."""
    config = training.module.optim_config
    groups = param_groups(training.module.music_model, config)
    training.optimizer = AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, **options)


def measure_variants(variants: Variants, batches: Sequence[int], compile: bool) -> None:
    """Measure the important ones first: a run may be cut off."""
    training, first = variants.training, min(FIRST_BATCH, max(batches))
    variants.measure(f"eager_b{first}", first)
    with variants.figures.attempt("phases"):
        batch = variants.batch(first)
        variants.figures.add(phases_s=phase_seconds(training, batch, 3))
        variants.figures.add(operations_share=operation_shares(training, batch))
    for size in batches:
        if size != first:
            variants.measure(f"eager_b{size}", size)
    for name, backends in preferred_backends().items():
        if name != "math":  # it stores all probabilities
            variants.measure(f"eager_{name}_b{first}", first, sdpa_kernel(backends, set_priority=True))
    for name, options in {"fused": {"fused": True}, "foreach": {"foreach": True}}.items():
        set_optimizer(training, **options)
        variants.measure(f"eager_{name}_optimizer_b{first}", first)
    training.optimizer = training.module.configure_optimizers()["optimizer"]
    training.lm.gradient_checkpointing = True
    variants.measure(f"eager_recomputed_b{max(batches)}", max(batches))
    training.lm.gradient_checkpointing = False
    for size in sorted(batches, key=lambda size: -variants.tokens_s.get(f"eager_b{size}", 0.0)) if compile else ():
        with variants.figures.attempt(f"compiled_b{size}"):
            variants.compile_layers()
            variants.measure(f"compiled_b{size}", size)


def run_trainer(folder: Path, args: argparse.Namespace, config: Any, batch: int, compiled: bool) -> dict[str, Any]:
    """Return the time of a step of the command's own trainer and loader, and its wait for data."""
    module = TrainerLM(lm=config, conditioner=train_setup.CONDITIONER, window=args.window, compile=compiled)
    data = ShardData(folder, batch_size=batch, window=args.window, num_workers=args.workers)
    clock = train_setup.Clock()
    trainer = train_setup.trainer(WARMUP_STEPS + args.steps, args.device, "bf16-mixed", clock)
    trainer.fit(module, data)
    counted = slice(WARMUP_STEPS - 1, None)
    step, wait = (torch.tensor(values[counted]).median().item() for values in (clock.seconds, clock.waits))
    return {"trainer_batch": batch, "trainer_step_ms": 1000 * step, "trainer_data_wait_ms": 1000 * wait}


class TrainerLM(ProfiledLM):
    """The training module, built on its device, where random weights are drawn fast."""

    def setup(self, stage: str) -> None:
        with torch.device(self.trainer.strategy.root_device):
            super().setup(stage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="a language model of two layers, to try this script")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--without-compile", action="store_true", help="leave out variants with torch.compile")
    args = parser.parse_args()
    if args.small:
        args.batches, args.steps, args.window, args.workers = [1, 2], 1, 2.0, 0
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device; try this script with --small --device cpu")
    device, figures = torch.device(args.device), Figures()
    config = train_setup.SIZES["tiny" if args.small else "small"]
    figures.add(device=roofline.describe(device)["device"])
    figures.add(peak_tflops=roofline.product_rate(device, torch.bfloat16, args.small) / 1e12)
    training = Training(config, args.window, device, "bf16")
    figures.add(weights_m=sum(value.numel() for value in training.module.parameters()) / 1e6)
    with tempfile.TemporaryDirectory() as temporary:
        folder = train_setup.write(Path(temporary), max(32, *args.batches), args.window + 10)
        measure_variants(Variants(figures, training, args, folder), args.batches, not args.without_compile)
        best = str(figures.values.get("fastest", ""))
        del training
        gc.collect()
        with figures.attempt("trainer"):
            size = int(best.rpartition("_b")[2] or 1)
            figures.add(**run_trainer(folder, args, config, size, best.startswith("compiled")))


if __name__ == "__main__":
    main()
