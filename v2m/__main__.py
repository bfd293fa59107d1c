"""`python -m v2m` is `infer.py` where only the package is installed."""

import sys

from v2m.cli import main

sys.exit(main(sys.argv[1:]))
