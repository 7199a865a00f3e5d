"""`prewrite search`: a better prompt without training: wording, answer line, exemplars and label offsets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require
from prewrite.cli.screen import say_where_data_go
from prewrite.run.config import SearchConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `SearchConfig`."""
    parser.epilog = (
        "Example: prewrite search --data train.jsonl --task-model embedded --output-dir runs/search\n"
        "--help-all shows the other settings."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, SearchConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Search, test, write prompt.json, and say what each part brought."""
    config = build_config(SearchConfig, namespace)
    say_where_data_go(config.task_model)
    if config.rewriter != "none":
        require("torch", "transformers", "peft")
    from prewrite.run.search import run_search

    result = run_search(config, argv)
    if namespace.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for task in result.get("tasks", [result]):
        print_prompt(task)
    print(f"\nPrompt: {config.output_dir}/prompt.json   Ask with it: prewrite ask --prompt {config.output_dir} INPUT")
    return 0


def print_prompt(result: dict[str, Any]) -> None:
    """The prompt as the task model reads it, and what each of its parts brings on test rows."""
    from prewrite.scoring.prompt import TaskPrompt

    prompt = TaskPrompt.from_json(result["prompt"])
    print("\nPrompt:")
    print("\n".join(f"  | {line}" for line in prompt.render("{input}").splitlines()))
    if prompt.label_offsets is not None:
        offsets = ", ".join(f"{label} {nats:+.2f}" for label, nats in prompt.label_offsets)
        print(f"Label offsets in nats, taken off before the highest label is chosen: {offsets}")
    test, search = result["test"], result["search"]
    width = max(map(len, test["instructions"]))
    print(f"\nTest, {test['n']} rows, {result['metric']}, answers read by {result['decoding']}:")
    for name, row in test["instructions"].items():
        low, high = row["interval"]["low"], row["interval"]["high"]
        print(f"  {name:<{width}}  {row['mean']:.3f}  (95% interval {low:.3f} to {high:.3f})")
    print(result["verdict"])
    print(f"Found by {search['calls']:,} task-model calls on dev rows, in {result['seconds']['search']:.0f} s.")
