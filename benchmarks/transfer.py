"""One rewriter for many tasks: does it help on tasks that it never saw?

Trains one rewriter by PPO on a mixture of data sets and wordings, then asks it for a greedy rewrite of the instruction
of each held-out task and measures that on the task's test rows, beside the initial instruction and the greedy rewrites
of the rewriter before RL (bare, and warm-started). Nothing is chosen on the held-out tasks: no rows of theirs are read
before the last step.

    python benchmarks/transfer.py --data FOLDER_OF_DATA_SETS --output runs/transfer

Data sets of the same kind of task as a held-out one leave the training mixture too. Intervals are paired bootstraps
(95%).
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from prewrite.choosing.evaluate import evaluate
from prewrite.data import load_splits
from prewrite.rewriter.rewriter import Rewriter
from prewrite.rewriter.starter import starter_adapter
from prewrite.run.build import open_evaluator
from prewrite.run.config import TrainConfig
from prewrite.run.train import train_rewriter
from prewrite.run_folder import RunFolder

HELD_OUT = "subj,sst5,ii_sentiment,ii_rhymes,ii_diff,ii_singular_to_plural,ii_translation_en_es"
# Sets of the same kind of task as a held-out one leave the training mixture too: unseen means unseen.
KIN = {"ii_sentiment": ("sst2", "mr"), "sst5": ("sst2", "mr"), "ii_translation_en_es": ("ii_translation_en_fr",)}


def main() -> None:
    """Train, or take a trained run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of data sets")
    parser.add_argument("--held-out", default=HELD_OUT, help="names of the unseen data sets, by commas")
    parser.add_argument("--seen", help="names of the data sets to train on, by commas; all others by default")
    parser.add_argument("--instructions-per-step", type=int, default=4, help="an update's 16 rewrites are shared out")
    parser.add_argument("--keep-kin", action="store_true", help="train on relatives of held-out tasks too")
    parser.add_argument("--output", required=True, type=Path, help="run folder; a finished one is not trained again")
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--test-rows", type=int, default=100, help="most test rows of each held-out task")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    held_out = given.held_out.split(",")
    kin = set() if given.keep_kin else {relative for name in held_out for relative in KIN.get(name, ())}
    sets = sorted(folder.name for folder in given.data.iterdir() if (folder / "train.jsonl").is_file())
    wanted = given.seen.split(",") if given.seen else sets
    if missing := [name for name in [*held_out, *wanted] if name not in sets]:
        sys.exit(f"error: no data set {missing[0]!r} in {given.data}; there are {', '.join(sets)}")
    seen = [name for name in wanted if name not in held_out and name not in kin]
    config = TrainConfig(
        dataset=[str(given.data / name) for name in seen],
        output_dir=str(given.output),
        phrasings=str(Path(__file__).with_name("phrasings.yaml")),
        reward_mode="soft",
        task_model_options={"max_new_tokens": "16"},
        max_steps=given.max_steps,
        rewrites_per_step=16,
        instructions_per_step=given.instructions_per_step,
        examples_per_rewrite=8,
        response_length=40,
        learning_rate=4e-4,
        temperature=0.7,
        eval_steps=10,
        dev_examples=120,
        seed=given.seed,
        overwrite=True,
    )
    run = RunFolder(given.output)
    if not (run.rewriter / "rewriter.json").is_file():
        with ExitStack() as until_end:
            train_rewriter(config, [], until_end)
    measure(given, config, held_out, seen, run)


def measure(given: argparse.Namespace, config: TrainConfig, held_out: list[str], seen: list[str], run: RunFolder):
    """Greedy rewrites of the unseen instructions by three rewriters, on test rows."""
    evaluator = open_evaluator(config)
    settings = {"meta_family": config.meta_family, "max_new_tokens": config.response_length}
    starter = starter_adapter(config.base_model)
    rewriters = {
        "bare model": Rewriter.untrained(config.base_model, **settings),
        "warm-started": Rewriter.untrained(config.base_model, warm_start=starter, **settings),
        "trained": Rewriter.load(run.path),
    }
    rows, counts = [], {name: [0, 0, 0] for name in rewriters}
    print(f"Trained on {len(seen)} data sets ({', '.join(seen)}), seed {given.seed}.")
    print("Dev score of the greedy rewrites, of which the best one's policy is kept (guards count as well):")
    print(", ".join(f"{score:.3f} after update {step}" for step, score in dev_scores(run).items()) + ".\n")
    print(
        "| unseen task | rows | initial | " + " | ".join(rewriters) + " | trained minus initial | minus warm-started |"
    )
    print("| --- | ---: | ---: |" + " ---: |" * len(rewriters) + " --- | --- |")
    for name in held_out:
        test = list(load_splits(given.data / name).test)[: given.test_rows]
        instruction = test[0].instruction
        texts = {"initial": instruction} | {who: rewriter.greedy(instruction) for who, rewriter in rewriters.items()}
        found = evaluate(evaluator, texts, test, primary="trained", seed=given.seed).to_json()
        for who in rewriters:
            difference = found["differences"][who]
            counts[who][0 if difference["low"] > 0 else 2 if difference["high"] < 0 else 1] += 1
        means = " | ".join(f"{found['instructions'][who]['mean']:.3f}" for who in texts)
        gains = " | ".join(
            f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" if gain else "same text"
            for gain in (found["differences"]["trained"], found["gains_over"].get("warm-started"))
        )
        print(f"| {name} | {len(test)} | {means} | {gains} |", flush=True)
        rows.append({"task": name, "texts": texts, "result": found})
    print("\nWins, ties and losses against the initial instruction (a win is an interval above 0):")
    for who, (wins, ties, losses) in counts.items():
        print(f"- {who}: {wins} wins, {ties} ties, {losses} losses")
    print("\nThe rewrites:")
    for row in rows:
        print(f"- {row['task']}: {row['texts']['initial']!r} -> {row['texts']['trained']!r}")
    run.write_json(run.path / "transfer.json", {"seen": seen, "tasks": rows, "counts": counts})


def dev_scores(run: RunFolder) -> dict[int, float]:
    """Mean score over dev rows at each evaluation of the seen tasks."""
    rows: dict[int, list[tuple[float, int]]] = {}
    for row in run.read_rows(run.rewrites):
        if row["event"] == "dev_eval":
            rows.setdefault(row["step"], []).append((row["score"], row["n"]))
    return {step: sum(score * n for score, n in found) / sum(n for _, n in found) for step, found in rows.items()}


if __name__ == "__main__":
    main()
