"""`python -m v2m` is the command `v2m`."""

import sys

try:
    from v2m.cli.main import main
except KeyboardInterrupt:  # nothing has started that would need cleanup
    sys.exit(130)

sys.exit(main(sys.argv[1:]))
