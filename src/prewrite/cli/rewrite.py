"""`prewrite rewrite`, and `inference.py`, which is the same."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from prewrite.cli.options import add_options, build_config
from prewrite.cli.train import require_training
from prewrite.errors import ConfigError
from prewrite.run.config import STRATEGIES, TaskConfig
from prewrite.scoring.guards import DEFAULT_GUARDS, GuardContext, check_guards, language_note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The rewriter, the instruction, and for strategy S the data that chooses."""
    parser.epilog = (
        'Example: prewrite rewrite --model_dir runs/demo --instruction "Sort the mail." --strategy I\n'
        "Strategy S needs dev rows: add --data rows.jsonl (their dev split chooses) and --task-model."
    )
    parser.add_argument(
        "--model_dir", "--model-dir", required=True, metavar="RUN", help="run folder or rewriter folder"
    )
    parser.add_argument(
        "--instruction", dest="rewrite_instruction", required=True, metavar="TEXT", help="what to rewrite"
    )
    parser.add_argument("--strategy", default="I", choices=STRATEGIES, help="I: greedy; S: the best of samples on dev")
    parser.add_argument("--num_candidates", "--num-candidates", type=int, default=10, help="samples of strategy S")
    parser.add_argument(
        "--race", action=argparse.BooleanOptionalAction, default=True, help="drop hopeless candidates early"
    )
    parser.add_argument("--practical_delta", "--practical-delta", type=float, default=0.0,
                        help="end the race when all left are within this of each other")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TaskConfig, only=[
        "dataset", "dev_dataset", "test_dataset", "column_map", "task", "task_model", "task_backend",
        "task_model_options", "task_template", "decoding", "metric", "cache", "max_task_calls", "max_minutes",
        "fidelity_model", "min_fidelity", "seed",
    ])  # fmt: skip


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the rewrite."""
    require_training()
    instruction = namespace.rewrite_instruction.strip()
    if not instruction:
        raise ConfigError("--instruction is empty; give the text to rewrite")
    config = build_config(TaskConfig, namespace, instruction=instruction)
    if namespace.strategy == "S" and not config.dataset:
        raise ConfigError("--strategy S chooses on dev rows; give --data FILE_OR_FOLDER, or use --strategy I")
    if note := language_note(instruction):
        print(f"warning: {note}", file=sys.stderr)
    from prewrite.rewriter.rewriter import Rewriter
    from prewrite.run.build import open_evaluator, open_fidelity, open_rows

    rewriter = Rewriter.load(namespace.model_dir)
    if namespace.strategy == "I":
        rewrite = rewriter.greedy(instruction)
        violations = check_guards(rewrite, GuardContext(instruction))
        judge = open_fidelity(config)
        fidelity = judge([rewrite], instruction)[0] if judge else None
        found = {
            "instruction": instruction,
            "rewrite": rewrite,
            "strategy": "I",
            "guards": violations,
            "fidelity": fidelity,
        }
        faults = [f"{name} {amount:.2f}, where 1 is the worst" for name, amount in violations.items()]
        if fidelity is not None and fidelity < config.min_fidelity:
            faults.append(f"fidelity {fidelity:.2f}, below {config.min_fidelity:g}")
        if faults:
            print(
                f"warning: guards fire on this rewrite ({'; '.join(faults)}); read it before you use it, or let "
                "--strategy S choose on rows of the task",
                file=sys.stderr,
            )
    else:
        from dataclasses import replace

        from prewrite.choosing.choose import choose_rewrite
        from prewrite.run.build import open_reward

        rows = [replace(row, instruction=instruction) for row in open_rows(config, "dev", instruction)]
        reward = open_reward(config, open_evaluator(config), rows[:1], guards=DEFAULT_GUARDS)
        choice = choose_rewrite(
            instruction,
            rewriter,
            reward,
            rows,
            num_candidates=namespace.num_candidates,
            race=namespace.race,
            practical_delta=namespace.practical_delta,
            seed=config.seed,
        )
        picked = choice.selection
        found = {
            "instruction": instruction,
            "rewrite": picked.rewrite,
            "strategy": "S",
            "source": picked.candidates[picked.chosen].source,
            "calls": picked.calls,
            "full_calls": picked.full_calls,
            "stopped": picked.stopped,
            "refused": len(choice.refused),
            "fidelity": reward.fidelities([picked.rewrite], instruction)[0],
        }
    print(json.dumps(found, ensure_ascii=False) if namespace.json else found["rewrite"])
    return 0
