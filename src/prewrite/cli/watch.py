"""`prewrite watch RUN`: the report of a run in progress, served to this machine alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and the port."""
    parser.epilog = "Example: prewrite watch runs/demo"
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("--port", type=int, default=8765, help="port on 127.0.0.1 (default: 8765)")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    from prewrite.report.watch import watch

    watch(namespace.run_dir, namespace.port)
    return 0
