"""`prewrite completion SHELL`: what a shell needs to complete commands and flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from prewrite.errors import MissingDependencyError

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.epilog = "Example: prewrite completion bash > ~/.local/share/bash-completion/completions/prewrite"
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        raise MissingDependencyError("shtab is not installed; `pip install 'prewrite[completion]'`") from None
    from prewrite.cli.main import COMMANDS, build_parser

    parser, _ = build_parser(COMMANDS)
    print(shtab.complete(parser, namespace.shell))
    return 0
