"""Private names of third parties, each behind a function of ours: what a minor release may break.

`tests/core/test_compat.py` names the versions that have them.
"""

from __future__ import annotations

from typing import Any


def execution_device(pipeline: Any) -> Any:
    """The torch device a diffusers pipeline computes on, also while its models are offloaded (diffusers 0.42)."""
    return pipeline._execution_device


def supports_sdpa(model_class: Any) -> bool:
    """True where a transformers model class implements PyTorch's SDPA attention."""
    return bool(model_class._supports_sdpa)
