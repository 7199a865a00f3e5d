"""`prewrite push RUN REPO`: rewriter, prompt and model card of a run to the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and the repository."""
    parser.epilog = (
        "Example: prewrite push runs/first someone/first\n"
        "The repository is private unless you say --public; one that is there already stays as it is."
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("repo", metavar="OWNER/NAME", help="model repository, made where it is missing")
    parser.add_argument("--public", action="store_true", help="make a new repository public")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Say what others will see, upload, and name the address."""
    from prewrite.run.share import push_run, say_what_is_shared

    for sentence in say_what_is_shared(namespace.run_dir):
        print(f"note: {sentence}.", file=sys.stderr)
    print(push_run(namespace.run_dir, namespace.repo, public=namespace.public))
    return 0
