"""Training of the music model: `uv run train.py fit --config configs/train/tiny.yaml`."""

import sys

try:
    from v2m.cli.main import main
except KeyboardInterrupt:  # nothing has started that would need cleanup
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
