"""`prewrite explain RUN`: which test rows the prompt of a run still gets wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from prewrite.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how much is shown of it."""
    parser.epilog = (
        "Example: prewrite explain runs/demo\n"
        "These are test rows: a prompt that you change after reading them has to be measured on others."
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="rows shown of each group (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the groups of wrong rows, the dearest first."""
    if namespace.examples < 0:
        raise ConfigError(f"--examples is {namespace.examples}; it must be at least 0")
    from prewrite.report.explain import explain, explanation

    found = explain(namespace.run_dir, examples=namespace.examples)
    if namespace.json:
        print(json.dumps({"instructions": found}, ensure_ascii=False))
        return 0
    print("\n\n".join(map(explanation, found)))
    print("\nThese are test rows: measure a prompt that you change after reading them on others.")
    return 0
