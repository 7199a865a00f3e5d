"""`python inference.py ...` is `prewrite rewrite ...`."""

import sys

from prewrite.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rewrite", *sys.argv[1:]]))
