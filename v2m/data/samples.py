"""A sample's members as arrays, checked against the manifest."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from v2m.core.errors import DependencyError
from v2m.data.schema import CODES, DTYPES, EVENTS, FRAMES, LONG_TERM, META, TEXT, Manifest, Meta
from v2m.data.shards import CorruptSampleError


class Sample(NamedTuple):
    """Shapes are the schema's."""

    meta: Meta
    codes: np.ndarray  # (K, T)
    frames: np.ndarray  # (F, P, W)
    long_term: np.ndarray  # (G, P, W)
    events: np.ndarray  # (R, C)
    text: np.ndarray  # (L, D)


def decode(raw: Mapping[str, bytes], manifest: Manifest) -> Sample:
    """Arrays of the bytes of a sample's members.

    Raises:
        BadSampleError: This sample is broken: not JSON, no array, as long as it does not say, not a number.
        DependencyError: It is whole, but of another schema than the manifest: other types, widths or codebooks.
    """
    meta = _parse_meta(raw[META])
    found = {name: _parse_array(name, raw[name], meta.key) for name in DTYPES}
    for name, shape in manifest.shapes(meta).items():
        _check_shape(name, found[name], shape, meta.key)
    codes = found[CODES]
    if codes.min() < 0 or codes.max() >= manifest.codebook_size:
        raise CorruptSampleError(f"sample {meta.key!r} has codes outside 0–{manifest.codebook_size - 1}")
    return Sample(meta, codes, found[FRAMES], found[LONG_TERM], found[EVENTS], found[TEXT])


def _parse_meta(held: bytes) -> Meta:
    try:
        meta = Meta(**json.loads(held))
        numbers = [float(value) for value in (meta.start, meta.duration, meta.video_duration)]
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptSampleError(f"a sample's description cannot be read ({' '.join(str(error).split())})") from None
    if not np.isfinite(numbers).all() or meta.duration <= 0 or meta.video_duration <= 0:
        raise CorruptSampleError(f"sample {meta.key!r} lasts {meta.duration} s of {meta.video_duration} s")
    return meta


def _parse_array(name: str, held: bytes, key: str) -> np.ndarray:
    try:
        found = np.lib.format.read_array(io.BytesIO(held), allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise CorruptSampleError(f"sample {key!r}: {name} is no array ({' '.join(str(error).split())[:100]})") from None
    if found.dtype.name != DTYPES[name]:
        raise DependencyError(f"sample {key!r}: {name} holds {found.dtype.name}, not {DTYPES[name]}: {CURE}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise CorruptSampleError(f"sample {key!r}: {name} holds values that are no numbers")
    return found


CURE = "the shards and their dataset.json do not belong together; prepare them again"


def _check_shape(name: str, found: np.ndarray, shape: tuple[int | None, ...], key: str) -> None:
    """The axis of time, the only one that a sample decides, may make it a bad one; any other is the schema's."""
    time = 1 if name == CODES else 0
    fixed = [size for axis, size in enumerate(shape) if axis != time or name == LONG_TERM]
    own = [size for axis, size in enumerate(found.shape) if axis != time or name == LONG_TERM]
    if found.ndim != len(shape) or own != fixed:
        raise DependencyError(
            f"sample {key!r}: {name} has the shape {found.shape} instead of {_format_shape(shape)}: {CURE}"
        )
    wanted = shape[time]
    if wanted is not None and found.shape[time] != wanted:
        raise CorruptSampleError(
            f"sample {key!r}: {name} has the shape {found.shape} instead of {_format_shape(shape)}"
        )


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
