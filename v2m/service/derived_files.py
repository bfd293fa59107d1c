"""Files made of a job's results at the first request: other formats, the mixed sound, groups of stems."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v2m.media.ffmpeg import file_url, run_ffmpeg
from v2m.service.service import ServiceError

FFMPEG_TIMEOUT_S = 600.0
_NAME = re.compile(r"(?:(music|mixed)-(\d{1,2})\.(m4a|wav)|stem-(drums|bass|other)\.wav)")
_CODECS = {
    "m4a": ("-c:a", "aac", "-b:a", "256k", "-movflags", "+faststart", "-f", "mp4"),
    "wav": ("-c:a", "pcm_f32le", "-f", "wav"),
}
_lock = threading.Lock()


def derive(folder: Path, candidates: Sequence[Mapping[str, Any]], name: str) -> Path:
    """Return a file by its name, made if need be.

    `music-N.m4a` (or .wav) is the music of candidate N, `mixed-N.m4a` the sound of its video, `stem-drums.wav`,
    `stem-bass.wav` and `stem-other.wav` the stems of the best. Raises ServiceError for any other name.
    """
    match = _NAME.fullmatch(name)
    sources = _sources(folder, candidates, match) if match else []
    if not sources:
        raise ServiceError(404, "not_found", "there is no such file")
    out = folder / f"derived-{name}"
    with _lock:
        if not out.is_file():
            _write(sources, out)
    return out


def stem_names(folder: Path, candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the groups of stems that there are."""
    stems = _stems(folder, candidates)
    return [name for name in ("drums", "bass", "other") if _group(stems, name)]


def _sources(folder: Path, candidates: Sequence[Mapping[str, Any]], match: re.Match[str]) -> list[Path]:
    kind, number, _, stem = match.groups()
    if stem is not None:
        return _group(_stems(folder, candidates), stem)
    if not 1 <= int(number) <= len(candidates):
        return []
    video = folder / candidates[int(number) - 1]["video"]
    return [video if kind == "mixed" else video.with_suffix(".wav")]


def _stems(folder: Path, candidates: Sequence[Mapping[str, Any]]) -> list[Path]:
    names = candidates[0]["files"] if candidates else ()
    return [folder / name for name in names if ".stems/" in name and name.endswith(".wav")]


def _group(stems: Sequence[Path], name: str) -> list[Path]:
    named = [path for path in stems if path.stem in {"drums", "bass"}]
    return [path for path in stems if path not in named] if name == "other" else [p for p in named if p.stem == name]


def _write(sources: Sequence[Path], out: Path) -> None:
    """Write the sum of the sources' sound, whole or not at all."""
    temporary = out.with_name(f".{out.name}.unfinished")
    inputs = [word for source in sources for word in ("-i", file_url(source))]  # files of our own
    mix = ("-filter_complex", f"amix=inputs={len(sources)}:normalize=0[a]", "-map", "[a]") if len(sources) > 1 else ()
    maps = mix or ("-map", "0:a:0")
    words = [*inputs, *maps, "-map_metadata", "-1", *_CODECS[out.suffix[1:]], "-y", file_url(temporary)]
    try:
        run_ffmpeg(words, (), timeout=FFMPEG_TIMEOUT_S)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
