"""Checkpoint files, opened so that a wrong or hostile one gives one line and runs nothing."""

from __future__ import annotations

import collections
import json
import math
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from v2m.core.errors import DependencyError, is_out_of_memory

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
MAX_NAMES = 3  # names of parameters in one line


def _empty_ordered_dict(*_: object) -> collections.OrderedDict[Any, Any]:
    """Stands for a defaultdict, which torch's restricted unpickler makes but does not fill."""
    return collections.OrderedDict()


# What training code leaves beside the tensors: numbers and arrays of numpy, counters. None of it can run anything.
SAFE_GLOBALS = [
    *((np.float64().__reduce__()[0], f"{core}.multiarray.scalar") for core in ("numpy.core", "numpy._core")),
    *((np.zeros(0).__reduce__()[0], f"{core}.multiarray._reconstruct") for core in ("numpy.core", "numpy._core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")),
    (_empty_ordered_dict, "collections.defaultdict"),
    dict,
    int,
    float,
    list,
]


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.

    They are mapped into memory, not read. A folder without either may hold `pytorch_model.bin`, or its shards.

    Raises:
        MissingError: A file is missing, truncated or not what its name says; it is named.
    """
    if (folder / SAFETENSORS).is_file():
        return _read_safetensors(folder / SAFETENSORS)
    if (folder / SAFETENSORS_INDEX).is_file():
        return _read_shards(folder / SAFETENSORS_INDEX)
    if (folder / PICKLE).is_file():
        return read_tensors(folder / PICKLE)
    if (folder / PICKLE_INDEX).is_file():
        return _read_shards(folder / PICKLE_INDEX)
    raise DependencyError(f"{str(folder)!r} holds no weights: neither {SAFETENSORS} nor {SAFETENSORS_INDEX}")


def read_pickle(path: Path, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """The contents of a PyTorch pickle, mapped into memory if it can be: it may hold tensors, plain values and the
    classes that are `allowed`, nothing else.

    Raises:
        MissingError: The file is missing, truncated, no PyTorch file, no dictionary, or holds code (which is not run).
    """
    _check_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        with torch.serialization.safe_globals([*SAFE_GLOBALS, *allowed]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise DependencyError(_unpickling_message(path, str(error))) from error
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, PermissionError):
            raise
        raise DependencyError(
            _broken_file_message(path, "PyTorch", error)
        ) from error  # of any kind: the file decides which
    if not isinstance(found, dict):
        raise DependencyError(f"{str(path)!r} holds a {type(found).__name__}, not the dictionary of a checkpoint")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch pickle that is a plain state dict.

    Raises:
        MissingError: As in `pickled`; or something else than tensors by name is in it.
    """
    found = read_pickle(path)
    strange = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if strange:
        raise DependencyError(
            f"{str(path)!r} is no plain state dict: {_truncate_list(map(str, strange))} are no tensors"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingError: The file is missing, or holds no JSON object.
    """
    _check_file(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise DependencyError(
            f"{str(path)!r} is not JSON ({' '.join(str(error).split())}): download it again"
        ) from error
    if not isinstance(found, dict):
        raise DependencyError(f"{str(path)!r} holds a JSON {type(found).__name__}, not an object")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        MissingError: The file is missing, or holds something else.
    """
    _check_file(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DependencyError(
            f"{str(path)!r} is not YAML ({' '.join(str(error).split())}): download it again"
        ) from error
    if not isinstance(found, dict):
        raise DependencyError(f"{str(path)!r} holds no settings: download it again")
    return found


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], description: str) -> None:
    """Says in one line how `state` differs from the names and shapes that `what` has.

    Raises:
        MissingError: Names are missing or unknown, or shapes differ.
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    other = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    problems = [f"{len(names)} {word}: {_truncate_list(names)}" for word, names in parts if names]
    if problems:
        raise DependencyError(f"these are not the weights of {description}: {'; '.join(problems)}")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], description: str, *, assign: bool = False) -> None:
    """Loads `state`, which must have every parameter and buffer of `module` and nothing else.

    With `assign` the module takes the tensors themselves, with their dtype and device, and copies nothing.

    Raises:
        MissingError: Names or shapes differ; nothing has been loaded then.
    """
    check_keys(state, {name: value.shape for name, value in module.state_dict().items()}, description)
    module.load_state_dict(state, assign=assign)


def check_finite(state: Mapping[str, Tensor], description: str) -> None:
    """Raises MissingError, naming them, where weights of `what` are infinite or no numbers."""
    wrong = [name for name, value in state.items() if value.is_floating_point() and not _is_finite(value)]
    if wrong:
        raise DependencyError(
            f"{description} holds weights that are infinite or no numbers: {_truncate_list(wrong)}; fetch it again"
        )


def _is_finite(value: Tensor) -> bool:
    if value.numel() == 0:
        return True
    low, high = value.aminmax()  # one pass; both are NaN where any is
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_file(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise DependencyError(_broken_file_message(path, "safetensors", error)) from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not homes or not all(isinstance(name, str) for name in homes.values()):
        raise DependencyError(f"{str(index)!r} lists no shards (no weight_map)")
    read = _read_safetensors if index.name == SAFETENSORS_INDEX else read_tensors
    state: dict[str, Tensor] = {}
    for name in sorted(set(homes.values())):
        # by its name alone: in the hub's cache every shard is a link that leads out of the folder
        inner = PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts or "\\" in name or ":" in name:
            raise DependencyError(f"{str(index)!r} names a shard outside its folder and is refused: {name!r}")
        state |= read(index.parent / inner)
    absent = [name for name in homes if name not in state]
    if absent:
        raise DependencyError(f"{str(index)!r} lists tensors that its shards do not hold: {_truncate_list(absent)}")
    return state


def _check_file(path: Path) -> None:
    """Refuses what is no checkpoint file at all, by its first bytes, with the likely reason."""
    try:
        if not path.is_file():
            kind = "is a folder, not a file" if path.is_dir() else "is missing"
            raise DependencyError(f"{str(path)!r} {kind}: download it again")
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
    said = " ".join(str(error).split()).partition(". ")[0][:120] or type(error).__name__
    return f"{str(path)!r} is truncated or no {file_format} file ({said}): download it again"


def _unpickling_message(path: Path, message: str) -> str:
    """Why torch's restricted unpickler gave up: code in the file, or a file that is no pickle."""
    code = re.search(r"GLOBAL (\S+)", message)
    if code:
        return f"{str(path)!r} holds code and is refused (nothing was run): it asks for {code[1]}"
    why = message.partition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
    return f"{str(path)!r} is truncated or no PyTorch file{f' ({why[:120]})' * bool(why)}: download it again"


def _truncate_list(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - MAX_NAMES
    return ", ".join(listed[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
