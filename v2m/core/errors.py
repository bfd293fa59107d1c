"""Errors that are no fault of the code, their exit codes, and the extras that bring missing packages.

All other errors are bugs (exit code 1). A message names an option by its field, in backticks, such as `overwrite=True`:
the command line shows the flag instead (`v2m.cli.runner.with_flags`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OK, BUG, USAGE, INPUT_REFUSED, ENVIRONMENT, MEMORY, DISK, BATCH = range(8)
SIGINT, SIGPIPE, SIGTERM = 130, 141, 143  # as shells count: 128 + the signal's number
DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
OOM_PHRASES = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc")
# Packages that the base install leaves out, by the extra of v2m that brings them. Modules import them as any other: the
# ModuleNotFoundError is what the user gets to read, with `install_hint`.
EXTRAS: dict[str, tuple[str, ...]] = {
    "models": (
        *("torch", "torchvision", "torchaudio", "transformers", "tokenizers", "huggingface_hub", "safetensors"),
        *("sentencepiece", "llguidance", "jinja2", "encodec", "diffusers", "torchsde", "timm"),
    ),
    "train": ("lightning", "webdataset", "wandb", "peft"),
    "app": ("gradio",),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "pydantic", "httpx", "starlette"),
    "mcp": ("mcp", "mcp_types", "anyio"),
    "separation": ("demucs",),
    "quantized": ("bitsandbytes", "accelerate"),
    "provenance": ("c2pa", "cryptography"),
    "watermark": ("audioseal",),
    "ray": ("ray",),
    "remote": ("fsspec", "s3fs"),
}

# audiocraft pins a torch of 2023. uv lifts the pins of a dependency group; pip needs its requirements by name.
AUDIOCRAFT = (
    *("audiocraft", "einops", "flashy", "hydra", "julius", "num2words", "omegaconf", "spacy", "torchmetrics"),
    "xformers",
)
INSTALL_AUDIOCRAFT = (
    "install it with `uv sync --inexact --extra models --group audiocraft` or `pip install 'v2m[models]' einops flashy "
    "hydra-core julius num2words spacy torchmetrics xformers && pip install --no-deps audiocraft==1.3.0`"
)

# A dependency group too: of the package's requirements, TensorFlow among them, none is needed.
INSTALL_MUSICNN = (
    "install it with `uv sync --inexact --extra models --group musicnn` or `pip install --no-deps musicnn==0.1.0`"
)


class UsageError(ValueError):
    """A command that cannot be done: a wrong option, an input that is not there, an output that is."""


class LicenseError(UsageError):
    """Commercial use was asked for, and the license of a component forbids it or is not known."""


class InvalidInputError(ValueError):
    """The input is not a video that can be scored. `reason`: a stable word, such as `too_long`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))  # pickled by the arguments of its own constructor


class DependencyError(RuntimeError):
    """ffmpeg, a package or model weights are missing. `repository`: the source of the weights."""

    def __init__(self, message: str, repository: str | None = None) -> None:
        super().__init__(message)
        self.repository = repository


class DiskFullError(OSError):
    """A disk is too full for something other than the output; the message says for what and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOSPC, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)

    def __str__(self) -> str:
        return str(self.strerror)


def format_error(error: BaseException) -> str:
    """Return one line: what was wrong and, where known, the cure."""
    text, code = error_text(error), exit_code(error)
    if code == DISK and isinstance(error, OSError) and not isinstance(error, DiskFullError):
        cure = "free some room" if error.errno in DISK_FULL_ERRNOS else "change the permissions"
        problem = f"{_file_prefix(error)}the output cannot be written ({error.strerror})"
        return f"{problem}: {cure}, or give another `out`"
    if code == USAGE and isinstance(error, OSError) and error.filename:
        return f"{_file_prefix(error)}{error.strerror}; check the name"
    if code == MEMORY:
        return text if "out of memory" in text.lower() else f"out of memory: {text}"
    if code in {SIGINT, SIGTERM}:
        return f"{'interrupted' if code == SIGINT else 'terminated'}; no unfinished file is left behind"
    if code == BUG:
        return f"a bug in v2m, please report it ({type(error).__name__}: {text})"
    cure = install_hint(error)
    return f"{text}: {cure}" if cure else text


def _file_prefix(error: OSError) -> str:
    return f"{str(error.filename)!r}: " if error.filename else ""


def exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS):
        return DISK  # an input that may not be read is refused
    if is_out_of_memory(error):
        return MEMORY
    if isinstance(error, InvalidInputError) and error.reason == "missing":
        return USAGE  # as for any other name of nothing
    kinds = {
        SIGINT: KeyboardInterrupt,
        SIGPIPE: BrokenPipeError,
        INPUT_REFUSED: InvalidInputError,
        ENVIRONMENT: (DependencyError, ImportError),
        USAGE: (UsageError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    }
    return next((code for code, kind in kinds.items() if isinstance(error, kind)), BUG)


def error_text(error: BaseException, limit: int | None = None) -> str:
    """Message of an exception on one line, cut to `limit` characters; its type's name where it has none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on any device.

    torch's own error is known by its name, which spares importing torch; below it torch raises a RuntimeError that only
    its words tell from others.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, DependencyError):
        return False
    text = str(error).lower()
    return any(words in text for words in OOM_PHRASES)


@contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """Put `path` before the message of a DependencyError from a block whose errors name no file."""
    try:
        yield
    except DependencyError as error:
        raise DependencyError(f"{str(path)!r}: {error}", error.repository) from error


def require_packages(*packages: str) -> None:
    """Raise ModuleNotFoundError where optional packages are absent; none is imported."""
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise ModuleNotFoundError(f"No module named {' and '.join(map(repr, absent))}", name=absent[0])


def install_hint(error: BaseException) -> str | None:
    """Return the commands that install what an import did not find; None for a package of no extra."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    if package in AUDIOCRAFT and find_spec(package) is None:
        return INSTALL_AUDIOCRAFT
    if extra is None or find_spec(package) is not None:
        return None
    return f"install it with `uv sync --inexact --extra {extra}` or `pip install 'v2m[{extra}]'`"
