"""Safe reading of checkpoint files: a broken or hostile file gives a one-line error and runs no code."""

from __future__ import annotations

import collections
import json
import math
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from v2m.core.errors import DependencyError, error_text, is_out_of_memory
from v2m.mappings.state_dict_map import truncate_list

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def _empty_ordered_dict(*_: object) -> collections.OrderedDict[Any, Any]:
    """Stand-in for a defaultdict, which torch's restricted unpickler creates but does not fill."""
    return collections.OrderedDict()


# Types that training code saves beside the tensors: numpy numbers and arrays, counters. None of them can run code.
SAFE_GLOBALS = [
    *((np.float64().__reduce__()[0], f"{core}.multiarray.scalar") for core in ("numpy.core", "numpy._core")),
    *((np.zeros(0).__reduce__()[0], f"{core}.multiarray._reconstruct") for core in ("numpy.core", "numpy._core")),
    *(type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")),
    (_empty_ordered_dict, "collections.defaultdict"),
    *(np.ndarray, np.dtype, dict, int, float, list),
]


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """State dict of a folder's `model.safetensors`, or of the shards in `model.safetensors.index.json`.

    The tensors are mapped into memory, not read. A folder without either may hold `pytorch_model.bin`, or its shards.
    """
    layouts = ((SAFETENSORS, SAFETENSORS_INDEX, read_safetensors), (PICKLE, PICKLE_INDEX, read_tensors))
    for name, index, read in layouts:
        if (folder / name).is_file():
            return read(folder / name)
        if (folder / index).is_file():
            return _read_shards(folder / index, read)
    raise DependencyError(
        f"{str(folder)!r} holds no weights: neither {SAFETENSORS} nor {SAFETENSORS_INDEX}; download them into it"
    )


def read_pickle(path: Path, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Read the dictionary in a PyTorch pickle, mapped into memory where the format allows it.

    It may hold the classes `allowed` besides tensors and plain values. Other code is refused, and never run.
    """
    _check_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        with torch.serialization.safe_globals([*SAFE_GLOBALS, *allowed]):
            payload = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise DependencyError(_unpickling_message(path, str(error))) from error
    except Exception as error:  # of any kind: the file decides which
        if is_out_of_memory(error) or isinstance(error, PermissionError):
            raise
        raise DependencyError(_broken_file_message(path, "PyTorch", error)) from error
    if not isinstance(payload, dict):
        raise DependencyError(
            f"{str(path)!r} holds a {type(payload).__name__}, not the dictionary of a checkpoint: give another file"
        )
    return payload


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch pickle that is a plain state dict, of tensors alone."""
    state = read_pickle(path)
    non_tensors = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if non_tensors:
        raise DependencyError(f"{str(path)!r} is no plain state dict: {truncate_list(non_tensors)} are no tensors")
    return state


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file."""
    payload = _parse_text(path, "JSON", json.loads)
    if not isinstance(payload, dict):
        raise DependencyError(f"{str(path)!r} holds a JSON {type(payload).__name__}, not an object")
    return payload


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file."""
    payload = _parse_text(path, "YAML", yaml.safe_load)
    if not isinstance(payload, dict):
        raise DependencyError(f"{str(path)!r} holds no settings: download it again")
    return payload


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], description: str) -> None:
    """Raise DependencyError where names or shapes of `state` differ from those of `expected`."""
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    groups = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
    problems = [f"{len(names)} {word}: {truncate_list(names)}" for word, names in groups if names]
    if problems:
        raise DependencyError(f"these are not the weights of {description}: {'; '.join(problems)}")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], description: str, *, assign: bool = False) -> None:
    """Load `state`, which must hold exactly the parameters and buffers of `module`, or nothing.

    With `assign` the module takes over the tensors themselves, with their dtype and device, without a copy.
    """
    check_keys(state, {name: value.shape for name, value in module.state_dict().items()}, description)
    module.load_state_dict(state, assign=assign)


def check_finite(state: Mapping[str, Tensor], description: str) -> None:
    """Raise DependencyError, naming them, where weights of `description` are infinite or NaN."""
    names = [name for name, value in state.items() if value.is_floating_point() and not _is_finite(value)]
    if names:
        raise DependencyError(
            f"{description} holds weights that are infinite or no numbers: {truncate_list(names)}; fetch it again"
        )


def _is_finite(value: Tensor) -> bool:
    if value.numel() == 0:
        return True
    low, high = value.aminmax()  # one pass; both are NaN where any is
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _parse_text(path: Path, file_format: str, parse: Callable[[str], Any]) -> Any:
    _check_file(path)
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # not UTF-8 is a ValueError too
        raise DependencyError(f"{str(path)!r} is not {file_format} ({error_text(error)}): download it again") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, mapped into memory."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_file(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise DependencyError(_broken_file_message(path, "safetensors", error)) from error


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
        raise DependencyError(f"{str(index)!r} lists no shards (no weight_map): download it again")
    state: dict[str, Tensor] = {}
    for name in sorted(set(shard_of.values())):
        # checked by name, not resolved: in the hub's cache every shard is a link that leads out of the folder
        inner = PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts or "\\" in name or ":" in name:
            raise DependencyError(f"{str(index)!r} names a shard outside its folder and is refused: {name!r}")
        state |= read(index.parent / inner)
    absent = [name for name in shard_of if name not in state]
    if absent:
        raise DependencyError(
            f"{str(index)!r} lists tensors that its shards do not hold: {truncate_list(absent)}; download them again"
        )
    return state


def _check_file(path: Path) -> None:
    """Refuse a file that is no checkpoint by its first bytes, with the likely reason."""
    try:
        if not path.is_file():
            kind = "is a folder, not a file" if path.is_dir() else "is missing"
            raise DependencyError(f"{str(path)!r} {kind}: give a file that exists, or download it again")
        with path.open("rb") as file:
            start = file.read(512).lstrip()
    except PermissionError:
        raise DependencyError(f"{str(path)!r} may not be read: change its permissions") from None
    if not start:
        raise DependencyError(f"{str(path)!r} is empty: download it again")
    if start.startswith(b"version https://git-lfs"):
        raise DependencyError(f"{str(path)!r} is a Git LFS pointer, not the file: `git lfs pull`, or download it again")
    if start[:1] == b"<" and re.match(rb"<(!doctype|html|\?xml|head)", start, re.IGNORECASE):
        raise DependencyError(f"{str(path)!r} is a web page, not the file (a failed download?): download it again")


def _broken_file_message(path: Path, file_format: str, error: Exception) -> str:
    reason = error_text(error).partition(". ")[0][:120]
    return f"{str(path)!r} is truncated or no {file_format} file ({reason}): download it again"


def _unpickling_message(path: Path, message: str) -> str:
    """Reason why torch's restricted unpickler gave up: code in the file, or a file that is no pickle."""
    code = re.search(r"GLOBAL (\S+)", message)
    if code:
        return f"{str(path)!r} holds code and is refused (nothing was run): it asks for {code[1]}"
    reason = message.partition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
    detail = f" ({reason[:120]})" if reason else ""
    return f"{str(path)!r} is truncated or no PyTorch file{detail}: download it again"
