"""`prewrite compare RUN RUN ...`: several runs (seeds, algorithms, models) in one page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, and where the page goes."""
    parser.epilog = "Example: prewrite compare runs/seed0 runs/seed1 runs/seed2 --output compare.html"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, at least two")
    parser.add_argument(
        "--output", default=None, metavar="FILE", help="write an HTML page; without it, print Markdown"
    )


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print or write the comparison."""
    from prewrite.files import write_atomic
    from prewrite.report.compare import compare_json, compare_markdown, compare_runs

    if namespace.json:
        print(json.dumps(compare_json(namespace.runs), ensure_ascii=False))
        return 0
    if namespace.output is None:
        print(compare_markdown(namespace.runs))
        return 0
    write_atomic(Path(namespace.output), compare_runs(namespace.runs))
    print(namespace.output)
    return 0
