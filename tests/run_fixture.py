"""A run folder with the files that a real run leaves, made by the package's own `select` and `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.race import corrected_estimate, select
from prewrite.run_folder import RunFolder
from prewrite.types import Answer, RewriteExample

LABELS = ("billing", "delivery", "returns", "technical")
INITIAL = "Classify the customer message."
REWRITE = (
    "Read the customer message and decide which team should answer it. Choose exactly one of: billing, delivery, "
    "returns, technical. Answer with the label only."
)
DRAFTS = (
    "Classify the customer message into a category.",
    "Classify the customer message. Choose one of: billing, delivery, returns, technical.",
    "Read the customer message and choose one of: billing, delivery, returns, technical.",
    "Tell which team should answer the customer message: billing, delivery, returns or technical.",
)
MESSAGES = (
    "I was charged twice for my order last week",
    "The parcel still shows as waiting at the depot",
    "How do I send back a pair of shoes that is too small",
    "The app closes as soon as I open the settings",
)


class NoisyAnswers:
    """An evaluator whose task model is right with a chance that the instruction's wording sets."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def skill(self, rewrite: str) -> float:
        """Chance of a right answer: better instructions name the labels."""
        if rewrite == INITIAL:
            return 0.58
        return min(0.86, 0.42 + 0.08 * sum(label in rewrite for label in LABELS) + 0.0007 * min(len(rewrite), 140))

    def answers(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """Answers whose luck is shared by all rewrites at an item, as with a real task model."""
        return [[self._answer(rewrite, example) for example in examples] for rewrite in rewrites]

    def score(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> np.ndarray:
        """(rewrite, example) scores."""
        return np.array([[answer.score for answer in row] for row in self.answers(rewrites, examples)])

    def _answer(self, rewrite: str, example: RewriteExample) -> Answer:
        item = np.random.default_rng([self.seed, *example.input.encode()]).normal()
        own = np.random.default_rng([self.seed, len(rewrite), *example.input.encode()]).normal()
        right = 0.75 * item + 0.66 * own < NormalDist().inv_cdf(self.skill(rewrite))
        gold = LABELS.index(example.targets[0])
        chosen = gold if right else (gold + 1 + len(example.input) % 3) % 4
        logits = np.full(4, -3.0)
        logits[chosen] = -0.3 - abs(own) * 0.8
        output = LABELS[chosen]
        return Answer(f"{rewrite}\n\n{example.input}", output, output, float(right), tuple(logits.tolist()))


def examples(count: int, prefix: str) -> list[RewriteExample]:
    """`count` labelled messages, no two alike."""
    return [
        RewriteExample(INITIAL, f"{MESSAGES[i % 4]} ({prefix} {i}).", LABELS[i % 4], "classification", None, LABELS)
        for i in range(count)
    ]


def make_run(
    path: Path,
    *,
    updates: int = 120,
    per_update: int = 16,
    rewrite: str = REWRITE,
    test_rows: int = 300,
    finished: bool = True,
    seed: int = 0,
    baselines: bool = True,
) -> Path:
    """Write a run folder. `test_rows` 0 is a run without test rows; `finished` off is one in progress."""
    run = RunFolder.create(path)
    rng = np.random.default_rng(seed)
    settings = {
        "instruction": INITIAL,
        "algorithm": "ppo",
        "seed": seed,
        "learning_rate": 1e-5,
        "kl_coef": 0.05,
        "num_candidates": 14,
        "task_model": "scripted:noisy",
        "base_model": "SmolLM2-135M-Instruct",
    }
    argv = ["train", "--data", "messages.jsonl", "--seed", str(seed), "--output-dir", "runs/my run"]
    run.write_json(
        run.config,
        {
            "prewrite_version": "0.1.0",
            "command": "train",
            "argv": argv,
            "config": settings,
            "versions": {"python": "3.11.7", "torch": "2.9.0", "trl": "0.25.1"},
            "started": "2026-01-05T10:00:00+00:00",
        },
    )
    _training(run, rng, updates, per_update, rewrite)
    if not finished:
        return path
    evaluator, dev = NoisyAnswers(seed), examples(200, "dev")
    candidates = [Candidate(INITIAL, "initial"), Candidate(rewrite, "greedy")]
    candidates += [
        Candidate(f"{draft} {'Be brief. ' * k}".strip(), "sample", 1 + k) for draft in DRAFTS for k in range(3)
    ]
    selection = select(candidates, evaluator.score, dev, complete=not test_rows, seed=seed)
    run.append(run.rewrites, selection.rows)
    chosen = selection.rewrite
    result = {
        "instruction": INITIAL,
        "rewrite": chosen,
        "dev": {
            "n": 200,
            "scores": {"initial": selection.mean(0), "rewrite": selection.mean(selection.chosen)},
        },
        "selection": selection.to_json(),
        "cost": {
            "task_model": {"calls": 310, "prompts": 24_310, "seconds": 611.2},
            "seconds": {"train": 803.4, "search": 61.0, "test": 33.7},
        },
        "rewriter": "SmolLM2-135M-Instruct",
        "task_model": "scripted:noisy",
        "decoding": "likelihood",
        "metric": "exact_match",
    }
    if test_rows:
        instructions = {"initial": INITIAL, "rewrite": chosen}
        if baselines:
            instructions["untrained greedy"] = DRAFTS[0]
            instructions["untrained best of 10"] = DRAFTS[3]
            instructions["few-shot (4)"] = "\n\n".join([INITIAL, *(f"{row.input}\n{row.output}" for row in dev[:4])])
        found = evaluate(evaluator, instructions, examples(test_rows, "test"), primary="rewrite", seed=seed)
        run.append(run.items, found.items())
        result |= {"test": found.to_json(), "verdict": found.verdict("rewrite")}
    else:
        corrected = corrected_estimate(selection, seed=seed)
        result["dev"]["corrected"] = corrected.to_json()
        result["verdict"] = corrected.verdict()
    run.write_json(run.result, result)
    return path


def _training(run: RunFolder, rng: np.random.Generator, updates: int, per_update: int, rewrite: str) -> None:
    texts = [INITIAL, *DRAFTS, rewrite]
    metrics, rollouts, evals = [], [], []
    for step in range(1, updates + 1):
        progress = 1 - np.exp(-3 * step / updates)
        reward = 0.55 + 0.25 * progress + rng.normal(0, 0.02)
        row = {
            "step": step,
            "reward/mean": reward,
            "reward/std": 0.12 - 0.06 * progress,
            "kl/mean": 4 * progress + abs(rng.normal(0, 0.2)),
            "entropy/mean": 2.4 - 1.3 * progress + rng.normal(0, 0.05),
            "time/rollout": 2.1 + rng.random(),
            "time/score": 2.6 + rng.random(),
            "time/update": 1.2 + rng.random(),
            "calls/task_model": 128,
        }
        if step % max(1, updates // 12) == 0:
            best = texts[min(5, int(progress * 6.2))]
            row["dev/score"] = 0.56 + 0.24 * progress + rng.normal(0, 0.01)
            evals.append({"event": "dev_eval", "step": step, "rewrite": best, "score": row["dev/score"]})
        metrics.append(row)
        for draw in range(per_update):
            text = texts[min(5, int(rng.random() * (1 + 5 * progress)))]
            guards = {"length": -0.1} if rng.random() < 0.02 else {}
            rollouts.append(
                {
                    "step": step,
                    "instruction": INITIAL,
                    "completion": f"New instruction: {text} ({draw})",
                    "rewrite": f"{text} ({draw})",
                    "reward": reward + rng.normal(0, 0.1),
                    "parts": {"task": reward, "kl": -0.02},
                    "score": reward,
                    "guards": guards,
                }
            )
    run.append(run.metrics, metrics)
    run.append(run.rollouts, rollouts)
    run.append(run.rewrites, evals)


def two_instructions(path):
    """Makes the run one of two instructions, which have the same answers."""
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    other = {**result, "instruction": "Sort <b>the</b> mail.", "rewrite": "Sort all mail."}
    tasks = {"verdict": "Of 2 instructions 1 gained significantly.", "tasks": [result, other]}
    (path / "result.json").write_text(json.dumps(result | tasks), encoding="utf-8")
    items = (path / "items.jsonl").read_text(encoding="utf-8")
    (path / "items.jsonl").write_text(items + items, encoding="utf-8")
