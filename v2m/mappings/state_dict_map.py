"""State-dict key maps and their walker, which the mappings of this package share.

A key map gives a name's counterpart in the other layout, or None where it is dropped on purpose. The first number in a
name (a layer's, a codebook's) may be written N.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from v2m.core.errors import DependencyError

Value = TypeVar("Value")
BOTH = ("weight", "bias")
MAX_LISTED_NAMES = 3  # in one error message
_NUMBER = re.compile(r"(?<=\.)(0|[1-9]\d*)(?=\.)")


def rename_keys(
    state: Mapping[str, Value], table: Mapping[str, str | None], model: str, *, cure: str = ""
) -> dict[str, Value]:
    """Rename `state` by a key map.

    Raises DependencyError, which ends with `cure`, for names that `model` does not have.
    """
    out: dict[str, Value] = {}
    unknown = []
    for name, value in state.items():
        number = _NUMBER.search(name)
        template = name if name in table else normalize_index(name)
        if template not in table or (number is None and ".N." in name):
            unknown.append(name)
            continue
        new = table[template]
        if new is not None:
            out[new.replace(".N.", f".{number.group()}.", 1) if number else new] = value
    if unknown:
        names = truncate_list([repr(name) for name in unknown])
        message = f"these are not the weights of {model}: it has no {names}"
        raise DependencyError(f"{message}: {cure}" if cure else message)
    return out


def strip_prefix(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """Return the part of `state` whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def normalize_index(name: str) -> str:
    """Return `name` with its first number written N."""
    return _NUMBER.sub("N", name, count=1)


def invert(table: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the key map of the other direction."""
    return {new: old for old, new in table.items() if new is not None}


def merge_projections(state: Mapping[str, Tensor], parts: Sequence[str], fused: str) -> dict[str, Tensor]:
    """Stack matrices of one module by rows: `a.query.weight` and `a.key.weight` as `a.query_key.weight`.

    `parts` are suffixes of their names, such as ".query.weight", from the upper rows to the lower ones; `fused` is the
    result's. Raises DependencyError where a module has some of the matrices but not all.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        suffix = next((part for part in parts if name.endswith(part)), None)
        if suffix is None:
            out[name] = value
            continue
        matrices = [name.removesuffix(suffix) + part for part in parts]
        if missing := [matrix for matrix in matrices if matrix not in state]:
            raise DependencyError(f"the weights are not complete: {name} is there, {truncate_list(missing)} is not")
        if suffix == parts[0]:
            out[name.removesuffix(suffix) + fused] = torch.cat([state[matrix] for matrix in matrices])
    return out


def split_projections(state: Mapping[str, Tensor], fused: str, parts: Mapping[str, int]) -> dict[str, Tensor]:
    """Split stacked matrices, the inverse of `merge_projections`; `parts` has each suffix's share of rows."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith(fused):
            out[name] = value
            continue
        shares = sum(parts.values())
        rows, remainder = divmod(value.shape[0], shares)
        if remainder:
            raise DependencyError(f"{name} has {value.shape[0]} rows, which {shares} projections cannot share")
        matrices = value.split([share * rows for share in parts.values()])
        out |= {name.removesuffix(fused) + part: matrix for part, matrix in zip(parts, matrices, strict=True)}
    return out


def count_indices(state: Iterable[str], template: str) -> int:
    """Count the numbers N in names like `template`, "layers.N.norm.weight"."""
    pattern = re.compile(re.escape(template).replace(r"\.N\.", r"\.(\d+)\."))
    return len({match[1] for name in state if (match := pattern.fullmatch(name))})


def language_model_sizes(
    state: Mapping[str, Tensor], model: str, *, embedding: str, norm: str, cross: str, feedforward: str
) -> dict[str, object]:
    """Return the sizes of a MusicGen by its weights, whose names are given with N for the number."""
    first = {name: name.replace(".N.", ".0.") for name in (embedding, cross, feedforward)}
    table = state.get(first[embedding])
    if table is None:
        raise DependencyError(f"these are not the weights of {model}: {first[embedding]} is missing")
    sizes: dict[str, object] = {
        "dim": table.shape[1],
        "codebook_size": table.shape[0] - 1,  # without the special token
        "num_codebooks": count_indices(state, embedding),
        "num_layers": count_indices(state, norm),
        "cross_attention": first[cross] in state,
    }
    if first[feedforward] in state:
        sizes["ffn_dim"] = state[first[feedforward]].shape[0]
    return sizes


def check_sizes_match(settings: Mapping[str, object], sizes: Mapping[str, object]) -> None:
    """Raise DependencyError where the settings contradict the shapes of the weights."""
    pairs = [(name, settings[name], size) for name, size in sizes.items() if settings[name] != size]
    if differing := [f"{name} is {setting} but {size} by the weights" for name, setting, size in pairs]:
        raise DependencyError(f"settings and weights are not of the same model: {'; '.join(differing)}")


def truncate_list(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
