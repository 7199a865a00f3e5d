"""Seconds and memory of one GRPO or RLOO update: TRL's own passes beside prompts that are read once.

    python benchmarks/group_step.py
    python benchmarks/group_step.py --algorithm rloo --updates 2 --dry      one layer and few tokens, to try the script

16 rewrites of up to 40 tokens of one instruction, two passes over them, a reward that costs nothing, the embedded
model with its warm start and LoRA r16. Each part runs in a process of its own; the first update, which also warms up,
is not counted. Wall seconds depend on who else uses the machine; CPU seconds much less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from ppo_step import INSTRUCTION, ConstantGrades, cut, lora_config

PARTS = {"TRL's passes": False, "prompts read once": True}


def run_part(shared: bool, algorithm: str, updates: int, dry: bool) -> dict:
    """One part in this process; seconds of each update but the first."""
    from prewrite.data import PRewriteDataset
    from prewrite.rewriter.starter import load_base, starter_adapter
    from prewrite.scoring.evaluator import Evaluator
    from prewrite.train.algorithms import ALGORITHMS
    from prewrite.train.trl_group import SharedPrompts
    from prewrite.types import RewriteExample

    if not shared:
        SharedPrompts.shares_prompts = False
    model, tokenizer = load_base("embedded", warm_start=None if dry else starter_adapter("embedded"))
    ends: list[tuple[float, float]] = []
    trainer = ALGORITHMS[algorithm].trainer_class()(
        (cut(model, dry), tokenizer), Evaluator(None), log_dir=tempfile.mkdtemp(),
        train_dataset=PRewriteDataset.from_examples([RewriteExample(INSTRUCTION, "x", "y")]), reward=ConstantGrades(),
        lora=lora_config(), max_steps=updates + 1, save_steps=10**9, max_completion_length=4 if dry else 40, seed=1,
        progress=lambda step, metrics: ends.append((time.perf_counter(), time.process_time())),
    )  # fmt: skip
    trainer._save_checkpoint = lambda *_: None
    trainer.train()
    seconds = [[now - then for now, then in zip(ends[at + 1], ends[at], strict=True)] for at in range(updates)]
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def main() -> None:
    """Run both parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=["grpo", "rloo"], default="grpo")
    parser.add_argument("--updates", type=int, default=3, help="the median is shown")
    parser.add_argument("--dry", action="store_true", help="one layer and few tokens, to try the script")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(run_part(PARTS[given.only], given.algorithm, given.updates, given.dry)))
        return
    medians = {}
    print("| part | wall s | CPU s | peak MB |\n|---|---|---|---|")
    for part in PARTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", part]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output.splitlines()[-1])
        medians[part] = [statistics.median(column) for column in zip(*found["seconds"], strict=True)]
        print(f"| {part} | {medians[part][0]:.1f} | {medians[part][1]:.1f} | {found['peak_mb']:.0f} |", flush=True)
    theirs, ours = medians.values()
    print(f"ratio: {theirs[0] / ours[0]:.1f}x wall, {theirs[1] / ours[1]:.1f}x CPU")


if __name__ == "__main__":
    main()
