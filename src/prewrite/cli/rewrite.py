"""`prewrite rewrite`, and `inference.py`, which is the same."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError
from prewrite.files import why_unreadable
from prewrite.run.build import open_constraints
from prewrite.run.checks import check_server
from prewrite.run.config import ChoiceConfig
from prewrite.run_folder import RunFolder
from prewrite.scoring.guards import GuardContext, check_guards, language_note
from prewrite.scoring.prompt import TaskPrompt
from prewrite.types import RewriteExample

if TYPE_CHECKING:
    from prewrite.rewriter.rewriter import Rewriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The rewriter, the instruction, and for strategy S the data that chooses."""
    parser.epilog = (
        'Example: prewrite rewrite --model_dir runs/demo --instruction "Sort the mail." --strategy I\n'
        "Strategy S needs dev rows: add --data rows.jsonl (their dev split chooses) and --task-model."
    )
    parser.add_argument(
        "--model_dir", "--model-dir", required=True, metavar="RUN", help="run folder or rewriter folder"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--instruction", metavar="TEXT", help="what to rewrite")
    what.add_argument("--file", metavar="FILE", help="text file of instructions, one a line; one rewrite a line")
    parser.add_argument("--json", action="store_true", help="print one JSON object, or one a line")
    add_options(parser, ChoiceConfig, without=["instruction"])


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the rewrite."""
    require("torch", "transformers", "peft")
    instructions = [namespace.instruction.strip()] if namespace.file is None else read_instructions(namespace.file)
    if not instructions[0]:
        raise ConfigError("--instruction is empty; give the text to rewrite")
    namespace.instruction = instructions[0]
    config = build_config(ChoiceConfig, namespace)
    for instruction in instructions:
        open_constraints(config).check_initial(instruction)
    if config.strategy == "S" and not config.dataset:
        raise ConfigError("--strategy S chooses on dev rows; give --data FILE_OR_FOLDER, or use --strategy I")
    if config.strategy == "S":
        say_where_data_go(config.task_model)
    for note in dict.fromkeys(filter(None, map(language_note, instructions))):
        print(f"warning: {note}", file=sys.stderr)
    RunFolder.find_rewriter(namespace.model_dir)
    rows = dev_rows(config, instructions[0]) if config.strategy == "S" else []
    if rows:
        check_server(config)
    from prewrite.rewriter.rewriter import Rewriter  # takes seconds, so after the checks

    rewriter = Rewriter.load(namespace.model_dir)
    for instruction in instructions:
        if config.strategy == "I":
            wrote = greedy(config, instruction, rewriter)
        else:
            asked = [replace(row, instruction=instruction) for row in rows]
            wrote = best_of_samples(config, instruction, rewriter, asked)
        found = {"instruction": instruction, "strategy": config.strategy, **wrote}
        text = found["rewrite"] if namespace.file is None else " ".join(found["rewrite"].split())
        print(json.dumps(found, ensure_ascii=False) if namespace.json else text)
    return 0


def read_instructions(file: str) -> list[str]:
    """The lines of a text file that are not blank. Raises `ConfigError`."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file!r} cannot be read as UTF-8 text ({why_unreadable(error)})") from None
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise ConfigError(f"--file {file!r} holds no text; write one instruction a line")
    return found


def greedy(config: ChoiceConfig, instruction: str, rewriter: Rewriter) -> dict[str, Any]:
    """Strategy I: the greedy rewrite, with a warning where guards fire on it.

    The instruction itself, with a warning, where the greedy rewrite breaks a rule of the user.
    """
    from prewrite.run.build import open_evaluator, open_fidelity

    around = TaskPrompt("", template=config.task_template)
    counts = config.max_prompt_tokens is not None  # in the task model's tokens
    constraints = open_constraints(config, open_evaluator(config) if counts else None)
    constraints.check_length(around.with_instruction(instruction))
    rewrite = rewriter.greedy(instruction)
    if broken := constraints.violations(around.with_instruction(rewrite)):
        print(
            f"warning: the initial instruction is kept: the greedy rewrite {rewrite!r} breaks "
            f"{' and '.join(broken)}; --strategy S chooses among many",
            file=sys.stderr,
        )
        rewrite = instruction
    violations = check_guards(rewrite, GuardContext(instruction), config.guards)
    judge = open_fidelity(config)
    fidelity = judge([rewrite], instruction)[0] if judge else None
    faults = [f"{name} {amount:.2f}, where 1 is the worst" for name, amount in violations.items()]
    if fidelity is not None and fidelity < config.min_fidelity:
        faults.append(f"fidelity {fidelity:.2f}, below {config.min_fidelity:g}")
    if faults:
        print(
            f"warning: guards fire on this rewrite ({'; '.join(faults)}); read it before you use it, or let "
            "--strategy S choose on rows of the task",
            file=sys.stderr,
        )
    return {"rewrite": rewrite, "guards": violations, "fidelity": fidelity}


def dev_rows(config: ChoiceConfig, instruction: str) -> list[RewriteExample]:
    """The dev rows of the settings, as rows of the instruction."""
    from prewrite.run.build import open_rows

    return [replace(row, instruction=instruction) for row in open_rows(config, "dev", instruction)]


def best_of_samples(
    config: ChoiceConfig, instruction: str, rewriter: Rewriter, rows: list[RewriteExample]
) -> dict[str, Any]:
    """Strategy S: the best of samples on the dev rows."""
    from prewrite.choosing.choose import choose_rewrite
    from prewrite.run.build import choice_settings, open_evaluator, open_reward

    reward = open_reward(config, open_evaluator(config), rows[:1])
    reward.constraints.check_length(reward.evaluator.prompt_of(instruction))
    choice = choose_rewrite(instruction, rewriter, reward, rows, **choice_settings(config))
    picked = choice.selection
    if picked.chosen == picked.initial:
        print(
            f"warning: the initial instruction is kept: none of {len(picked.candidates) - 1} rewrites scored higher "
            f"on {len(picked.raced)} dev rows ({len(choice.refused)} more were refused by guards)",
            file=sys.stderr,
        )
    return {
        "rewrite": picked.rewrite,
        "source": picked.candidates[picked.chosen].source,
        "calls": picked.calls,
        "full_calls": picked.full_calls,
        "stopped": picked.stopped,
        "refused": len(choice.refused),
        "fidelity": reward.fidelities([picked.rewrite], instruction)[0],
    }
