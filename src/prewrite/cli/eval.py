"""`prewrite eval`: several instructions on one data set, paired."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from prewrite.cli.options import add_options, build_config
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError
from prewrite.run.config import TaskConfig

SPLITS = ("test", "dev", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Instructions, data, task model."""
    parser.epilog = 'Example: prewrite eval --data rows/ --with "Is it spam?" --with "Decide: spam or ham."'
    parser.add_argument("--with", dest="rivals", action="append", default=[], metavar="TEXT",
                        help="an instruction to compare with the data's own; repeat it")  # fmt: skip
    parser.add_argument("--split", default="test", choices=SPLITS, help="which rows (default: test)")
    parser.add_argument("--limit", type=int, default=None, help="only the first N rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TaskConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print a table and a sentence per instruction."""
    config = build_config(TaskConfig, namespace)
    if namespace.limit is not None and namespace.limit < 1:
        raise ConfigError(f"--limit is {namespace.limit}; it must be at least 1")
    say_where_data_go(config.task_model)
    if not all(text.strip() for text in namespace.rivals):
        raise ConfigError("--with is empty; give the text of an instruction")
    from prewrite.choosing.evaluate import evaluate
    from prewrite.choosing.evaluation import calibrated_note
    from prewrite.report.page_notes import notes
    from prewrite.run.build import open_evaluator, open_rows
    from prewrite.task_models.stream import backend_notes

    rows = list(open_rows(config, namespace.split, config.instruction))[: namespace.limit]
    instructions = {"initial": rows[0].instruction}
    instructions |= {f"instruction {number}": text for number, text in enumerate(namespace.rivals, start=1)}
    evaluator = open_evaluator(config)
    evaluation = evaluate(evaluator, instructions, rows, rows=namespace.split, seed=config.seed)
    usage = evaluator.task_model.usage.as_dict()  # type: ignore[attr-defined]  # what commands open is counted
    told = {"left_out": evaluator.left_out.to_json(), "cost": {"task_model": usage}}
    found = notes({"task_model": {"notes": backend_notes(evaluator.task_model)}}, told)
    if namespace.json:
        print(json.dumps({**evaluation.to_json(), "notes": found}, ensure_ascii=False))
        return 0
    for name, result in evaluation.results.items():
        interval = result.interval
        print(f"{result.mean:.3f}  ({interval.low:.3f} to {interval.high:.3f})  {name}: {result.instruction}")
    for name in evaluation.differences:
        print(f"{name}: {evaluation.verdict(name)}")
        if note := calibrated_note(evaluation.to_json(), name):
            print(f"  {note}")
    for note in found:
        print(f"note: {note}")
    return 0
