"""Profile of a step of training: phases, kinds of operations, share of the measured peak.

    uv run python -m bench.train_profile                        # MusicGen-small's size on the CPU: 12 GB, some minutes
    uv run python -m bench.train_profile --size tiny --steps 5

The training module's own step, loss and optimizer, with gradients clipped, on one batch of prepared features. Phases
are seconds a step (processor seconds on one thread of a CPU): the model's forward pass, the loss, backward, clipping
and the optimizer. `operations_share` is of forward and backward, by PyTorch's profiler. `share_of_peak` is the language
model's arithmetic (`tests/fixtures/flops.py`) over the time and the rate of a large product in the same precision,
measured in the same run. `pairs` take turns, with one thing changed: median seconds, and their ratio. Every line is one
JSON object, the last one with all figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from torch.profiler import ProfilerActivity, profile

from bench import roofline
from bench.gpu_figures import Figures
from tests.fixtures import flops, train_setup
from v2m import checkpoints
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.models import losses
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig, param_groups

Precision = Literal["fp32", "bf16"]
CLIP_NORM = 1.0
PHASES = ("forward", "loss", "backward", "clip", "optimizer")
KINDS = {  # of operations, by parts of their names in the profiler; the first that is found counts
    "attention": ("scaled_dot_product", "_attention"),
    "loss": ("log_softmax", "nll_loss", "cross_entropy"),
    "matmul": ("mm", "linear", "matmul"),
    "norm": ("layer_norm",),
    "gelu": ("gelu",),
    "dropout and random": ("dropout", "rand", "bernoulli"),
    "copies and casts": ("copy_", "cat", "stack", "clone", "contiguous", "_to_copy", "fill_", "zero", "index"),
    "embedding": ("embedding",),
    "sums and products": ("add", "mul", "sum", "div", "where"),
}


class ProfiledLM(LitMusicLM):
    """The training module, which tells when its model has made the logits."""

    on_logits: Callable[[], None] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        logits = super().forward(*args, **kwargs)
        if self.on_logits is not None:
            self.on_logits()
        return logits

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing: there is no trainer."""


class Training:
    """The training module with its optimizer, on a device; one `step` is that of the trainer.

    `window` is in seconds. Parameters and optimizer stay in float32; "bf16" computes under autocast, as `bf16-mixed`
    does.
    """

    def __init__(self, config: LMConfig, window: float, device: torch.device, precision: Precision) -> None:
        torch.manual_seed(0)
        self.device, self.precision = device, precision
        manifest = train_setup.KEPT
        music = MusicConfig(config, manifest.text_dim, conditioner=train_setup.CONDITIONER, segment_duration=window)
        self.module = ProfiledLM(lm=config, window=window, optim=OptimConfig(total_steps=1000))
        with torch.device(device):
            self.module.model = checkpoints.V2M(music)
        self.module.train()
        self.optimizer: torch.optim.Optimizer = self.module.configure_optimizers()["optimizer"]

    @property
    def lm(self) -> Any:
        return self.module.music_model.lm

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def step(self, batch: Batch, mark: Callable[[str], None] = lambda _: None) -> None:
        """Train on a batch; `mark` is called with the name of each phase at its end."""
        self.module.on_logits = lambda: mark("forward")
        with self.autocast():
            loss = self.module.training_step(batch, 0)
        mark("loss")
        self.optimizer.zero_grad()
        loss.backward()
        mark("backward")
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), CLIP_NORM)
        mark("clip")
        self.optimizer.step()
        mark("optimizer")

    def operations(self, batch: Batch) -> int:
        """Return the floating-point operations of a step of the language model."""
        lm, model = self.module.music_model.config.lm, self.module.music_model
        inputs = losses.model_inputs(batch.codes, batch.lengths, lm.delay_pattern, lm.special_token_id)
        with torch.no_grad(), self.autocast():
            condition = model.build_condition(batch.text, batch.visual)
        assert condition is not None
        return flops.training(lm, len(batch.codes), inputs.shape[2], condition.tokens.shape[1])


class PhaseClock:
    """Seconds of each phase, with the device's work."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, 0.0
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        self._last = roofline.clock(self._device)

    def __call__(self, name: str) -> None:
        now = roofline.clock(self._device)
        self.seconds[name].append(now - self._last)
        self._last = now

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.seconds.items()}


def load_batch(folder: Path, size: int, window: float, device: torch.device) -> Batch:
    """Return a batch of the shards in `folder` on the device."""
    data = ShardData(folder, batch_size=size, window=window, num_workers=0)
    data.setup("fit")
    batch: Batch = next(iter(data.train_dataloader()))
    return batch.to(device)


def phase_seconds(training: Training, batch: Batch, steps: int) -> dict[str, float]:
    """Return the median seconds of each phase after a warm-up step."""
    training.step(batch)
    clock = PhaseClock(training.device)
    for _ in range(steps):
        clock.start()
        training.step(batch, clock)
    return clock.medians()


def operation_shares(training: Training, batch: Batch) -> dict[str, float]:
    """Return the share of each kind of operation in the time of a forward and backward pass."""
    on_gpu = training.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        with training.autocast():
            loss = training.module.training_step(batch, 0)
        loss.backward()
        roofline.synchronize(training.device)
    training.optimizer.zero_grad()
    microseconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        name, taken = event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if on_gpu and not name.startswith("aten::"):
            continue  # kernels, whose time their operations have
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")
        microseconds[kind] += taken
    total = sum(microseconds.values())
    return {kind: taken / total for kind, taken in sorted(microseconds.items(), key=lambda item: -item[1])}


def compare(first: Callable[[], Any], second: Callable[[], Any], device: torch.device, steps: int) -> dict[str, float]:
    """Return the median seconds of both, which take turns, and their ratio."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps + 1):
        for function, values in zip((first, second), seconds, strict=True):
            start = roofline.clock(device)
            function()
            values.append(roofline.clock(device) - start)
    before, after = (statistics.median(values[1:]) for values in seconds)  # the first of each warms up
    return {"before_s": before, "after_s": after, "ratio": before / after}


def transposed_loss(logits: Tensor, codes: Tensor, delays: Sequence[int]) -> Tensor:
    """Return the cross-entropy with a softmax over an inner axis of slices, as it once was."""
    frames, parts = codes.shape[2], list[Tensor]()
    for k, delay in enumerate(delays):
        rows = logits[:, k, delay : delay + frames].float()
        parts.append(functional.cross_entropy(rows.mT, codes[:, k, : rows.shape[1]]))
    return torch.stack(parts).mean()


def compare_loss(training: Training, batch: Batch, steps: int) -> dict[str, float]:
    """Return the seconds of a forward and backward pass of the loss as it once was, and as it is."""
    lm, codes = training.module.music_model.config.lm, batch.codes
    shape = losses.model_inputs(codes, batch.lengths, lm.delay_pattern, lm.special_token_id).shape
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    logits = torch.randn(*shape, lm.codebook_size, device=training.device, dtype=dtype, requires_grad=True)

    def before() -> None:
        transposed_loss(logits, codes, lm.delay_pattern).backward()
        logits.grad = None

    def after() -> None:
        losses.codebook_cross_entropy(logits, codes, batch.lengths, lm.delay_pattern).mean.backward()
        logits.grad = None

    return compare(before, after, training.device, steps)


def compare_optimizer(training: Training, batch: Batch, steps: int) -> dict[str, float]:
    """Return the seconds of a step of AdamW as PyTorch has it by default, and fused."""
    training.step(batch)
    with training.autocast():
        training.module.training_step(batch, 0).backward()
    config = training.module.optim_config
    groups = param_groups(training.module.music_model, config)
    default = AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    result = compare(default.step, training.optimizer.step, training.device, steps)
    training.optimizer.zero_grad()
    return result


def profile_step(figures: Figures, training: Training, batch: Batch, steps: int, small: bool = False) -> None:
    """Add what bounds a step: phases, kinds of operations, and the share of the measured peak."""
    name, device = training.precision, training.device
    phases = phase_seconds(training, batch, steps)
    total = sum(phases.values())
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    rate, operations = roofline.product_rate(device, dtype, small), training.operations(batch)
    figures.add(
        step_s={name: total},
        phases_s={name: phases},
        peak_tflops={name: rate / 1e12},
        share_of_peak={name: operations / total / rate},
    )
    figures.add(operations_share={name: operation_shares(training, batch)})


def step_in(training: Training, batch: Batch, precision: Precision) -> None:
    training.precision = precision
    training.step(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=train_setup.SIZES, default="small")
    parser.add_argument("--layers", type=int, help="fewer layers of the same width, to save memory and time")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    device, figures = torch.device(args.device), Figures()
    if args.device == "cpu":
        torch.set_num_threads(1)
    config = train_setup.SIZES[args.size]
    config = replace(config, num_layers=args.layers or config.num_layers)
    figures.add(
        device=roofline.describe(device)["device"],
        size=args.size,
        layers=config.num_layers,
        batch=args.batch,
        window_s=args.window,
    )
    training = Training(config, args.window, device, "fp32")
    weights = sum(value.numel() for value in training.module.parameters())
    figures.add(weights_m=weights / 1e6)
    with tempfile.TemporaryDirectory() as name:
        folder = train_setup.write(Path(name), max(8, args.batch), args.window + 10)
        batch = load_batch(folder, args.batch, args.window, device)
    for precision in args.precisions:
        training.precision = precision
        profile_step(figures, training, batch, args.steps)
        figures.add(pairs={f"loss_{precision}": compare_loss(training, batch, 5)})
    figures.add(pairs={"fused_optimizer": compare_optimizer(training, batch, 5)})
    if len(args.precisions) > 1:
        turns = [partial(step_in, training, batch, precision) for precision in args.precisions]
        figures.add(pairs={"_to_".join(args.precisions): compare(turns[0], turns[1], device, args.steps)})


if __name__ == "__main__":
    main()
