"""`prewrite search`: a better prompt without training: wording, answer line, exemplars and label offsets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from prewrite.cli.options import add_data_by_position, add_options, build_config
from prewrite.cli.requirements import require
from prewrite.cli.results import print_prompt
from prewrite.cli.screen import say_where_data_go
from prewrite.run.config import SearchConfig
from prewrite.task_models.registry import names_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `SearchConfig`."""
    parser.epilog = (
        "Example: prewrite search --data train.jsonl --task-model embedded --output-dir runs/search\n"
        "--help-all shows the other settings."
    )
    add_data_by_position(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, SearchConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Search, test, write prompt.json, and say what each part brought."""
    config = build_config(SearchConfig, namespace)
    say_where_data_go(config.task_model, rewriter=config.rewriter)
    rewrites_here = config.rewriter != "none" and not names_server(config.rewriter)
    if config.tries_wordings and (rewrites_here or config.fidelity_model != "none"):
        require("torch", "transformers", "peft")
    from prewrite.report.formats import calls_and_tokens
    from prewrite.run.search import run_search

    result = run_search(config, argv)
    if namespace.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for task in result.get("tasks", [result]):
        print_prompt(task)
    if asked := result["cost"].get("rewriter"):
        print(f"Wordings by {config.rewriter}: {calls_and_tokens(asked)}.")
    print(f"\nReport: {config.output_dir}/report.html   Prompt: {config.output_dir}/prompt.json")
    print(f"Ask with it: prewrite ask --prompt {config.output_dir} INPUT")
    return 0
