"""`python finetune.py ...` is `prewrite train ...`."""

import sys

from prewrite.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
