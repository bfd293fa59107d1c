"""Output files of one video, which appear whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2m.core.atomic import check_name_length
from v2m.core.errors import UsageError
from v2m.core.types import Video
from v2m.mixing import mixer
from v2m.pipeline.result import Extras


def printable(name: str) -> str:
    """Return a file name on one line: control characters and undecodable bytes as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


@dataclass(frozen=True)
class Outputs:
    """The files of one run: the video, and what lies beside it under the same stem."""

    folder: Path
    name: str  # of the video
    markers_kind: str = "edl"
    overwrite: bool = False

    @classmethod
    def plan(cls, clip: Video, out: Path, extras: Extras, overwrite: bool, seeds: Iterable[int] = ()) -> Outputs:
        """Check that all files can be written, before any long work; `seeds` if several candidates."""
        outputs = cls(out.parent.resolve(), out.name, extras.markers or "edl", overwrite)
        requested = {
            outputs.sidecar: True,
            outputs.stems: extras.stems,
            outputs.midi: extras.midi,
            outputs.markers: extras.markers is not None,
            outputs.report(): extras.report,
            outputs.wav(): extras.wav,
            **{outputs.wav(seed): True for seed in seeds},
            **{outputs.report(seed): extras.report for seed in seeds},
        }
        paths = [path for path in requested if requested[path]]
        for path in (out, *paths):
            check_name_length(path)
        mixer.validate_output(clip, out, overwrite)
        outputs._refuse_existing(paths)
        for path in paths:
            if path.exists() and path.samefile(clip.path):
                raise UsageError(f"{path} is the input itself, which is never changed: give another `out`")
            if path.exists() and path.is_dir() != (path == outputs.stems):
                raise UsageError(f"{path} is {'a' if path.is_dir() else 'no'} folder: give another `out`")
        return outputs

    def _refuse_existing(self, paths: Iterable[Path]) -> None:
        names = [path.name for path in paths if os.path.lexists(path)]
        if names and not self.overwrite:
            raise UsageError(f"{', '.join(names)} exists already: give `overwrite=True` or another `out`")

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
    def markers(self) -> Path:
        return self._beside(f".{self.markers_kind}")

    @property
    def stems(self) -> Path:
        return self._beside(".stems")

    def stem(self, name: str) -> Path:
        self.stems.mkdir(exist_ok=True)
        return self.stems / f"{name}.wav"

    def wav(self, seed: int | None = None) -> Path:
        """The music alone: of the best candidate, or of another one with its `seed`."""
        return self._beside(".wav" if seed is None else f".seed{seed}.wav")

    def report(self, seed: int | None = None) -> Path:
        return self.wav(seed).with_suffix(".png")

    @contextmanager
    def staged(self) -> Iterator[Outputs]:
        """Yield the same names in a hidden folder beside the video, moved into place when the block ends well."""
        self._remove_stale_staging()
        stage = Path(tempfile.mkdtemp(prefix=f".v2m-{os.getpid()}@{platform.node()}-", dir=self.folder))
        try:
            yield replace(self, folder=stage)
            staged = sorted(stage.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
            self._refuse_existing(self.folder / path.name for path in staged)
            for path in staged:
                _publish(path, self.folder / path.name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _remove_stale_staging(self) -> None:
        """Remove the folders of runs on this machine that were killed before their own cleanup."""
        for folder in self.folder.glob(".v2m-*@*-*"):
            pid, _, machine = folder.name.removeprefix(".v2m-").rpartition("-")[0].partition("@")
            is_local = machine == platform.node() and Path("/proc/self").exists()
            if is_local and pid.isdigit() and not Path("/proc", pid).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _publish(staged: Path, final: Path) -> None:
    """Move into place. New stems replace all WAV files of their folder; its other files stay."""
    if not (staged.is_dir() and final.is_dir()):
        staged.replace(final)
        return
    for old in final.glob("*.wav"):
        old.unlink()
    for stem in staged.iterdir():
        stem.replace(final / stem.name)
