"""The node: its inputs and outputs, its folders, and how it is interrupted."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from . import backends
from .backends import Request

WORDS = ("genres", "instruments", "moods", "negative")


class ScoreVideo:
    """Writes a video again with background music that fits it; gives the paths of the video and of the music."""

    CATEGORY = "audio/v2m"
    FUNCTION = "score"
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("video_path", "music_path")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the fields; what is left empty is read from the picture."""
        words = {name: ("STRING", {"default": "", "tooltip": "words with commas between"}) for name in WORDS}
        return {
            "required": {
                "video": (
                    "STRING",
                    {"default": "", "tooltip": "a path, or the name of a file of ComfyUI's input folder"},
                ),
                "recipe": ("STRING", {"default": "sketch"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1, "control_after_generate": True}),
            },
            "optional": {
                **words,
                "tempo": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 300.0, "tooltip": "beats per minute; 0: any"}),
                "key": ("STRING", {"default": "", "tooltip": "such as F# minor"}),
                "original": (["replace", "keep", "duck"], {"tooltip": "the video's own sound"}),
                "address": ("STRING", {"default": "", "tooltip": "of `v2m serve`; empty: the command on this machine"}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, video: str | None = None, **fields: Any) -> str:  # noqa: ARG003 - ComfyUI compares the others
        """Return what differs when the file is another one under the same name.

        `video` is None where it comes from another node: its file cannot be looked at before that has run.
        """
        if video is None:
            return ""
        path = input_path(video)
        status = path.stat() if path.is_file() else None
        return f"{path}:{status.st_size}:{status.st_mtime_ns}" if status else str(path)

    @classmethod
    def VALIDATE_INPUTS(cls, video: str | None = None) -> bool | str:
        """Return True, or what is wrong. `video` is None where it comes from another node."""
        return True if video is None or input_path(video).is_file() else f"there is no file {video!r}"

    def score(
        self,
        *,
        video: str,
        recipe: str,
        seed: int,
        tempo: float = 0.0,
        key: str = "",
        original: str = "replace",
        address: str = "",
        **words: str,
    ) -> dict[str, Any]:
        """Return the two paths, as outputs and as `ui.text` for front ends that show it."""
        tags: dict[str, Any] = {name: words[name].strip() for name in WORDS if words.get(name, "").strip()}
        tags |= {"tempo": tempo} if tempo else {}
        tags |= {"key": key.strip()} if key.strip() else {}
        path = input_path(video)
        if not path.is_file():
            raise RuntimeError(f"there is no file {video!r}")
        folder = new_folder(output_folder() / "v2m", path.stem)
        request = Request(path, folder, recipe.strip() or "sketch", seed, tags, original)
        try:
            if address.strip():
                result = backends.score_by_service(request, address.strip(), raise_if_interrupted, show_progress)
            else:
                result = backends.score_by_command(request, raise_if_interrupted)
        except BaseException:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        outputs = tuple(str(each) for each in result)
        return {"ui": {"text": list(outputs)}, "result": outputs}


def input_path(name: str) -> Path:
    """Return the file of a name: a path, or relative to ComfyUI's input folder where it runs."""
    comfy = sys.modules.get("folder_paths")
    return Path(comfy.get_annotated_filepath(name) if comfy else name).absolute()


def output_folder() -> Path:
    """Return ComfyUI's output folder; `output` below the current one where it does not run."""
    comfy = sys.modules.get("folder_paths")
    return Path(comfy.get_output_directory() if comfy else "output").absolute()


def new_folder(parent: Path, stem: str) -> Path:
    """Return a new folder for one run: nothing is overwritten."""
    parent.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", stem)[:60].strip("._") or "video"
    for number in count(1):
        folder = parent / f"{name}_{number:05}"
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")


def raise_if_interrupted() -> None:
    """Raise ComfyUI's exception where its user has pressed the button that interrupts."""
    comfy = sys.modules.get("comfy.model_management")
    if comfy is not None:
        comfy.throw_exception_if_processing_interrupted()


def show_progress(share: float) -> None:
    """Show 0 to 1 as the progress of the node."""
    comfy = sys.modules.get("comfy.utils")
    if comfy is not None:
        comfy.ProgressBar(100).update_absolute(round(100 * share))
