"""Videos that are worked on one by one, each by one of the ranks."""

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
    """A video; `tags` is a file of what is known of its music, `folder` where what is made of it goes.

    `duplicate_of` is a video before it by whose name that would be called as well.
    """

    video: Path
    folder: Path
    tags: Path | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True)
class VideoJobs:
    """Those of one rank: as many batches on every rank, each of one video or, at the end, of none."""

    jobs: tuple[VideoJob, ...]
    world_size: int = 1
    rank: int = 0

    @classmethod
    def from_inputs(
        cls, videos: Path | Sequence[Path] | None, out: Path | None, trainer: lightning.Trainer | None
    ) -> VideoJobs:
        """Collect all videos in folders, in their subfolders, and in VidMuse's lists.

        With `out`, what is made of them goes there, into folders like theirs; else beside each.

        Raises:
            UsageError: None are given, one does not exist, or `out` is a file.
            InvalidInputError: There is no video.
        """
        if not videos:
            raise UsageError("name the videos: give --data.videos, a folder, a file or a list of them")
        if out is not None and not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"--data.out {str(out)!r} names a file: give a folder")
        first: dict[tuple[Path, str], str] = {}
        turns: list[VideoJob] = []
        for source in discover_videos(
            [Path(each) for each in ([videos] if isinstance(videos, str | Path) else videos)]
        ):
            folder = source.video.parent if out is None else out / _relative_folder(source.name)
            own = str(source.video)
            duplicate = first.setdefault((folder, source.video.stem), own)
            turns.append(
                VideoJob(source.video, folder, source.tags, None if duplicate == own else Path(duplicate).name)
            )
        world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return cls(tuple(turns), world, rank)

    def __len__(self) -> int:
        return math.ceil(len(self.jobs) / self.world_size)

    def __iter__(self) -> Iterator[list[VideoJob]]:
        for place in range(self.rank, len(self) * self.world_size, self.world_size):
            yield list(self.jobs[place : place + 1])


class VideoDataModule(lightning.LightningDataModule):
    """Videos as they are.

    Args:
        videos: Folders of videos, which may lie in folders below them; videos; VidMuse's lists (.jsonl).
        out: Folder for what is made of them; None is beside each.
    """

    def __init__(self, videos: list[Path] | Path, out: Path | None = None) -> None:
        super().__init__()
        self._videos, self._out = videos, out

    def predict_dataloader(self) -> VideoJobs:
        return VideoJobs.from_inputs(self._videos, self._out, self.trainer)


def _relative_folder(name: str) -> Path:
    """The folder in which a video lies, as one below another; a list may name one anywhere."""
    return Path(*(part for part in Path(name).parent.parts if part not in {"/", ".."}))
