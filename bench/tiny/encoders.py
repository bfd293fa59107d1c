"""Random encoders with which `configs/train/tiny.yaml` works offline: `python -m bench.tiny.encoders FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.tiny import clip, encodec, t5


def write(folder: Path) -> Path:
    """Folders `clip`, `encodec` and `t5` for `python -m v2m.data.prepare`."""
    clip.write(folder / "clip")
    encodec.write(folder / "encodec")
    t5.write(folder / "t5")
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
