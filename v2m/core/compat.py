"""Private names and defects of third parties, each behind a function of ours.

A minor release may change them: `tests/core/test_compat.py` names the versions that have them. Torch is imported on
use: not all callers need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def execution_device(pipeline: Any) -> Any:
    """Return a diffusers pipeline's torch device, also while its models are offloaded (0.42)."""
    return pipeline._execution_device


def supports_sdpa(model_class: Any) -> bool:
    """Return whether a transformers model class implements PyTorch's SDPA attention."""
    return bool(model_class._supports_sdpa)


class OneDNNOps(NamedTuple):
    """Operators of oneDNN linear layers: reorder a weight, multiply with it, multiply and add."""

    reorder: Callable[..., Tensor]
    linear: Callable[..., Tensor]
    linear_add: Callable[..., Tensor]


def onednn_ops() -> OneDNNOps | None:
    """Return oneDNN's operators (torch 2.11); None where PyTorch is built without them."""
    import torch

    ops: Any = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(ops, "_linear_pointwise"):
        return None
    return OneDNNOps(ops._reorder_linear_weight, ops._linear_pointwise, ops._linear_pointwise.binary)


def onednn_supports(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's linear layers take `dtype` on this CPU (torch 2.11)."""
    import torch

    ops: Any = torch.ops.mkldnn
    checks = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return onednn_ops() is not None and (dtype == torch.float32 or getattr(ops, checks[dtype])())


class OneDNNInt8Ops(NamedTuple):
    """Operators of oneDNN linear layers in 8 bits: reorder a weight, multiply with it."""

    reorder: Callable[..., Tensor]
    linear: Callable[..., Tensor]


def onednn_int8_ops() -> OneDNNInt8Ops | None:
    """Return oneDNN's operators for 8 bits (torch 2.11); None without them or without hardware for them."""
    import torch

    ops: Any = torch.ops.onednn
    if not torch.backends.mkldnn.is_available() or not cpu_has_vnni() or not hasattr(ops, "qlinear_pointwise"):
        return None
    return OneDNNInt8Ops(ops.qlinear_prepack, ops.qlinear_pointwise)


def int8_weight_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply (R, D) bfloat16 with an int8 weight (O, D) scaled by (O,): (R, O)."""
    import torch

    return torch.ops.aten._weight_int8pack_mm(x, weight, scale)


def pack_int4_weight(weight: Tensor) -> Tensor:
    """Lay out numbers 0 … 15 (O, D) int32 for `int4_weight_linear` (torch 2.11, CPU; O % 16 = 0)."""
    import torch

    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight, 1)


def int4_weight_linear(x: Tensor, weight: Tensor, group: int, scales: Tensor) -> Tensor:
    """Multiply (R, D) with a weight of `pack_int4_weight`, less 8: (R, O).

    `scales` (D / `group`, O, 2), of the type of `x`, are those of the numbers and what is added to each.
    """
    import torch

    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, group, scales)


def quantized_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the quantized tensor of an int8 weight (O, D) with a scale (O,) for each output."""
    import torch

    zero_points = torch.zeros_like(scale, dtype=torch.int64)
    return torch.ops.aten._make_per_channel_quantized_tensor(weight, scale.double(), zero_points, 0)


def cpu_has_avx512_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware."""
    return _cpu_flag("_is_avx512_bf16_supported")


def cpu_has_vnni() -> bool:
    """Return whether this CPU multiplies 8-bit integers without saturating in between."""
    return _cpu_flag("_is_vnni_supported")


def _cpu_flag(name: str) -> bool:
    import torch

    function: Callable[[], bool] | None = getattr(torch.cpu, name, None)
    return function is not None and function()


def allow_clipping(optimizer: Any) -> None:
    """Let Lightning (2.6) clip gradients in mixed precision for a fused optimizer.

    It refuses optimizers that can undo a gradient scaler's scale themselves, with bfloat16, too, where there is no
    scaler. A scaler now undoes it before the step, as for any other optimizer.
    """
    optimizer._step_supports_amp_scaling = False


def last_saved_step(callback: Any) -> int:
    """Return the step at which Lightning's ModelCheckpoint saved last (Lightning 2.6)."""
    return callback._last_global_step_saved


def mark_saved(callback: Any, step: int) -> None:
    """Let Lightning's ModelCheckpoint take `step` for saved."""
    callback._last_global_step_saved = step


def save_with_callback(callback: Any, trainer: Any, path: str) -> None:
    """Save a checkpoint as Lightning's ModelCheckpoint does, which also tells the loggers."""
    callback._save_checkpoint(trainer, path)


def hide_unlimited_epochs(trainer: Any) -> None:
    """Let RichProgressBar count epochs that have no limit; it shows "Epoch 3/-2" (Lightning 2.6)."""
    bar = trainer.progress_bar_callback
    if trainer.max_epochs == -1 and hasattr(bar, "_get_train_description"):
        bar._get_train_description = "Epoch {:<4}".format  # as wide as "Validation"


def set_parallel_sizes(strategy: Any, data: int, tensor: int) -> None:
    """Set the numbers of ranks of Lightning's ModelParallelStrategy once all ranks are known."""
    strategy._data_parallel_size, strategy._tensor_parallel_size = data, tensor


def attached_trainer(module: Any) -> Any | None:
    """Return the trainer of a LightningModule, or None; its property `trainer` raises without one."""
    return module._trainer


def wandb_init_arguments(logger: Any) -> dict[str, Any]:
    """Return the arguments that Lightning's WandbLogger will give to `wandb.init`, which may be changed."""
    return logger._wandb_init


def wandb_run_started(logger: Any) -> bool:
    """Return whether Lightning's WandbLogger has its run already."""
    return logger._experiment is not None


def wandb_offline(logger: Any) -> bool:
    """Return whether Lightning's WandbLogger was told to be offline."""
    return logger._offline


def set_wandb_offline(logger: Any) -> None:
    """Let Lightning's WandbLogger start its run offline."""
    logger._offline, logger._wandb_init["mode"] = True, "offline"
