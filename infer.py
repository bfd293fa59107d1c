"""A video in, the same video with music out: `uv run infer.py clip.mp4` (see `--help`)."""

import sys

from v2m.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
