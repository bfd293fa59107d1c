"""Where a run writes: every file of one video, which appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.errors import UsageError
from v2m.io import mixer
from v2m.types import Video

if TYPE_CHECKING:
    from v2m.score import Extras


def printable(name: str) -> str:
    """A file name on one line: control characters and undecodable bytes as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


@dataclass(frozen=True)
class Outputs:
    """The files of one run: the video, and what lies beside it under the same stem."""

    folder: Path
    name: str  # of the video
    markers_kind: str = "edl"

    @classmethod
    def plan(cls, clip: Video, out: Path, extras: Extras, overwrite: bool) -> Outputs:
        """Checks that all of it can be written, before any long work.

        Raises:
            UsageError: A file exists and `overwrite` is off, `out` is the input, or its folder is missing.
        """
        mixer.check_output(clip.path, out, overwrite)
        outputs = cls(out.parent.resolve(), out.name, extras.markers or "edl")
        wanted = {
            outputs.sidecar: True,
            outputs.stems: extras.stems,
            outputs.midi: extras.midi,
            outputs.markers: extras.markers is not None,
            outputs.report: extras.report,
        }
        taken = [path.name for path, asked in wanted.items() if asked and os.path.lexists(path)]
        if taken and not overwrite:
            raise UsageError(f"{', '.join(taken)} exists already: give --overwrite or another --out")
        return outputs

    def _beside(self, suffix: str) -> Path:
        return self.folder / (Path(self.name).stem + suffix)

    @property
    def video(self) -> Path:
        return self.folder / self.name

    @property
    def sidecar(self) -> Path:
        return self._beside(".json")

    @property
    def midi(self) -> Path:
        return self._beside(".mid")

    @property
    def report(self) -> Path:
        return self._beside(".png")

    @property
    def markers(self) -> Path:
        return self._beside(f".{self.markers_kind}")

    @property
    def stems(self) -> Path:
        return self._beside(".stems")

    def stem(self, name: str) -> Path:
        self.stems.mkdir(exist_ok=True)
        return self.stems / f"{name}.wav"

    def take(self, seed: int) -> Path:
        return self._beside(f".seed{seed}.wav")

    @contextmanager
    def staged(self) -> Iterator[Outputs]:
        """The same names in a hidden folder beside the video, moved into place when the block ends well.

        Raises:
            OSError: The folder cannot be written to.
        """
        self._sweep()
        stage = Path(tempfile.mkdtemp(prefix=f".v2m-{os.getpid()}-", dir=self.folder))
        try:
            yield replace(self, folder=stage)
            for path in sorted(stage.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
                final = self.folder / path.name
                if final.is_dir():
                    shutil.rmtree(final)
                path.replace(final)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what runs left here that were killed and could not tidy up themselves."""
        for left in self.folder.glob(".v2m-*-*"):
            owner = left.name.split("-")[1]
            if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc").exists():
                shutil.rmtree(left, ignore_errors=True)
