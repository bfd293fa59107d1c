"""SHA-256 digests of what files hold, whatever their containers and metadata say.

N samples, C channels.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import mido
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

TENSOR_FILES = {".safetensors", ".bin", ".ckpt"}


def digest(parts: Iterable[bytes]) -> str:
    """The digest of all `parts` in turn, the first 32 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:32]


def unordered(parts: Iterable[bytes]) -> str:
    """The digest of `parts` in whatever order they come."""
    return digest(sorted(hashlib.sha256(part).digest() for part in parts))


def sound_file(path: Path) -> str:
    """The samples (N, C) of a sound file, as float32."""
    return digest([soundfile.read(path, dtype="float32", always_2d=True)[0].tobytes()])


def soundtrack(path: Path) -> str:
    """The decoded samples of a video's first sound track."""
    with av.open(str(path)) as container:
        return digest(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))


def pictures(path: Path) -> str:
    """The decoded pictures of a video."""
    with av.open(str(path)) as container:
        return digest(frame.to_ndarray().tobytes() for frame in container.decode(video=0))


def midi(path: Path) -> str:
    """The events of a MIDI file but for names and other text."""
    tracks = mido.MidiFile(path).tracks
    return digest(
        str((number, message.dict() | {"name": "", "text": ""})).encode()
        for number, track in enumerate(tracks)
        for message in track
    )


def tensors(held: Any) -> Iterator[Tensor]:
    """Every tensor below `held`: a tensor, or nested mappings and sequences of them."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict | list | tuple):
        for part in held.values() if isinstance(held, dict) else held:
            yield from tensors(part)


def weights(held: Any) -> str:
    """All tensors below `held`, whatever their names and order are."""
    return unordered(
        str((tuple(each.shape), each.dtype)).encode() + each.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for each in tensors(held)
    )


def checkpoint_folder(folder: Path) -> str:
    """All tensors of the files below `folder`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in TENSOR_FILES]
    held = [load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True) for path in paths]
    return weights(held)


def shards(folder: Path) -> dict[str, str]:
    """Of the samples of all shards: each member's bytes, and of JSON members the values without their keys."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None, f"{member.name} in {path} is no file"
                kind = member.name.partition(".")[2]
                held = file.read()
                found.setdefault(kind, []).append(_values(json.loads(held)) if kind == "json" else held)
    return {kind: unordered(parts) for kind, parts in found.items()}


def _values(held: Any) -> bytes:
    return "\n".join(sorted(map(repr, _leaves(held)))).encode()


def _leaves(held: Any) -> Iterator[Any]:
    if isinstance(held, dict | list):
        for part in held.values() if isinstance(held, dict) else held:
            yield from _leaves(part)
    else:
        yield held


def columns(path: Path) -> dict[str, str]:
    """Each column of a CSV file, as it is written, without empty cells."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: digest(f"{row[name]}\n".encode() for row in rows if row[name]) for name in rows[0]}


def numbers(path: Path) -> str:
    """The numbers of a CSV file, row by row, whatever the names and order of rows and columns are."""
    with path.open() as file:
        rows = [sorted(cell for cell in row.values() if _is_number(cell)) for row in csv.DictReader(file)]
    return unordered(",".join(row).encode() for row in rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
