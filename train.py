"""Trains the music model: `uv run train.py fit --config configs/train/tiny.yaml` (see `--help`)."""

import sys

try:
    from v2m.training.command import main
except KeyboardInterrupt:  # nothing has begun that would have to be tidied up
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
