"""`python -m prewrite` is `prewrite`."""

import sys

from prewrite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
