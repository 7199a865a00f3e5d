"""`prewrite load`: load task models, so that the first batch does not wait for them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

from prewrite.cli.options import add_task_model_flag
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task models to load."""
    parser.epilog = "Example: prewrite load ollama:gemma3:4b"
    parser.add_argument("task_models", nargs="*", metavar="TASK_MODEL", help="e.g. ollama:gemma3:4b")
    add_task_model_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Load each model; a server that is loading one already is waited for."""
    from prewrite.task_models.registry import open_task_model
    from prewrite.task_models.stream import StreamedTaskModel

    if not (named := [*namespace.task_models, *namespace.named]):
        raise ConfigError("no task model: give one, e.g. ollama:gemma3:4b")
    ready = {}
    for text in named:
        say_where_data_go(text)
        started = time.perf_counter()
        task_model = open_task_model(text)
        if isinstance(task_model, StreamedTaskModel):
            task_model.load()
        else:
            task_model.generate(["Hello"])
        ready[text] = time.perf_counter() - started
        if not namespace.json:
            print(f"{text}: ready after {ready[text]:.1f} s")
    if namespace.json:
        print(json.dumps({"seconds": ready}, ensure_ascii=False))
    return 0
