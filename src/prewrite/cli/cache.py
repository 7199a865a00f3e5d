"""`prewrite cache info|clear`: the answers of task models that are kept on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with the cache."""
    parser.add_argument("action", choices=("info", "clear"), help="show its size, or delete its answers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print or clear."""
    from prewrite.task_models.cache import AnswerCache

    cache = AnswerCache()
    if namespace.action == "clear":
        deleted = cache.clear()
        told = json.dumps({"path": str(cache.path), "deleted": deleted})
        print(told if namespace.json else f"{deleted} answers deleted from {cache.path}")
        return 0
    info = cache.info()
    if namespace.json:
        print(json.dumps({**asdict(info), "path": str(info.path)}))
        return 0
    print(f"{info.path}: {info.entries} answers, {info.bytes / 1e6:.1f} MB")
    for identity, count in info.by_model.items():
        print(f"  {count:>9}  {identity}")
    return 0
