"""After training: choose the rewrite of an instruction on dev, then open the test set, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prewrite.config import TrainConfig
from prewrite.data import PRewriteDataset
from prewrite.evaluate import evaluate, few_shot_instruction
from prewrite.rewards import TaskReward
from prewrite.run_folder import RunFolder
from prewrite.search import Candidate, merge, propose, select
from prewrite.train.rewriter import Rewriter, starter_adapter
from prewrite.types import RewriteExample


class Task(NamedTuple):
    """One instruction and its rows."""

    instruction: str
    train: PRewriteDataset
    dev: PRewriteDataset
    test: PRewriteDataset


def choose_and_test(
    config: TrainConfig,
    task: Task,
    rewriter: Rewriter,
    reward: TaskReward,
    run: RunFolder,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The greedy rewrite (PRewrite-I) or the best of samples on dev (PRewrite-S), measured on test; a result row.

    Adds the phases' times to `seconds`.
    """
    evaluator, instruction, dev_rows = reward.evaluator, task.instruction, list(task.dev)
    started = time.perf_counter()
    greedy = rewriter.greedy(instruction)
    selection: dict[str, Any] | None = None
    if config.strategy == "S":
        candidates = propose(rewriter, instruction, config.num_candidates, seed=config.seed)
        candidates = merge([*candidates, *best_rollouts(run, instruction, config.num_candidates)])
        readable, refused = split_by_guards(candidates, reward, instruction, dev_rows)
        picked = select(
            readable,
            evaluator.score,
            dev_rows,
            race=config.race,
            max_items=config.race_items or None,
            seed=config.seed,
        )
        run.append(run.rewrites, [*refused, *picked.rows])
        selection = picked.to_json()
        instructions = {"initial": instruction, "rewrite": picked.rewrite}
    else:
        instructions = {"initial": instruction, "rewrite": greedy}
    if config.baselines:
        instructions |= {"trained greedy": greedy, **baselines(config, task, reward)}
    seconds["search"] = seconds.get("search", 0.0) + time.perf_counter() - started

    started = time.perf_counter()
    evaluation = evaluate(evaluator, instructions, list(task.test), seed=config.seed)
    seconds["test"] = seconds.get("test", 0.0) + time.perf_counter() - started
    run.append(run.items, evaluation.items())
    return {
        "instruction": instruction,
        "rewrite": instructions["rewrite"],
        "greedy": greedy,
        "strategy": config.strategy,
        "verdict": evaluation.verdict("rewrite"),
        "test": evaluation.to_json(),
        "selection": selection,
        "guards": {name: reward.penalties(text, instruction, dev_rows) for name, text in instructions.items()},
        "task_model": evaluator.task_model.name,
        "rewriter": config.base_model,
        "decoding": evaluator.decoding_of(task.test[0]),
        "metric": evaluator.metric_of(task.test[0]),
    }


def best_rollouts(run: RunFolder, instruction: str, count: int) -> list[Candidate]:
    """The `count` distinct rewrites of `instruction` that did best in training, against the others of their update.

    Training has scored hundreds of rewrites by now, on few rows each; dev decides whether the luckiest were also good.
    A reward is taken relative to its update's mean, because every update has its own examples.
    """
    updates: dict[int, list[dict[str, Any]]] = {}
    for row in run.read_rows(run.rollouts):
        if row["instruction"] == instruction and row["rewrite"]:
            updates.setdefault(row["step"], []).append(row)
    lead: dict[str, float] = {}
    for rows in updates.values():
        mean = sum(row["reward"] for row in rows) / len(rows)
        for row in rows:
            lead[row["rewrite"]] = max(lead.get(row["rewrite"], -1.0), row["reward"] - mean)
    best = sorted(lead, key=lambda rewrite: -lead[rewrite])[:count]
    return [Candidate(rewrite, "rollout") for rewrite in best]


def split_by_guards(
    candidates: Sequence[Candidate], reward: TaskReward, instruction: str, rows: Sequence[RewriteExample]
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Candidates on which every guard is silent, and a `rewrites.jsonl` row for each refused one.

    The initial instruction is never refused.
    """
    kept, refused = [], []
    for candidate in candidates:
        penalties = reward.penalties(candidate.rewrite, instruction, rows)
        if penalties and candidate.source != "initial":
            refused.append({"event": "refused", **asdict(candidate), "guards": penalties})
        else:
            kept.append(candidate)
    return kept, refused


def baselines(config: TrainConfig, task: Task, reward: TaskReward) -> dict[str, str]:
    """What RL must beat: the rewriter before it, greedy and best of the same samples, and random exemplars."""
    starter = starter_adapter(config.base_model) if config.warm_start == "auto" else config.warm_start
    settings = {"meta_family": config.meta_family, "max_new_tokens": config.response_length}
    before = Rewriter.untrained(config.base_model, **settings)
    found = {"untrained greedy": before.greedy(task.instruction)}
    if starter not in (None, "none"):
        before = Rewriter.untrained(config.base_model, warm_start=starter, temperature=config.temperature, **settings)
        found["warm-started greedy"] = before.greedy(task.instruction)
    candidates = propose(before, task.instruction, config.num_candidates, seed=config.seed)
    readable, _ = split_by_guards(candidates, reward, task.instruction, list(task.dev))
    picked = select(readable, reward.evaluator.score, list(task.dev), race=config.race)
    found["best of samples before RL"] = picked.rewrite
    found["4 random exemplars"] = few_shot_instruction(task.instruction, list(task.train), 4, seed=config.seed)
    return {name: rewrite for name, rewrite in found.items() if rewrite}
