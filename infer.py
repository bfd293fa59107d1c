"""A video in, the same video with music out: `uv run infer.py clip.mp4` (see `--help`)."""

import sys

try:
    from v2m.cli import main
except KeyboardInterrupt:  # nothing has begun that would have to be tidied up
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
