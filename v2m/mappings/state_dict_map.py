"""State-dict key maps, which the mappings of this package share.

A key map gives a name's counterpart in the other layout, or None where it is dropped on purpose. The first number in a
name (a layer's, a codebook's) is written N.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from v2m.core.errors import DependencyError

MAX_LISTED_NAMES = 3  # names in one line
_NUMBER = re.compile(r"(?<=\.)(0|[1-9]\d*)(?=\.)")


def rename_keys(state: Mapping[str, Tensor], table: Mapping[str, str | None], what: str) -> dict[str, Tensor]:
    """Rename `state` by a key map.

    Raises:
        DependencyError: Names are not in the table: `what` does not have them. Lists the first three.
    """
    out: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        number = _NUMBER.search(name)
        if normalize_index(name) not in table or (number is None and ".N." in name):
            unknown.append(name)
            continue
        new = table[normalize_index(name)]
        if new is not None:
            out[new.replace(".N.", f".{number.group()}.", 1) if number else new] = value
    if unknown:
        raise DependencyError(f"these are not the weights of {what}: it has no {truncate_list(unknown)}")
    return out


def normalize_index(name: str) -> str:
    """Return `name` with its first number written N."""
    return _NUMBER.sub("N", name, count=1)


def invert(table: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the key map of the other direction."""
    return {new: old for old, new in table.items() if new is not None}


def merge_projections(state: Mapping[str, Tensor], parts: Sequence[str], whole: str) -> dict[str, Tensor]:
    """Stack matrices of one module by rows: `a.query.weight` and `a.key.weight` as `a.query_key.weight`.

    Args:
        state: Left as it is.
        parts: Ends of their names, such as ".query.weight", from the upper rows to the lower ones.
        whole: End of the name of the result.

    Raises:
        DependencyError: A module has some of them but not all; names the missing one.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        part = next((each for each in parts if name.endswith(each)), None)
        if part is None:
            out[name] = value
            continue
        module = name.removesuffix(part)
        lacking = [module + each for each in parts if module + each not in state]
        if lacking:
            raise DependencyError(f"the weights are not complete: {name} is there, {truncate_list(lacking)} is not")
        if part == parts[0]:
            out[module + whole] = torch.cat([state[module + each] for each in parts])
    return out


def split_projections(state: Mapping[str, Tensor], whole: str, parts: Mapping[str, int]) -> dict[str, Tensor]:
    """Split stacked matrices, the inverse of `merge_projections`; `parts` says how many shares of the rows each has.

    Raises:
        DependencyError: The rows cannot be split so.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith(whole):
            out[name] = value
            continue
        rows, left = divmod(value.shape[0], sum(parts.values()))
        if left:
            raise DependencyError(
                f"{name} has {value.shape[0]} rows, which {sum(parts.values())} projections cannot share"
            )
        pieces = value.split([share * rows for share in parts.values()])
        out |= {name.removesuffix(whole) + end: piece for end, piece in zip(parts, pieces, strict=True)}
    return out


def count_indices(state: Iterable[str], template: str) -> int:
    """Count the numbers N in names like `template`, "layers.N.norm.weight"."""
    pattern = re.compile(re.escape(template).replace(r"\.N\.", r"\.(\d+)\."))
    return len({found[1] for name in state if (found := pattern.fullmatch(name))})


def check_sizes_match(settings: Mapping[str, object], sizes: Mapping[str, object]) -> None:
    """Raises DependencyError where the settings contradict the shapes of the weights."""
    differing = [
        f"{name} is {settings[name]} but {sizes[name]} by the weights"
        for name in sizes
        if settings[name] != sizes[name]
    ]
    if differing:
        raise DependencyError(f"settings and weights are not of the same model: {'; '.join(differing)}")


def truncate_list(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
