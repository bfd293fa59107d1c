"""Music for a video: `uv run infer.py clip.mp4`, the same as `v2m score clip.mp4`."""

import sys

try:
    from v2m.media.decoder_process import start_ahead

    if __name__ == "__main__":
        start_ahead(sys.argv[1:])  # it takes as long as the imports
    from v2m.cli.score import main
except KeyboardInterrupt:  # nothing has started that would need cleanup
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
