"""Videos to write music or tags for, and their outputs, shared among ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from v2m.core.atomic import name_outputs
from v2m.core.errors import UsageError
from v2m.data.sources import discover_videos
from v2m.media.video import VIDEO_SUFFIXES

if TYPE_CHECKING:
    import lightning


class VideoJob(NamedTuple):
    """A video, the folder of its outputs, a file of known tags, and the outputs' path up to `.v2m`."""

    video: Path
    folder: Path
    tags: Path | None = None
    duplicate_of: str | None = None  # name of an earlier video whose tags would have the same name
    out: Path = Path()


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

        Outputs go into the same subfolders of `out`, or else beside each video. Raises InvalidInputError where there is
        no video, UsageError where none is given, one does not exist, or `out` is a file.
        """
        if not videos:
            raise UsageError("name the videos: give `data.videos`, a folder, a file or a list of them")
        if out is not None and not out.is_dir() and (out.exists() or out.suffix.lower() in VIDEO_SUFFIXES):
            raise UsageError(f"`data.out` {str(out)!r} names a file: give a folder")
        first: dict[tuple[Path, str], Path] = {}
        jobs: list[VideoJob] = []
        inputs = [videos] if isinstance(videos, str | Path) else videos
        for source in discover_videos([Path(path) for path in inputs]):
            parts = Path(source.name).parent.parts  # absolute or above, if a list says so
            below = [part for part in parts if part not in {"/", ".."}]
            folder = source.video.parent if out is None else out.joinpath(*below)
            earlier = first.setdefault((folder, source.video.stem), source.video)
            jobs.append(VideoJob(source.video, folder, source.tags, None if earlier is source.video else earlier.name))
        names = name_outputs({job.video: job.folder for job in jobs})
        jobs = [job._replace(out=names[job.video]) for job in jobs]
        world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return cls(tuple(jobs), world_size, rank)

    def __len__(self) -> int:
        return math.ceil(len(self.jobs) / self.world_size)

    def __iter__(self) -> Iterator[list[VideoJob]]:
        for index in range(self.rank, len(self) * self.world_size, self.world_size):
            yield list(self.jobs[index : index + 1])
