"""How good is the music of these videos: `python -m v2m.metrics VIDEOS… [--compare A/ B/]`. No weights, no network."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from v2m import command
from v2m.errors import RefusedError, UsageError
from v2m.metrics import table
from v2m.metrics.row import COLUMNS, Row, row
from v2m.types import Tags

SAMPLE_RATE = 48_000


def measured(path: Path) -> Row:
    """The measures of a video's first sound; no length error where the container does not tell how long that is.

    The tags are those of the sidecar beside it, if there is one.

    Raises:
        RefusedError: It is no video, or has no sound.
    """
    from v2m.io import audio, video
    from v2m.io.ffmpeg import RESTARTING

    clip = video.open(path)
    if not clip.audio_streams:
        raise RefusedError("no_sound", f"{str(path)!r} has no sound: there is no music to measure")
    stream = clip.audio_streams[0]
    length = clip.duration if stream.duration is None else stream.duration
    restarting = not RESTARTING.isdisjoint(clip.container.split(","))
    sound, _ = audio.read_track(path, stream.index, clip.offset, length, SAMPLE_RATE, restarting=restarting)
    found = row(sound, clip.picture(), clip.duration, tags_beside(path))
    return {**found, "length_error_ms": found["length_error_ms"] if stream.duration is not None else None}


def tags_beside(path: Path) -> Tags | None:
    """The tags of the sidecar of a video that v2m has written; None where there is none that can be read."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tags = record["tags"]
        return Tags(tempo=tags["tempo"], key=tags["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def parse(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    parser = command.Parser(prog="python -m v2m.metrics", description="Measures the music of videos, without weights.")
    parser.add_argument("videos", nargs="*", default=[], type=str, help="videos, or folders of them")
    parser.add_argument(
        "--compare", nargs="+", default=None, type=str, help="folders, one a system, of the same videos"
    )
    parser.add_argument("--csv", type=str, default=None, help="a new file for all values")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser.parse_args(list(argv))


def rows_in(places: Sequence[str]) -> dict[str, Row]:
    """A row for each video named or in a folder named, by the video's name without `.v2m` and suffix."""
    from tqdm import tqdm

    paths = [path for place in places for path in _videos(Path(place))]
    names = [path.name.split(".v2m.")[0] if ".v2m." in path.name else path.stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)}: more than one video of that name; --compare takes a folder for each system"
        )
    work = tqdm(zip(names, paths, strict=True), total=len(paths), desc="videos", unit="video", disable=None)
    return {name: measured(path) for name, path in work}


def _videos(place: Path) -> list[Path]:
    from v2m.io.video import SUFFIXES

    if not place.is_dir():
        return [place]
    found = sorted(each for each in place.iterdir() if each.suffix.lower() in SUFFIXES and each.name[0] != ".")
    if not found:
        raise RefusedError("no_videos", f"{str(place)!r} holds no videos ({', '.join(sorted(SUFFIXES))})")
    return found


def table_asked(argv: Sequence[str]) -> str:
    """Measures what a command asks for; the table, in Markdown, and what its measures are."""
    asked = parse(argv)
    if bool(asked.videos) == bool(asked.compare):
        raise UsageError("name videos or folders of them, or --compare two folders or more")
    if asked.csv and Path(asked.csv).exists():
        raise UsageError(f"{asked.csv} exists already: give a new file")
    for place in asked.compare or ():
        if not Path(place).is_dir():
            raise UsageError(f"{place!r} is no folder: --compare takes one for each system")
    if asked.compare and len(asked.compare) < 2:
        raise UsageError(f"--compare {asked.compare[0]}: give two folders or more")
    systems = {name: rows_in([name]) for name in asked.compare} if asked.compare else {"": rows_in(asked.videos)}
    if asked.compare and not set.intersection(*(set(rows) for rows in systems.values())):
        raise UsageError(f"{', '.join(systems)} hold no video of the same name")
    if asked.csv:
        Path(asked.csv).write_text(table.comma_separated(systems), encoding="utf-8")
    made = table.compared(systems) if asked.compare else table.markdown(systems[""])
    legend = "\n".join(f"* {name}: {meaning}" for name, meaning in COLUMNS.items())
    return f"{made}\n\n{legend}"


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    return command.run(table_asked, argv, name="v2m.metrics", place="file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
