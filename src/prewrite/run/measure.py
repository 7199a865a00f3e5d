"""After training: choose the rewrite of an instruction on dev, then open the test set, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prewrite.choosing.candidates import Candidate, merge, propose
from prewrite.choosing.evaluate import evaluate, few_shot_instruction
from prewrite.choosing.race import Selection, corrected_estimate, select
from prewrite.data import PRewriteDataset
from prewrite.rewriter.rewriter import Rewriter, RewriterSettings
from prewrite.run.config import TrainConfig
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import TaskReward
from prewrite.train.warm_start import adapter_for
from prewrite.types import RewriteExample


class Task(NamedTuple):
    """One instruction and its rows."""

    instruction: str
    train: PRewriteDataset | None
    """None where training had no rows of it."""
    dev: PRewriteDataset
    test: PRewriteDataset | None
    """None where no rows are held out; the gain is then estimated from dev, corrected for the choice."""


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
    instructions = {"initial": instruction, "rewrite": greedy}
    selection: Selection | None = None
    if config.strategy == "S":
        selection = choose_on_dev(config, instruction, dev_rows, rewriter, reward, run, complete=task.test is None)
        instructions["rewrite"] = selection.rewrite
    if config.baselines:
        instructions |= {"trained greedy": greedy, **baselines(config, task, reward, rewriter.settings)}
    seconds["search"] = seconds.get("search", 0.0) + time.perf_counter() - started

    started = time.perf_counter()
    if task.test is not None:
        evaluation = evaluate(evaluator, instructions, list(task.test), primary="rewrite", seed=config.seed)
        run.append(run.items, evaluation.items())
        measured = {"verdict": evaluation.verdict("rewrite"), "test": evaluation.to_json()}
        if selection is not None:
            scores = {"initial": selection.mean(selection.initial), "rewrite": selection.mean(selection.chosen)}
            measured["dev"] = {"n": len(selection.raced), "scores": scores}
    else:
        assert selection is not None  # the settings allow no other strategy without test rows
        measured = estimate_from_dev(selection, seed=config.seed)
    seconds["test"] = seconds.get("test", 0.0) + time.perf_counter() - started
    return {
        "instruction": instruction,
        "rewrite": instructions["rewrite"],
        "greedy": greedy,
        "strategy": config.strategy,
        **measured,
        "selection": selection.to_json() if selection is not None else None,
        "guards": {name: reward.penalties(text, instruction, dev_rows) for name, text in instructions.items()},
        "fidelity": dict(zip(instructions, reward.fidelities(list(instructions.values()), instruction), strict=True)),
        "task_model": evaluator.task_model.name,
        "rewriter": config.base_model,
        "decoding": evaluator.decoding_of(task.dev[0]),
        "metric": evaluator.metric_of(task.dev[0]),
    }


def choose_on_dev(
    config: TrainConfig,
    instruction: str,
    dev_rows: Sequence[RewriteExample],
    rewriter: Rewriter,
    reward: TaskReward,
    run: RunFolder,
    *,
    complete: bool,
) -> Selection:
    """Let samples and the best rewrites of training race on dev; every decision goes to `rewrites.jsonl`."""
    candidates = propose(rewriter, instruction, config.num_candidates, seed=config.seed)
    candidates = merge([*candidates, *best_rollouts(run, instruction, config.num_candidates)])
    readable, refused = split_by_guards(candidates, reward, instruction, dev_rows)
    selection = select(
        readable,
        reward.evaluator.score,
        dev_rows,
        race=config.race,
        max_items=config.race_items or None,
        complete=complete,
        seed=config.seed,
    )
    run.append(run.rewrites, [*refused, *with_fidelity(selection.rows, reward, instruction)])
    return selection


def estimate_from_dev(selection: Selection, *, seed: int) -> dict[str, Any]:
    """The verdict and the dev scores of a run that holds out no test rows, corrected for the choice."""
    corrected = corrected_estimate(selection, seed=seed)
    chosen, initial = selection.scores[[selection.chosen, selection.initial]]
    scores = {"initial": float(initial.mean()), "rewrite": float(chosen.mean())}
    dev = {"n": len(chosen), "scores": scores, "corrected": corrected.to_json()}
    return {"verdict": corrected.verdict(), "test": None, "dev": dev}


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


def active_guards(names: Sequence[str], decodings: set[str]) -> list[str]:
    """`names` less `keep_words` where every answer is read by label likelihood.

    There the labels are scored directly, so an instruction need not list them; anywhere else the task model learns
    the labels from the instruction alone.
    """
    return [name for name in names if name != "keep_words" or decodings != {"likelihood"}]


def split_by_guards(
    candidates: Sequence[Candidate], reward: TaskReward, instruction: str, rows: Sequence[RewriteExample]
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Candidates on which every guard is silent, and a `rewrites.jsonl` row for each refused one.

    The initial instruction is never refused.
    """
    kept, refused = [], []
    fidelities = reward.fidelities([candidate.rewrite for candidate in candidates], instruction)
    for candidate, fidelity in zip(candidates, fidelities, strict=True):
        penalties = reward.penalties(candidate.rewrite, instruction, rows)
        if penalties and candidate.source != "initial":
            refused.append({"event": "refused", **asdict(candidate), "guards": penalties, "fidelity": fidelity})
        else:
            kept.append(candidate)
    return kept, refused


def with_fidelity(rows: Sequence[dict[str, Any]], reward: TaskReward, instruction: str) -> list[dict[str, Any]]:
    """The race's rows, those of candidates with their fidelity."""
    return [
        row | {"fidelity": reward.fidelities([row["rewrite"]], instruction)[0]} if row["event"] == "candidate" else row
        for row in rows
    ]


def baselines(config: TrainConfig, task: Task, reward: TaskReward, trained: RewriterSettings) -> dict[str, str]:
    """What RL must beat: the rewriter before it, greedy and best of the same samples, and random exemplars."""
    starter = adapter_for(config.warm_start, config.base_model, config.meta_family)
    settings = {name: value for name, value in asdict(trained).items() if name != "base_model"}
    before = Rewriter.untrained(config.base_model, **settings)
    found = {"untrained greedy": before.greedy(task.instruction)}
    if starter is not None:
        before = Rewriter.untrained(config.base_model, warm_start=starter, **settings)
        found["warm-started greedy"] = before.greedy(task.instruction)
    candidates = propose(before, task.instruction, config.num_candidates, seed=config.seed)
    readable, _ = split_by_guards(candidates, reward, task.instruction, list(task.dev))
    picked = select(readable, reward.evaluator.score, list(task.dev), race=config.race)
    found["best of samples before RL"] = picked.rewrite
    if task.train is not None:
        found["4 random exemplars"] = few_shot_instruction(task.instruction, list(task.train), 4, seed=config.seed)
    return {name: rewrite for name, rewrite in found.items() if rewrite}
