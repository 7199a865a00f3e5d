"""`prewrite export RUN --to FORMAT`: a prompt in the form that another tool reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prewrite.interop.formats import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt, the format, and where it goes."""
    formats = "\n".join(f"  {name:<10} {form.what}" for name, form in FORMATS.items())
    parser.epilog = (
        f"Formats:\n{formats}\n"
        "What a format cannot hold, such as label offsets, is told on standard error.\n"
        "Example: prewrite export runs/search --to promptfoo --output promptfooconfig.yaml"
    )
    parser.add_argument("prompt", metavar="RUN", help="run folder, or the prompt.json in one")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--output", metavar="FILE", help="write this file; without it, print")
    parser.add_argument("--model", metavar="MODEL",
                        help="the task model, for promptfoo and ollama (default: that of the run)")  # fmt: skip


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print or write the prompt, and say what was lost."""
    from prewrite.files import write_atomic
    from prewrite.interop.formats import export
    from prewrite.scoring.prompt import load_prompt

    prompt = load_prompt(namespace.prompt)
    measured = measured_with(Path(namespace.prompt))
    written = export(prompt, namespace.to, model=measured.model if namespace.model is None else namespace.model)
    lost = list(written.lost)
    if measured.instructions > 1:
        lost.append(f"the run has {measured.instructions} instructions, and this is the prompt of the first")
    if measured.decoding == "likelihood" and prompt.label_offsets is None:
        lost.append(
            "the run read answers as the likeliest label; what reads a text answer may find another score, so measure "
            "again"
        )
    if namespace.output is None:
        print(written.text, end="" if written.text.endswith("\n") else "\n")
    else:
        write_atomic(Path(namespace.output), written.text)
        print(namespace.output)
    for sentence in lost:
        print(f"note: {sentence}.", file=sys.stderr)
    return 0


class Measured(NamedTuple):
    """What a run tells of its prompt."""

    model: str = ""
    decoding: str = ""
    instructions: int = 1


def measured_with(place: Path) -> Measured:
    """The task model and the decoding that a run measured its prompt with; empty texts where no run is there."""
    from prewrite.run_folder import RunFolder
    from prewrite.text import Maybe

    folder = RunFolder(place if place.is_dir() else place.parent)
    if not folder.result.is_file():
        return Measured()
    shape = {"task_model": Maybe(str), "decoding": Maybe(str), "tasks": Maybe(list)}
    result = folder.read_json(folder.result, shape)
    tasks = result.get("tasks") or [result]
    return Measured(result.get("task_model") or "", result.get("decoding") or "", len(tasks))
