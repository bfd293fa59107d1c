"""User options of the generators that write tokens in windows, and their validation."""

from __future__ import annotations

from typing import Literal

from v2m.core.errors import UsageError

Precision = Literal["fp32", "bf16", "int8"]


def check_window(window: float, stride: float) -> None:
    """Raise UsageError where windows of `window` seconds every `stride` seconds do not overlap."""
    if not window >= 1:  # also refuses NaN
        raise UsageError(f"window {window:g} s must be 1 or more")
    if not 0.5 <= stride <= window - 0.5:
        raise UsageError(f"stride {stride:g} s must lie between 0.5 and {window - 0.5:g}, so that windows overlap")


def check_window_length(window: float, training_window: float) -> None:
    """Raise UsageError for a window longer than the seconds that a model was trained on."""
    if window > training_window:
        raise UsageError(
            f"window {window:g} s is longer than the {training_window:g} s that the model was trained on: "
            f"give window {training_window:g} and a smaller stride"
        )


def resolve_precision(precision: Precision | None, low_memory: bool) -> Precision | None:
    """Precision of the weights; None is the device's default."""
    return precision or ("int8" if low_memory else None)
