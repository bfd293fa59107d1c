"""Shards of random codes and features as `v2m.data.schema` says, written with WebDataset's own writer."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from webdataset.writer import TarWriter

from v2m.data.schema import CODES, FRAMES, META, RHYTHM, TEXT, TYPES, WHOLE, Manifest, Meta, Shard
from v2m.timing import step_times

KEPT = Manifest(
    vision="tiny:grid",
    tokens=5,
    width=24,
    aspect="crop",
    frame_rate=2.0,
    whole=6,
    rhythm_rate=20.0,
    rhythm=("cut", "motion", "motion_rise", "flow", "brightness", "flash", "contrast", "saturation"),
    codec="tiny",
    sample_rate=32000,
    code_rate=50,
    codebooks=4,
    entries=64,
    text="tiny",
    text_width=16,
    tagger="none",
)
Change = Callable[[int, dict[str, bytes]], None]


def arrays(meta: Meta, number: int, manifest: Manifest = KEPT) -> dict[str, np.ndarray]:
    """Of sample `number`: random, but for the codes, which count up from it with the frames of the video, and the first
    channel of pictures and rhythm, which is their second in the video. Every fourth has no text."""
    random = np.random.default_rng(number)
    found: dict[str, np.ndarray] = {}
    for name, shape in manifest.shapes(meta).items():
        found[name] = random.normal(size=[3 if size is None else size for size in shape]).astype(TYPES[name])
    frames = np.arange(found[CODES].shape[1]) + int(meta.begin * manifest.code_rate) + number
    found[CODES][:] = frames % manifest.entries
    for name, begin, seconds in ((FRAMES, meta.begin, meta.duration), (WHOLE, 0.0, meta.video_duration)):
        found[name][..., 0] = (begin + step_times(seconds, len(found[name])))[:, None]
    found[RHYTHM][:, 0] = meta.begin + step_times(meta.duration, len(found[RHYTHM]))
    if number % 4 == 3:
        found[TEXT] = found[TEXT][:0]
    return found


def members(number: int, seconds: float = 8.0, manifest: Manifest = KEPT) -> dict[str, bytes]:
    meta = Meta(f"sample{number:04d}", f"{number}.mp4", 4.0, seconds, seconds + 10.0)
    return {META: json.dumps(asdict(meta)).encode(), **{k: saved(v) for k, v in arrays(meta, number, manifest).items()}}


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=array.dtype.hasobject)
    return file.getvalue()


def write(
    folder: Path,
    counts: tuple[int, ...] = (5, 4, 3),
    *,
    seconds: float = 8.0,
    manifest: Manifest = KEPT,
    change: Change | None = None,
    first: int = 0,
) -> Path:
    """A shard of each of `counts` samples, and the manifest. `change` may alter a sample's members."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, number = [], first
    for index, count in enumerate(counts):
        path = folder / f"{index:05d}.tar"
        with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0.0) as tar:
            for _ in range(count):
                held = members(number, seconds, manifest)
                if change is not None:
                    change(number, held)
                tar.write({"__key__": f"sample{number:04d}", **held})
                number += 1
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(Shard(path.name, path.stat().st_size, digest, count, count * seconds))
    Manifest(**{**vars(manifest), "shards": tuple(shards)}).write(folder)
    return folder
