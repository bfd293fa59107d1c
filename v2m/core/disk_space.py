"""Room on disks and in memory: what surely does not fit is refused before the work."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

from v2m.core.errors import DiskFullError

MEMORY_FILE = Path("/proc/meminfo")  # Linux's


def format_bytes(size: float) -> str:
    """Bytes in decimal units: 12.4 GB, 1.8 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"


def free_bytes(folder: Path) -> float:
    """Return the free bytes of a folder's disk; infinity where its file system reports none at all."""
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total else math.inf


def available_memory() -> float:
    """Return the bytes of memory and swap that programs may still take; infinity where not known."""
    try:
        rows = dict(line.split(":") for line in MEMORY_FILE.read_text(encoding="ascii").splitlines())
        return 1024 * sum(int(rows[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError):
        return math.inf


def check_space(arrays: int, outputs: int = 0, folder: Path | None = None) -> None:
    """Raise DiskFullError where bytes surely find no room.

    Args:
        arrays: Bytes of audio in the work, in temporary files or in memory (`v2m.core.mapped_array`).
        outputs: Bytes of the files to write in `folder`.
        folder: The folder of the outputs.
    """
    temporary, memory = Path(tempfile.gettempdir()), available_memory()
    if folder is not None and outputs > (free := free_bytes(folder)):
        problem = f"the files to write take {format_bytes(outputs)} or more, and {format_bytes(free)} are free"
        cure = "free some room there, give another `out`, or ask for fewer files (`stems`, `wav`, `candidates`)"
        raise DiskFullError(f"{str(folder)!r}: {problem}: {cure}")
    free = free_bytes(temporary)
    shared = outputs if folder is not None and folder.stat().st_dev == temporary.stat().st_dev else 0
    if arrays + shared > free + memory:
        use = f"the sound in the work takes {format_bytes(arrays)} or more"
        use += f" and the files to write {format_bytes(shared)}" if shared else ""
        room = f"{format_bytes(free)} are free there and {format_bytes(memory)} in memory"
        cure = "set TMPDIR to a folder with more room, or ask for less (`stems`, `candidates`, `start` and `end`)"
        raise DiskFullError(f"{str(temporary)!r}: {use}, and {room}: {cure}")
