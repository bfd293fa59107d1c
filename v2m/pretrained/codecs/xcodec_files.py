"""File names of the folder `xcodec_mini_infer` as its authors published it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2m.core.errors import DependencyError

REPOSITORY = "m-a-p/xcodec_mini_infer"
CONFIG, CHECKPOINT = "final_ckpt/config.yaml", "final_ckpt/ckpt_00360000.pth"
SEMANTIC_CONFIG = "semantic_ckpts/hf_1_325000/config.json"  # HuBERT's weights are in the checkpoint as well
VOCODER_CONFIG = "decoders/config.yaml"
VOCALS_VOCODER, INSTRUMENTAL_VOCODER = "decoders/decoder_131000.pth", "decoders/decoder_151000.pth"
FILES = (CONFIG, CHECKPOINT, SEMANTIC_CONFIG, VOCODER_CONFIG, VOCALS_VOCODER, INSTRUMENTAL_VOCODER)


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Raise DependencyError, naming them, where `folder` lacks some of the files `names`."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DependencyError(f"{str(folder)!r} lacks {', '.join(missing)}: it should be a copy of {REPOSITORY}")
