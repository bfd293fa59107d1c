"""Figures of a script that may be cut off: all are printed after each addition.

A line is one JSON object. `gpu.py` reads the last whole line of each part. A variant that fails is named with its
error and left out.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

Backends = dict[str, list[torch.nn.attention.SDPBackend]]


class Figures:
    """Figures by name; `add` prints them all."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._start = time.perf_counter()
        logging.getLogger("v2m").addHandler(_WarningHandler(self))

    def add(self, **values: Any) -> None:
        """Add figures, and the seconds since the start; of two dictionaries of one name, the entries."""
        for name, value in values.items():
            known = self.values.get(name)
            merged = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
            self.values[name] = rounded(merged)
        self.values["elapsed_s"] = round(time.perf_counter() - self._start, 1)
        print(json.dumps(self.values), flush=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Let the variant `name` fail: its error is a figure, and the next variants are measured."""
        try:
            yield
        except Exception as error:  # of any kind: the failure is the result
            lines = str(error).strip().splitlines() or [""]
            self.add(failed={name: f"{type(error).__name__}: {lines[0][:200]}"})

    def fastest(self, name: str, milliseconds: str) -> str:
        """Add the name of the smallest of the figures `milliseconds` as the figure `name`; return it."""
        values: dict[str, float] = self.values.get(milliseconds, {})
        best = min(values, key=lambda key: values[key], default="")
        self.add(**{name: best})
        return best


class _WarningHandler(logging.Handler):
    """Makes figures of warnings: where no CUDA graph could be captured, what is called one is none."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(logging.WARNING)
        self._figures = figures

    def emit(self, record: logging.LogRecord) -> None:
        known, message = self._figures.values.get("warnings", []), record.getMessage()
        if message not in known:
            self._figures.add(warnings=[*known, message])


def rounded(value: Any) -> Any:
    """Round floats to five digits, also in dictionaries and lists."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def attention_backends() -> Backends:
    """Return PyTorch's attention kernels by name: each alone, for measurements of one shape."""
    backend = torch.nn.attention.SDPBackend
    return {
        "flash": [backend.FLASH_ATTENTION],
        "efficient": [backend.EFFICIENT_ATTENTION],
        "cudnn": [backend.CUDNN_ATTENTION],
        "math": [backend.MATH],
    }


def preferred_backends() -> Backends:
    """Return the same kernels, each before others that take the shapes which it cannot: for whole models."""
    backend = torch.nn.attention.SDPBackend
    rest = [backend.EFFICIENT_ATTENTION, backend.MATH]
    return {
        name: [*first, *(item for item in rest if item not in first)] for name, first in attention_backends().items()
    }
