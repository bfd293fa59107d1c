"""Videos that are processed one by one, divided among the ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import lightning

from v2m.core.errors import UsageError
from v2m.data.sources import discover_videos
from v2m.media.video import VIDEO_SUFFIXES


class VideoJob(NamedTuple):
    """A video, the folder of its outputs, and a file of known tags.

    `duplicate_of` names an earlier video whose outputs would have the same names.
    """

    video: Path
    folder: Path
    tags: Path | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True)
class VideoJobs:
    """The jobs of one rank in batches of one; all ranks have as many batches, the last may be empty."""

    jobs: tuple[VideoJob, ...]
    world_size: int = 1
    rank: int = 0

    @classmethod
    def from_inputs(
        cls, videos: Path | Sequence[Path] | None, out: Path | None, trainer: lightning.Trainer | None
    ) -> VideoJobs:
        """Collect all videos in folders, in their subfolders, and in VidMuse's lists.

        Outputs go into the same subfolders of `out`, or else beside each video.

        Raises:
            UsageError: None are given, one does not exist, or `out` is a file.
            InvalidInputError: There is no video.
        """
        if not videos:
            raise UsageError("name the videos: give `data.videos`, a folder, a file or a list of them")
        if out is not None and not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"`data.out` {str(out)!r} names a file: give a folder")
        first: dict[tuple[Path, str], Path] = {}
        jobs: list[VideoJob] = []
        inputs = [videos] if isinstance(videos, str | Path) else videos
        for source in discover_videos([Path(path) for path in inputs]):
            folder = source.video.parent if out is None else out / _relative_folder(source.name)
            earlier = first.setdefault((folder, source.video.stem), source.video)
            jobs.append(VideoJob(source.video, folder, source.tags, None if earlier is source.video else earlier.name))
        world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return cls(tuple(jobs), world_size, rank)

    def __len__(self) -> int:
        return math.ceil(len(self.jobs) / self.world_size)

    def __iter__(self) -> Iterator[list[VideoJob]]:
        for index in range(self.rank, len(self) * self.world_size, self.world_size):
            yield list(self.jobs[index : index + 1])


class VideoDataModule(lightning.LightningDataModule):
    """Lightning data module of videos.

    Args:
        videos: Folders of videos, also of folders; videos; VidMuse's lists (.jsonl).
        out: Folder for the outputs; None is beside each.
    """

    def __init__(self, videos: list[Path] | Path, out: Path | None = None) -> None:
        super().__init__()
        self._videos, self._out = videos, out

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)


def _relative_folder(name: str) -> Path:
    """Return the folder of a video as a relative path: a list may name a video anywhere."""
    return Path(*(part for part in Path(name).parent.parts if part not in {"/", ".."}))
