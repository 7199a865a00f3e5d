"""`prewrite load`: load task models, so that the first batch does not wait for them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from prewrite.cli.screen import say_where_data_go


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task models to load."""
    parser.epilog = "Example: prewrite load ollama:gemma3:4b"
    parser.add_argument("task_models", nargs="+", metavar="TASK_MODEL", help="e.g. ollama:gemma3:4b")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Load each model; a server that is loading one already is waited for."""
    from prewrite.task_models.registry import open_task_model
    from prewrite.task_models.stream import StreamedTaskModel

    for text in namespace.task_models:
        say_where_data_go(text)
        started = time.perf_counter()
        task_model = open_task_model(text)
        if isinstance(task_model, StreamedTaskModel):
            task_model.load()
        else:
            task_model.generate(["Hello"])
        print(f"{text}: ready after {time.perf_counter() - started:.1f} s")
    return 0
