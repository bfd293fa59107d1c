"""The folder `xcodec_mini_infer` as its authors published it: which files it holds, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from v2m.errors import MissingError

REPOSITORY = "m-a-p/xcodec_mini_infer"
CONFIG, CHECKPOINT = "final_ckpt/config.yaml", "final_ckpt/ckpt_00360000.pth"
SEMANTIC = "semantic_ckpts/hf_1_325000/config.json"  # HuBERT's weights are in the checkpoint as well
DECODERS = "decoders/config.yaml"
VOCALS, INSTRUMENTAL = "decoders/decoder_131000.pth", "decoders/decoder_151000.pth"
FILES = (CONFIG, CHECKPOINT, SEMANTIC, DECODERS, VOCALS, INSTRUMENTAL)


def check(folder: Path, names: Sequence[str]) -> None:
    """Raises MissingError, naming them, where `folder` lacks some of the files."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise MissingError(f"{str(folder)!r} lacks {', '.join(missing)}: it should be a copy of {REPOSITORY}")


def settings(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        MissingError: It is missing or is something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MissingError(f"{str(path)!r} is not YAML ({' '.join(str(error).split())}): download it again") from error
    if not isinstance(found, dict):
        raise MissingError(f"{str(path)!r} holds no settings: download it again")
    return found
