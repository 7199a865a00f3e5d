"""`prewrite report RUN`: report.html and report.md again, from the run's files alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.epilog = "Example: prewrite report runs/demo"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("run_dir", metavar="RUN", help="run folder")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Build and name the file."""
    from prewrite.report.render import build_report

    page = build_report(namespace.run_dir)
    print(json.dumps({"report": str(page)}) if namespace.json else page)
    return 0
