"""`prewrite eval`: several instructions on one data set, paired, with one task model or several."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prewrite.cli.options import add_data_by_position, add_options, build_configs
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError
from prewrite.run.config import TaskConfig
from prewrite.run_folder import RunFolder

if TYPE_CHECKING:
    from prewrite.choosing.evaluation import Evaluation
    from prewrite.data import PRewriteDataset
    from prewrite.scoring.prompt import TaskPrompt

SPLITS = ("dev", "test", "train")
OF_RUN = "prompt"
"""What the prompt of `--run` is called among those that are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Instructions, data, task models."""
    parser.epilog = (
        'Example: prewrite eval --data rows/ --with "Is it spam?" --with "Decide: spam or ham."\n'
        "Dev rows are for comparing as often as you like; keep the test rows for the last look."
    )
    parser.add_argument("--with", dest="rivals", action="append", default=[], metavar="TEXT",
                        help="an instruction to compare with the data's own; repeat it")  # fmt: skip
    parser.add_argument("--prompt", dest="prompts", action="append", default=[], metavar="FILE",
                        help="a prompt.json, or the run folder that holds one, to compare; repeat it")  # fmt: skip
    parser.add_argument("--run", metavar="RUN", dest="run_folder",
                        help="a run folder: compare its prompt, and add what is found to its report")  # fmt: skip
    parser.add_argument("--no-offsets", "--no_offsets", action="store_true",
                        help="leave the label offsets of --prompt out")  # fmt: skip
    parser.add_argument("--split", default="dev", choices=SPLITS, help="which rows (default: dev)")
    parser.add_argument("--limit", type=int, default=None, help="only the first N rows")
    parser.add_argument("--items", metavar="FILE", help="write every row and its answers there, as JSONL")
    add_data_by_position(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TaskConfig, several=True)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print what was measured, a table, and a sentence per instruction; of several task models a table of all."""
    configs = build_configs(TaskConfig, namespace)
    if namespace.limit is not None and namespace.limit < 1:
        raise ConfigError(f"--limit is {namespace.limit}; it must be at least 1")
    if namespace.items is not None and os.path.isdir(namespace.items):
        raise ConfigError(f"--items {namespace.items!r} is a folder; give the name of a file")
    for config in configs:
        say_where_data_go(config.task_model)
    if not all(text.strip() for text in namespace.rivals):
        raise ConfigError("--with is empty; give the text of an instruction")
    from prewrite.run.build import open_one_data_set, rows_of
    from prewrite.scoring.prompt import load_prompt

    prompts: dict[str, TaskPrompt] = {}
    if namespace.run_folder is not None:
        prompts[OF_RUN] = load_prompt(RunFolder.open(namespace.run_folder).prompt)
    for number, file in enumerate(namespace.prompts, start=1):
        prompt = load_prompt(file)
        prompts[f"prompt {number}"] = prompt
    if namespace.no_offsets:
        prompts = {name: replace(prompt, label_offsets=None) for name, prompt in prompts.items()}
    rivals = {f"instruction {number}": text for number, text in enumerate(namespace.rivals, start=1)}
    splits = open_one_data_set(configs[0])
    rows = rows_of(splits, namespace.split, configs[0].instruction)
    if namespace.split == "test":
        print("warning: the test rows are opened; what is chosen by them can no longer be measured on them",
              file=sys.stderr)  # fmt: skip
    measured = []
    for config in configs:
        about, evaluation = measure(config, rows, prompts | rivals, split=namespace.split, limit=namespace.limit)
        about = {"data": rows.source.name, "drawn": splits.drawn(namespace.split), "seed": config.seed, **about}
        measured.append((about, evaluation))
        if not namespace.json:
            print_measured(about, evaluation)
    if len(configs) > 1 and not namespace.json:
        print_table(measured)
    if namespace.json:
        found = [{**about, **evaluation.to_json()} for about, evaluation in measured]
        print(json.dumps(found[0] if len(found) == 1 else {"task_models": found}, ensure_ascii=False))
    if namespace.run_folder is not None:
        report = add_to_report(RunFolder.open(namespace.run_folder), measured, offsets=not namespace.no_offsets)
        if not namespace.json:
            print(f"Report: {report}")
    if namespace.items is not None:  # last: a file that cannot be written must not cost what was paid for
        write_items(namespace.items, measured)
        if not namespace.json:
            print(f"Rows and answers: {namespace.items}")
    return 0


def measure(
    config: TaskConfig,
    found: PRewriteDataset,
    others: Mapping[str, str | TaskPrompt],
    *,
    split: str,
    limit: int | None,
) -> tuple[dict[str, Any], Evaluation]:
    """The rows' own instruction and `others` with one task model; what the answers rest on, and what was found."""
    from prewrite.choosing.evaluate import evaluate  # takes a second, so after the checks
    from prewrite.report.page_notes import notes
    from prewrite.run.build import open_evaluator
    from prewrite.run.progress import phase_line
    from prewrite.task_models.counting import Usage
    from prewrite.task_models.stream import backend_notes

    rows = list(found)[:limit]
    with phase_line("loading"):
        evaluator = open_evaluator(config)
    usage: Usage = evaluator.task_model.usage  # type: ignore[attr-defined]  # what commands open is counted
    with phase_line("asking", usage):
        evaluation = evaluate(
            evaluator, {"initial": rows[0].instruction, **others}, rows, rows=split, seed=config.seed
        )
    told = {"left_out": evaluator.left_out.to_json(), "cost": {"task_model": usage.as_dict()}}
    return {
        "task_model": evaluator.task_model.name,
        "decoding": " and ".join(dict.fromkeys(map(evaluator.decoding_of, rows))),
        "metric": " and ".join(dict.fromkeys(map(evaluator.metric_of, rows))),
        "notes": notes({"task_model": {"notes": backend_notes(evaluator.task_model)}}, told),
    }, evaluation


def add_to_report(run: RunFolder, measured: Sequence[tuple[dict[str, Any], Evaluation]], *, offsets: bool) -> Path:
    """What the run's prompt does with each task model, into the run's files; returns its report, written again.

    `offsets`: whether the prompt had its label offsets.
    """
    from prewrite.report import build_report

    rows = []
    for about, evaluation in measured:
        gain = evaluation.differences[OF_RUN]
        means = {name: evaluation.results[name].mean for name in ("initial", OF_RUN)}
        about = {name: about[name] for name in ("task_model", "data", "decoding", "metric")}
        span = {"gain": gain.mean, "low": gain.low, "high": gain.high, "significant": gain.significant}
        rows.append({**about, "split": evaluation.rows, "n": evaluation.n, "offsets": offsets, **means, **span})
    with run.sole_writer():
        run.append(run.evals, rows)
        return build_report(run.path)


def write_items(file: str, measured: Sequence[tuple[dict[str, Any], Evaluation]]) -> None:
    """Every row and its answers; of several task models with the name of each."""
    from prewrite.files import write_atomic

    lines = []
    for about, evaluation in measured:
        by = {"task_model": about["task_model"]} if len(measured) > 1 else {}
        lines += [json.dumps({**by, **item}, ensure_ascii=False) + "\n" for item in evaluation.items()]
    write_atomic(Path(file), "".join(lines))


def print_measured(about: Mapping[str, Any], evaluation: Evaluation) -> None:
    """What one task model was found to do."""
    from prewrite.choosing.evaluation import calibrated_note

    print(head(about, evaluation.rows, evaluation.n))
    for name, result in evaluation.results.items():
        interval = result.interval
        print(f"{result.mean:.3f}  ({interval.low:.3f} to {interval.high:.3f})  {name}: {result.instruction}")
    for name in evaluation.differences:
        print(f"{name}: {evaluation.verdict(name)}")
        if note := calibrated_note(evaluation.to_json(), name):
            print(f"  {note}")
    for note in about["notes"]:
        print(f"note: {note}")


def print_table(measured: Sequence[tuple[dict[str, Any], Evaluation]]) -> None:
    """The score of every prompt with every task model; a star where it differs significantly from the initial one."""
    names = list(measured[0][1].results)
    width = max(len(about["task_model"]) for about, _ in measured)
    print(f"\n{'task model':<{width}}  {'  '.join(names)}")
    for about, evaluation in measured:
        cells = []
        for name in names:
            difference = evaluation.differences.get(name)
            star = "*" if difference is not None and difference.significant else ""
            cells.append(f"{f'{evaluation.results[name].mean:.3f}{star}':<{len(name)}}")
        print(f"{about['task_model']:<{width}}  {'  '.join(cells)}".rstrip())
    print("*: differs significantly from initial with that task model")


def head(about: Mapping[str, Any], split: str, count: int) -> str:
    """What was measured, in a line."""
    drawn = f" (no {split} file: drawn from it by seed {about['seed']})" if about["drawn"] else ""
    return (
        f"{count:,} {split} rows of {about['data']}{drawn}, answered by {about['task_model']}; "
        f"{about['metric']}, answers read by {about['decoding']}:"
    )
