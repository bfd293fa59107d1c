"""A dataset at an address, and the local folder in which it is made or continued.

The manifest is written last and old shards are removed after it, so that a reader finds a whole dataset at any time. A
run that was ended goes on where it stopped on the machine, or the shared disk, that has its folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from v2m.core import remote
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.remote import RemoteFile, printable_address
from v2m.data import progress_log
from v2m.data.schema import MANIFEST, Manifest
from v2m.data.shards import size_problems

WRITTEN = ".written"  # a file in the folder of a dataset that has been whole at its address


@contextmanager
def local_folder(address: str) -> Iterator[Path]:
    """Provide the local folder of the dataset at `address`, which is written when the block ends well.

    Raises UsageError where the address holds something else, or another run of this machine writes to it.
    """
    folder = _cached(address, "datasets")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with progress_log.hold_lock(folder.with_suffix(".lock"), printable_address(address)):
        _pull(address, folder)
        yield folder
        _push(folder, address)


def copy_dataset(address: str) -> Path:
    """Copy the manifest and the shards at an address to a folder of this machine, and return it.

    What is there already is kept. A copy lies below `V2M_CACHE`, whose limit of size does not count it. Raises
    DependencyError where there is no dataset, or where it changes meanwhile.
    """
    files, folder = _list(address), _cached(address, "copies")
    if MANIFEST not in files:
        raise DependencyError(f"{printable_address(address)!r} holds no dataset (no {MANIFEST})")
    folder.mkdir(parents=True, exist_ok=True)
    _copy(files, MANIFEST, folder)
    _copy_shards(files, folder, may_lack=True)  # which the reader of the copy reports
    return folder


def _cached(address: str, kind: str) -> Path:
    return remote.cache_folder() / kind / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def _list(address: str) -> dict[str, RemoteFile]:
    """Return the files below an address by their names from there."""
    prefix = f"{address.rstrip('/')}/"
    try:
        return {file.address.removeprefix(prefix): file for file in remote.list_files(prefix)}
    except InvalidInputError as error:
        if error.reason == "missing":
            return {}
        raise


def _pull(address: str, folder: Path) -> None:
    """Copy the settings, the records, the manifest and its shards, as far as the folder lacks them."""
    files, shown = _list(address), printable_address(address)
    if not files:
        if (folder / WRITTEN).exists():  # the dataset has been removed from the address since
            shutil.rmtree(folder)
        return
    if progress_log.SETTINGS not in files:
        raise UsageError(f"{shown!r} holds something else than a dataset: give a new address")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        copies = Path(name)
        _copy(files, progress_log.SETTINGS, copies)
        settings = folder / progress_log.SETTINGS
        if not settings.exists():
            _copy(files, progress_log.SETTINGS, folder)
        elif not _is_equal_json(settings, copies / progress_log.SETTINGS):
            raise UsageError(f"{shown!r} was prepared anew with other settings: remove {str(folder)!r}")
        if MANIFEST not in files:
            return
        _copy(files, progress_log.RECORDS, copies)
        records = progress_log.read_records(copies) | progress_log.read_records(folder)
    progress_log.replace_records(folder, records.values())
    _copy(files, MANIFEST, folder)
    (folder / WRITTEN).touch()
    _copy_shards(files, folder)


def _is_equal_json(first: Path, second: Path) -> bool:
    with suppress(ValueError):
        return json.loads(first.read_bytes()) == json.loads(second.read_bytes())
    return False


def _copy_shards(files: Mapping[str, RemoteFile], folder: Path, *, may_lack: bool = False) -> None:
    manifest = Manifest.read(folder)
    size_problems(str(folder), manifest, {})  # refuses names outside of the folder
    for shard in manifest.shards:
        path = folder / shard.file
        is_whole = path.is_file() and path.stat().st_size == shard.num_bytes
        if not is_whole and (shard.file in files or not may_lack):
            _copy(files, shard.file, folder)


def _copy(files: Mapping[str, RemoteFile], name: str, folder: Path) -> None:
    if name not in files:
        problem = f"the dataset at an address lacks {name}"
        raise DependencyError(f"{problem}: write it again, or give a new address")
    remote.download(files[name], folder / name)


def _push(folder: Path, address: str) -> None:
    """Write settings, new shards, records, and then the manifest; remove what it no longer names."""
    files = _list(address)
    shards = {shard.file: shard.num_bytes for shard in Manifest.read(folder).shards}
    new = [name for name, size in shards.items() if name not in files or files[name].size != size]
    # The settings first: by them the next run finds that an upload which was ended is a dataset.
    for name in (progress_log.SETTINGS, *new, progress_log.RECORDS, MANIFEST):
        remote.write_file(folder / name, remote.join(address, name))
    (folder / WRITTEN).touch()
    for name, file in files.items():
        if name.endswith(".tar") and "/" not in name and name not in shards:
            remote.remove_file(file.address)
