"""What users set of any generator that writes in windows, and what of it is refused."""

from __future__ import annotations

from typing import Literal

from v2m.core.errors import UsageError

Precision = Literal["fp32", "bf16", "int8"]


def check_windows(window: float, stride: float) -> None:
    """Raises UsageError for seconds that make no windows which overlap."""
    if not window >= 1:  # nor is what is no number
        raise UsageError(f"window {window:g} s must be 1 or more")
    if not 0.5 <= stride <= window - 0.5:
        raise UsageError(f"stride {stride:g} s must lie between 0.5 and {window - 0.5:g}, so that windows overlap")


def check_trained(window: float, trained_on: float) -> None:
    """Raises UsageError for a window longer than the seconds that a model was trained on."""
    if window > trained_on:
        raise UsageError(
            f"window {window:g} s is longer than the {trained_on:g} s that the model was trained on: "
            f"give window {trained_on:g} and a smaller stride"
        )


def chosen(precision: Precision | None, low_memory: bool) -> Precision | None:
    """Of the weights; None is what suits the device."""
    return precision or ("int8" if low_memory else None)
