"""Build hook: puts the synthesizer (TinySoundFont) into the wheel, as the package `_v2m_tinysoundfont`.

The distribution tinysoundfont requires pyaudio, for live playback alone; pyaudio has no wheel for Linux and does not
build without PortAudio's headers. Its wheel is therefore fetched without its requirements, and its files become part of
v2m's wheel, which takes over its platform tag. They import each other by relative names: the package can be renamed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIREMENT = "tinysoundfont==0.3.7"  # another version may not play the same samples
PACKAGE = "_v2m_tinysoundfont"


class SynthesizerHook(BuildHookInterface):
    """Hook of the wheel target, editable wheels included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the synthesizer (pip's own settings say from where) and name its files to hatchling."""
        self._folder = TemporaryDirectory()
        folder = Path(self._folder.name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), REQUIREMENT], check=True)
        (wheel,) = folder.glob("*.whl")
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
        build_data["pure_python"] = False
        build_data["tag"] = "-".join(wheel.stem.split("-")[2:])
        included = build_data["force_include_editable" if version == "editable" else "force_include"]
        included[str(folder / "tinysoundfont")] = PACKAGE
        (info,) = folder.glob("*.dist-info")  # its license, and the version that the sidecar names
        included[str(info)] = f"{PACKAGE}/{info.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove what was fetched."""
        self._folder.cleanup()
