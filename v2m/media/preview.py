"""Small silent copies of videos, as previews."""

from __future__ import annotations

from pathlib import Path

from v2m.core.atomic import publish, temporary_sibling
from v2m.core.types import Video
from v2m.media.ffmpeg import file_url, input_arguments, run_ffmpeg

MAX_HEIGHT = 240  # pixels at most
ENCODER_ARGUMENTS = (
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-crf",
    "28",
    "-pix_fmt",
    "yuv420p",
    "-fps_mode",
    "passthrough",
)


def write_preview(video: Video, out: Path) -> None:
    """Write the pictures of `video` to an MP4 `out`, whole or not at all, over an older one.

    Raises:
        FFmpegError, OSError: See `v2m.media.ffmpeg.run`.
    """
    assert video.start == 0, "a preview shows a span from the start of the file"
    size = f"scale=-2:'min({MAX_HEIGHT},trunc(ih/2)*2)',setsar=1"  # 4:2:0 needs even sides
    output = [
        "-map",
        "0:V:0",
        "-t",
        f"{video.duration:.6f}",
        "-vf",
        size,
        *ENCODER_ARGUMENTS,
        "-movflags",
        "+faststart",
    ]
    with temporary_sibling(out) as temporary:
        command = [*input_arguments(video.path), *output, "-f", "mp4", file_url(temporary)]
        run_ffmpeg(command, (), timeout=120 + 30 * video.duration)
        publish(temporary, out)
