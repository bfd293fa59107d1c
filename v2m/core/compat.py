"""Private names of third parties, each behind a function of ours: what a minor release may break.

`tests/core/test_compat.py` names the versions that have them. Torch is imported on use: not all callers need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


def execution_device(pipeline: Any) -> Any:
    """The torch device a diffusers pipeline computes on, also while its models are offloaded (diffusers 0.42)."""
    return pipeline._execution_device


def supports_sdpa(model_class: Any) -> bool:
    """True where a transformers model class implements PyTorch's SDPA attention."""
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


def int8_weight_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply (R, D) bfloat16 with an int8 weight (O, D) scaled by (O,): (R, O)."""
    import torch

    return torch.ops.aten._weight_int8pack_mm(x, weight, scale)


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
