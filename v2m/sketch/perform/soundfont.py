"""The SoundFont that plays: where the built-in one lies, and what the sidecar says of it."""

from __future__ import annotations

from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path

from v2m.core.errors import DependencyError

# sha256 → license, of banks that are known
_LICENSES = {"82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1": "GPL-2.0 (TimGM6mb)"}


def default_soundfont() -> Path:
    """The General MIDI bank that the package pretty_midi carries, found without importing it."""
    spec = find_spec("pretty_midi")
    path = Path(spec.origin).with_name("TimGM6mb.sf2") if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise DependencyError(
            "the SoundFont of the package pretty_midi is missing: reinstall it, or give soundfont=FILE.sf2"
        )
    return path


def provenance(soundfont: Path) -> dict[str, str | None]:
    """The bank's file name, sha256 and, where it is known, its license."""
    with soundfont.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"file": soundfont.name, "sha256": digest, "license": _LICENSES.get(digest)}
