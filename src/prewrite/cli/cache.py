"""`prewrite cache info|clear`: the answers of task models that are kept on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with the cache."""
    parser.add_argument("action", choices=("info", "clear"), help="show its size, or delete its answers")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print or clear."""
    from prewrite.task_models.cache import AnswerCache

    cache = AnswerCache()
    if namespace.action == "clear":
        print(f"{cache.clear()} answers deleted from {cache.path}")
        return 0
    info = cache.info()
    print(f"{info.path}: {info.entries} answers, {info.bytes / 1e6:.1f} MB")
    for identity, count in info.by_model.items():
        print(f"  {count:>9}  {identity}")
    return 0
