"""TensorFlow checkpoints, read without TensorFlow: `NAME.index` and `NAME.data-00000-of-00001`.

The index is a sorted string table of LevelDB: blocks of entries whose keys share prefixes, a footer that locates the
block of blocks. Its keys are names of variables; its values, messages `BundleEntryProto` of TensorFlow's
`tensor_bundle.proto`, locate each in the data file. Nothing in either file is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v2m.core.errors import DependencyError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48  # bytes: two block handles, padding, MAGIC
DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    6: "i1",
    9: "<i8",
    19: "<f2",
}  # by the numbers of TensorFlow's DataType
MAX_NAME_LENGTH = 1024  # bytes; names repeat those before, so that a small file could ask for much memory
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protobuf


def read_tensorflow_checkpoint(folder: Path, name: str = "") -> dict[str, Tensor]:
    """Return all variables of the checkpoint `name` in `folder`, by their names in TensorFlow.

    Raises DependencyError for a checkpoint in several data files or compressed, and for a truncated file.
    """
    index, data = folder / f"{name}.index", folder / f"{name}.data-00000-of-00001"
    for path in (index, data):
        if not path.is_file():
            raise DependencyError(f"{str(path)!r} is missing: copy both files of the TensorFlow checkpoint")
    try:
        entries = dict(_table_entries(index.read_bytes()))
        _check_header(entries.pop(b"", b""))
        content = memoryview(data.read_bytes())
        return {key.decode(): _read_variable(value, content) for key, value in entries.items()}
    except (ValueError, IndexError, OverflowError) as error:
        raise DependencyError(
            f"{str(index)!r} and its data are no TensorFlow checkpoint that can be read ({error})"
        ) from error


def _table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    if table[-len(MAGIC) :] != MAGIC or len(table) < FOOTER_SIZE:
        raise ValueError("the index does not end as a table does")
    footer = table[-FOOTER_SIZE:]
    _, position = _block_handle(footer, 0)  # of the metaindex, which is empty
    handle, _ = _block_handle(footer, position)
    for _, value in _block_entries(_block(table, handle)):
        yield from _block_entries(_block(table, _block_handle(value, 0)[0]))


def _block_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return offset and size of a block, and the position behind them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _block(table: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    block = _cut(table, offset, size + 1)
    if block[-1] != 0:
        raise ValueError(f"a block is compressed, of type {block[-1]}")
    return block[:-1]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values; behind them stand restart points, 4 bytes each, and their number."""
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise ValueError("a block of the index is too short")
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        size, position = _varint(block, position)
        if shared + added > MAX_NAME_LENGTH:
            raise ValueError(f"a name has {shared + added} bytes")
        key = _cut(key, 0, shared) + _cut(block, position, added)
        yield key, _cut(block, position + added, size)
        position += added + size


def _check_header(header: bytes) -> None:
    """Refuse what `BundleHeaderProto` names: more than one data file, or big-endian numbers."""
    fields = dict(_message_fields(header))
    if fields.get(1) != 1:
        raise ValueError(f"it has {fields.get(1, 'no')} data files, not one")
    if fields.get(2, 0) != 0:
        raise ValueError("its numbers are big-endian")


def _read_variable(entry: bytes, content: memoryview) -> Tensor:
    """Return what a `BundleEntryProto` locates in the data file."""
    fields = dict(_message_fields(entry))
    if 7 in fields:
        raise ValueError("a variable is stored in slices")
    dtype, offset, size = (_as_int(fields.get(number, 0)) for number in (1, 4, 5))
    if dtype not in DTYPES:
        raise ValueError(f"a variable is of type {dtype}")
    dims = (
        dict(_message_fields(_as_bytes(dim)))
        for number, dim in _message_fields(_as_bytes(fields.get(2, b"")))
        if number == 2
    )
    shape = [_as_int(dim.get(1, 0)) for dim in dims]
    item_type = np.dtype(DTYPES[dtype])
    if math.prod(shape) * item_type.itemsize != size or offset + size > len(content):
        raise ValueError(f"a variable of shape {shape} does not fit {size} bytes at {offset}")
    return torch.from_numpy(np.frombuffer(content[offset : offset + size], item_type).reshape(shape).copy())


def _message_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protobuf message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == BYTES:
            size, position = _varint(message, position)
        elif wire_type in {FIXED32, FIXED64}:
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"a message has a field of wire type {wire_type}")
        yield number, _cut(message, position, size)
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an unsigned number of seven bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is longer than 64 bits")


def _cut(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise ValueError("the index is truncated")
    return data[start : start + size]


def _as_int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a field of a message is no number")
    return value


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field of a message is no message")
    return value
