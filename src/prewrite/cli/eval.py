"""`prewrite eval`: several instructions on one data set, paired."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prewrite.cli.options import add_data_by_position, add_options, build_config
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError
from prewrite.run.config import TaskConfig

SPLITS = ("dev", "test", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Instructions, data, task model."""
    parser.epilog = (
        'Example: prewrite eval --data rows/ --with "Is it spam?" --with "Decide: spam or ham."\n'
        "Dev rows are for comparing as often as you like; keep the test rows for the last look."
    )
    parser.add_argument("--with", dest="rivals", action="append", default=[], metavar="TEXT",
                        help="an instruction to compare with the data's own; repeat it")  # fmt: skip
    parser.add_argument("--split", default="dev", choices=SPLITS, help="which rows (default: dev)")
    parser.add_argument("--limit", type=int, default=None, help="only the first N rows")
    parser.add_argument("--items", metavar="FILE", help="write every row and its answers there, as JSONL")
    add_data_by_position(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TaskConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print what was measured, a table, and a sentence per instruction."""
    config = build_config(TaskConfig, namespace)
    if namespace.limit is not None and namespace.limit < 1:
        raise ConfigError(f"--limit is {namespace.limit}; it must be at least 1")
    if namespace.items is not None and os.path.isdir(namespace.items):
        raise ConfigError(f"--items {namespace.items!r} is a folder; give the name of a file")
    say_where_data_go(config.task_model)
    if not all(text.strip() for text in namespace.rivals):
        raise ConfigError("--with is empty; give the text of an instruction")
    from prewrite.choosing.evaluation import calibrated_note
    from prewrite.report.page_notes import notes
    from prewrite.run.build import open_evaluator, open_one_data_set, rows_of
    from prewrite.run.progress import phase_line
    from prewrite.task_models.counting import Usage
    from prewrite.task_models.stream import backend_notes

    splits = open_one_data_set(config)
    found = rows_of(splits, namespace.split, config.instruction)
    rows = list(found)[: namespace.limit]
    if namespace.split == "test":
        print("warning: the test rows are opened; what is chosen by them can no longer be measured on them",
              file=sys.stderr)  # fmt: skip
    from prewrite.choosing.evaluate import evaluate  # takes a second, so after the checks

    instructions = {"initial": rows[0].instruction}
    instructions |= {f"instruction {number}": text for number, text in enumerate(namespace.rivals, start=1)}
    with phase_line("loading"):
        evaluator = open_evaluator(config)
    usage: Usage = evaluator.task_model.usage  # type: ignore[attr-defined]  # what commands open is counted
    with phase_line("asking", usage):
        evaluation = evaluate(evaluator, instructions, rows, rows=namespace.split, seed=config.seed)
    about = {
        "data": found.source.name,
        "drawn": splits.drawn(namespace.split),
        "seed": config.seed,
        "task_model": evaluator.task_model.name,
        "decoding": " and ".join(dict.fromkeys(map(evaluator.decoding_of, rows))),
        "metric": " and ".join(dict.fromkeys(map(evaluator.metric_of, rows))),
    }
    told = {"left_out": evaluator.left_out.to_json(), "cost": {"task_model": usage.as_dict()}}
    remarks = notes({"task_model": {"notes": backend_notes(evaluator.task_model)}}, told)
    if namespace.items is not None:
        from prewrite.files import write_atomic

        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in evaluation.items()]
        write_atomic(Path(namespace.items), "".join(lines))
    if namespace.json:
        print(json.dumps({**about, **evaluation.to_json(), "notes": remarks}, ensure_ascii=False))
        return 0
    print(head(about, namespace.split, evaluation.n))
    for name, result in evaluation.results.items():
        interval = result.interval
        print(f"{result.mean:.3f}  ({interval.low:.3f} to {interval.high:.3f})  {name}: {result.instruction}")
    for name in evaluation.differences:
        print(f"{name}: {evaluation.verdict(name)}")
        if note := calibrated_note(evaluation.to_json(), name):
            print(f"  {note}")
    for note in remarks:
        print(f"note: {note}")
    if namespace.items is not None:
        print(f"Rows and answers: {namespace.items}")
    return 0


def head(about: Mapping[str, Any], split: str, count: int) -> str:
    """What was measured, in a line."""
    drawn = f" (no {split} file: drawn from it by seed {about['seed']})" if about["drawn"] else ""
    return (
        f"{count:,} {split} rows of {about['data']}{drawn}, answered by {about['task_model']}; "
        f"{about['metric']}, answers read by {about['decoding']}:"
    )
