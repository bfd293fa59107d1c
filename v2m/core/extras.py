"""Packages that the base install leaves out, and the extra of v2m (`pip install 'v2m[NAME]'`) that brings each.

A module imports such a package as any other, in the function that needs it or at its top: the ModuleNotFoundError is
what the user gets to read, with the line that `cure` adds.
"""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "models": (
        *("torch", "torchvision", "torchaudio", "transformers", "tokenizers", "huggingface_hub", "safetensors"),
        *("sentencepiece", "jinja2", "encodec", "diffusers", "torchsde", "timm"),
    ),
    "eval": ("librosa",),
    "train": ("lightning", "webdataset", "wandb", "peft"),
    "app": ("gradio",),
    "separation": ("demucs",),
    "quantized": ("bitsandbytes", "accelerate"),
}


def require(*packages: str) -> None:
    """Make sure that optional packages are there, importing none of them.

    Raises:
        ModuleNotFoundError: One is not; the first is its `name`.
    """
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise ModuleNotFoundError(f"No module named {' and '.join(map(repr, absent))}", name=absent[0])


def cure(error: BaseException) -> str | None:
    """The lines that install what an import did not find; None where it is no package of an extra, or is installed."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    if extra is None or find_spec(package) is not None:
        return None
    return f"install it with `uv sync --inexact --extra {extra}` or `pip install 'v2m[{extra}]'`"
