"""Files at addresses of fsspec, such as s3://bucket/clips: listing, a local cache, writing.

Credentials come from the environment, as each service's own library reads them (AWS_ACCESS_KEY_ID,
GOOGLE_APPLICATION_CREDENTIALS …). An address may not hold any; the query of a web address, where signatures stand, is
never shown.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from v2m.core.atomic import publish, temporary_sibling
from v2m.core.errors import DependencyError, InvalidInputError, UsageError, error_text, require_packages

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # a scheme of two letters or more: C:\ is a drive
WEB_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
# A user's name before an @, or a colon that begins no port and no ARN. A secret may hold slashes, as those of AWS do.
CREDENTIALS = re.compile(r"[^:/]*://([^/?#]*@|(?!arn:)[^/:?#\[\]]*:(?!\d+([/?#]|$)))")
QUERY = re.compile(r"(://[^\s?'\"]*)\?\S*?(?=['\"),]*(\s|$))")  # up to the punctuation of the text around the address
ATOMIC_SCHEMES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"}  # an object appears there when it is whole
VERSION_FIELDS = ("ETag", "etag", "LastModified", "Last-Modified", "updated", "mtime", "last_modified", "created")
BLOCK_BYTES = 4 << 20  # read ahead in an open file: S3's own 50 MB, in each of many open shards, would fill the memory
CACHE_VARIABLE, SIZE_VARIABLE = "V2M_CACHE", "V2M_CACHE_GB"
DEFAULT_CACHE_GB = 20.0
USE_PREFIX, STALE_S = ".use-", 7 * 86400  # folders of copies in use; no video takes a week


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file at an address, as it was listed: its size in bytes, −1 where unknown, and its version or ""."""

    address: str
    size: int
    version: str

    @property
    def name(self) -> str:
        return PurePosixPath(without_query(self.address)).name


def is_address(name: str) -> bool:
    """Return whether a command's argument is an address and no path of this machine."""
    return ADDRESS.match(name) is not None


def printable_address(address: str) -> str:
    """Return an address without what may be secret."""
    if any(map(CREDENTIALS.match, address.split("::"))):  # of a chain any
        return f"{address.partition('://')[0]}://…"
    return without_query(address)


def without_query(address: str) -> str:
    """Return a web address up to its query or fragment, any other unchanged: keys may hold ? and #."""
    return re.split(r"[?#]", address, maxsplit=1)[0] if WEB_ADDRESS.match(address) else address


def error_summary(error: BaseException, address: str) -> str:
    """Return the message of an error at an address on one line, at most 200 characters, without secrets."""
    text = error_text(error).replace(address, printable_address(address))
    return QUERY.sub(r"\1", text)[:200]  # an HTTP library may spell the address differently


def check_address(address: str) -> None:
    """Raise UsageError for an address with credentials, and for a chain of addresses."""
    if CREDENTIALS.match(address):
        problem = f"{printable_address(address)!r} was given with credentials"
        raise UsageError(f"{problem}: leave them out, and set the variables of the service instead")
    if "::" in address:
        raise UsageError(f"{printable_address(address)!r} is a chain of addresses: give one")


def join(address: str, name: str) -> str:
    return f"{address.rstrip('/')}/{name}"


def list_files(address: str) -> list[RemoteFile]:
    """Return the file at `address`, or all files below it, sorted by address.

    A folder of web pages' links ends with a slash; an object whose name does stands for a folder and is left out.
    Raises UsageError for an address with credentials, InvalidInputError for one that cannot be read or holds nothing.
    """
    with _readable_errors(address):
        file_system, path = _open(address)
        file_system.invalidate_cache()  # another process may have written since
        if address.rstrip("/") == address and file_system.isfile(path):
            return [_describe(address, file_system.info(path))]
        root = path.rstrip("/")
        entries = file_system.find(root, detail=True)
        files = [
            (name, info) for name, info in entries.items() if info.get("type") != "directory" and not name.endswith("/")
        ]
        if any(info.get("size") is None for _, info in files):  # a list of links
            files = [(name, file_system.info(name)) for name, _ in files]
    if not files:
        raise InvalidInputError("missing", f"nothing is at {printable_address(address)!r}: check the name")
    names = [name.removeprefix(root).lstrip("/") for name, _ in files]
    return sorted(_describe(join(address, name), info) for name, (_, info) in zip(names, files, strict=True))


def find_file(address: str) -> RemoteFile | None:
    """Return the file at `address`, or None where there is none."""
    with _readable_errors(address):
        file_system, path = _open(address)
        file_system.invalidate_cache()  # another process may have written since
        return _describe(address, file_system.info(path)) if file_system.exists(path) else None


def _describe(address: str, info: dict[str, Any]) -> RemoteFile:
    version = next((info[field] for field in VERSION_FIELDS if info.get(field)), "")
    version = version.timestamp() if isinstance(version, datetime) else version  # as lists of some services have it
    size = info.get("size")
    return RemoteFile(address, -1 if size is None else int(size), str(version))


def read_bytes(address: str) -> bytes:
    """Read a small file. Raise InvalidInputError where that fails."""
    with _readable_errors(address):
        file_system, path = _open(address)
        return file_system.cat_file(path)


@contextmanager
def open_file(address: str) -> Iterator[Any]:
    """Provide a file, open for reading in binary mode. Raise InvalidInputError where it cannot be opened.

    Reading raises what the service's own library raises.
    """
    with _readable_errors(address):
        file_system, path = _open(address)
        file = file_system.open(path, "rb", block_size=BLOCK_BYTES)
    with file:
        yield file


def write_file(source: Path, address: str) -> None:
    """Write a local file to `address`, whole or not at all. Raise DependencyError where that fails."""
    with _readable_errors(address, writes=True):
        file_system, path = _open(address)
        if address.partition("://")[0].lower() in ATOMIC_SCHEMES:
            file_system.put_file(str(source), path)
            return
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.v2m-partial"  # another run may write the same file
        file_system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        try:
            file_system.put_file(str(source), temporary)
            file_system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):  # nothing was written, or the connection is lost
                file_system.rm_file(temporary)
            raise


def remove_file(address: str) -> None:
    """Remove a file. Raise DependencyError where that fails."""
    with _readable_errors(address, writes=True):
        file_system, path = _open(address)
        file_system.rm_file(path)


@contextmanager
def local_copy(file: RemoteFile) -> Iterator[Path]:
    """Provide a copy of the file under its own name, from the cache where its version is there.

    The cache lies in `V2M_CACHE` (~/.cache/v2m) and keeps at most `V2M_CACHE_GB` (20) of files that are not in use; the
    least recently used go first.
    """
    cache = cache_folder() / "files"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=USE_PREFIX, dir=cache) as folder:
        copy = Path(folder) / file.name
        cached = cache / hashlib.sha256(repr(file).encode()).hexdigest()[:32]
        try:
            _link(cached, copy)  # a link of its own: the cache may drop the file meanwhile
            os.utime(cached)
        except FileNotFoundError:
            _make_room(cache, max(file.size, 0))
            download(file, copy)
            if file.version:  # else it cannot be known whether it is still the same
                with suppress(OSError), temporary_sibling(cached) as temporary:
                    temporary.unlink()
                    _link(copy, temporary)
                    publish(temporary, cached)
        yield copy


def cache_folder() -> Path:
    """Return the folder of copies and of unfinished datasets."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "v2m")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def download(file: RemoteFile, path: Path) -> None:
    """Copy a file to `path`, whole or not at all. Raise InvalidInputError where that fails."""
    with temporary_sibling(path) as temporary:
        with _readable_errors(file.address):
            file_system, source = _open(file.address)
            file_system.get_file(source, str(temporary))
        size = temporary.stat().st_size
        if size != file.size >= 0:
            problem = f"{size} bytes came instead of {file.size}"
            raise InvalidInputError("changed", f"{printable_address(file.address)!r}: {problem}: run it again")
        publish(temporary, path)


def _make_room(cache: Path, size: int) -> None:
    """Remove the least recently used files until `size` more bytes are within the limit."""
    entries = []
    for path in cache.iterdir():
        with suppress(OSError):  # removed by another process
            if path.is_file():
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    excess = sum(entry[1] for entry in entries) + size - _cache_bytes()
    for _, num_bytes, path in sorted(entries):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= num_bytes
    for folder in cache.glob(f"{USE_PREFIX}*"):  # of killed processes
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_S:
                shutil.rmtree(folder)


def _cache_bytes() -> int:
    value = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_CACHE_GB)
    try:
        size = float(value)
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise UsageError(f"{SIZE_VARIABLE}={value!r} must be gigabytes, 0 or more")
    return int(size * 1e9)


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it. Raise UsageError as `check_address`."""
    require_packages("fsspec")
    check_address(address)
    from fsspec.core import url_to_fs

    return url_to_fs(address)


@contextmanager
def _readable_errors(address: str, *, writes: bool = False) -> Iterator[None]:
    """Raise what goes wrong at an address with one line, without the address's secrets."""
    try:
        yield
    except (UsageError, InvalidInputError, ImportError):
        raise
    except Exception as error:  # each service has its own types
        shown, cure = printable_address(address), "check the name, and the credentials in the environment"
        text = error_summary(error, address)
        if writes:
            raise DependencyError(f"{shown!r} cannot be written ({text}): {cure}") from None
        if isinstance(error, FileNotFoundError):
            raise InvalidInputError("missing", f"nothing is at {shown!r}: check the name") from None
        raise InvalidInputError("unreachable", f"{shown!r} cannot be read ({text}): {cure}") from None
