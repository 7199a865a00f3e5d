"""`prewrite warm`: load task models, so that the first batch does not wait for it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task models to load."""
    parser.epilog = "Example: prewrite warm ollama:gemma3:4b"
    parser.add_argument("task_models", nargs="+", metavar="TASK_MODEL", help="e.g. ollama:gemma3:4b")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Ask each model one word."""
    from prewrite.task_models.registry import open_task_model

    for text in namespace.task_models:
        started = time.perf_counter()
        open_task_model(text).generate(["Hello"])
        print(f"{text}: ready after {time.perf_counter() - started:.1f} s")
    return 0
