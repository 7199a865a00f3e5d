"""`prewrite save RUN FOLDER`: rewriter, prompt and model card of a run, for others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and the folder."""
    parser.epilog = "Example: prewrite save runs/first shared/first"
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("folder", metavar="FOLDER", help="a folder that is not there yet")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Write the folder, and say what in it should be known before it is shared."""
    from prewrite.run.share import save_run, say_what_is_shared

    print(save_run(namespace.run_dir, namespace.folder))
    for sentence in say_what_is_shared(namespace.run_dir):
        print(f"note: {sentence}.", file=sys.stderr)
    return 0
