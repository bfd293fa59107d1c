"""`python -m v2m` is `infer.py` where only the package is installed."""

import sys

try:
    from v2m.cli import main
except KeyboardInterrupt:  # nothing has begun that would have to be tidied up
    sys.exit(130)

sys.exit(main(sys.argv[1:]))
