"""`prewrite ask`: answer inputs with a prompt.json and any task model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from prewrite.cli.options import add_options, build_config
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError, DataError
from prewrite.files import why_unreadable
from prewrite.run.config import TaskConfig
from prewrite.text import is_valid_unicode, parse_json, shown
from prewrite.types import RewriteExample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt, the inputs, the task model."""
    parser.epilog = (
        'Example: prewrite ask --prompt runs/search "The parcel never came."\n'
        "Label offsets are applied where the task model scores labels; elsewhere ask with --no-offsets."
    )
    parser.add_argument("input", nargs="?", metavar="INPUT", help="what to answer; - reads it from standard input")
    parser.add_argument(
        "--prompt", required=True, metavar="FILE", help="prompt.json, or the run folder that holds one"
    )
    parser.add_argument("--file", metavar="ROWS", help="JSONL file whose rows have an `input`; prints one JSON a row")
    parser.add_argument("--json", action="store_true", help="print the answer to INPUT as one JSON object")
    parser.add_argument("--choices", nargs="+", metavar="LABEL",
                        help="the possible answers (default: the labels that have offsets)")  # fmt: skip
    parser.add_argument("--no-offsets", "--no_offsets", action="store_true", help="leave the label offsets out")
    add_options(parser, TaskConfig, only=[
        "task_model", "task_model_options", "task", "cache", "max_task_calls", "max_minutes",
    ])  # fmt: skip


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the answers."""
    from prewrite.scoring.prompt import load_prompt

    prompt = load_prompt(namespace.prompt)
    labels = namespace.choices or [label for label, _ in prompt.label_offsets or ()]
    if labels and (len(set(labels)) != len(labels) or len(labels) < 2 or not all(map(str.strip, labels))):
        raise ConfigError(f"--choices is {labels!r}; it must be two or more different labels")
    if namespace.no_offsets:
        prompt = replace(prompt, label_offsets=None)
    if (namespace.input is None) == (namespace.file is None):
        raise ConfigError("give one INPUT, or --file ROWS")
    inputs = [_input(namespace.input)] if namespace.file is None else list(read_inputs(namespace.file))
    if not inputs:
        raise DataError(f'{namespace.file} holds no rows; write one {{"input": ...}} a line')
    config = build_config(TaskConfig, namespace)
    say_where_data_go(config.task_model)
    choices = tuple(labels) or None
    task = config.task or ("classification" if choices else None)
    if choices and task != "classification":
        raise ConfigError(f"task is {task!r} and there are labels; leave --task out, or make it classification")
    examples = [RewriteExample(prompt.instruction, text, "", task, choices=choices) for text in inputs]  # type: ignore[arg-type]

    from prewrite.run.build import open_counted_task_model
    from prewrite.scoring.evaluator import Evaluator

    evaluator = Evaluator(open_counted_task_model(config), decoding=prompt.decoding)
    answers = evaluator.answers([prompt], examples)[0]
    for text, answer in zip(inputs, answers, strict=True):
        plain = namespace.file is None and not namespace.json
        print(answer.prediction if plain else _line(text, answer.prediction))
    return 0


def _line(text: str, answer: str) -> str:
    return json.dumps({"input": text, "answer": answer}, ensure_ascii=False)


def _input(text: str) -> str:
    text = sys.stdin.read().strip() if text == "-" else text
    if not text.strip() or not is_valid_unicode(text):
        raise ConfigError(f"INPUT is {'valid text in no encoding' if text.strip() else 'empty'}; give what to answer")
    return text


def read_inputs(file: str) -> Iterator[str]:
    """The `input` of every row of a JSONL file. Raises `DataError` that names file and line."""
    try:
        content = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text ({why_unreadable(error)}); give a JSONL file") from None
    for number, line in enumerate(content.split("\n"), start=1):  # a JSON text may hold the other ends of lines
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{file}:{number} is not JSON ({error}); write one object a line") from None
        text = row.get("input") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{file}:{number}, field 'input': {text!r}; it must be text")
        if not text.strip():
            raise DataError(f"{file}:{number}, field 'input': {text!r}; it must not be blank")
        if not is_valid_unicode(text):
            raise DataError(f"{file}:{number}, field 'input': {shown(text)}; it must be valid Unicode")
        yield text
