"""Dev-set stopping: score greedy rewrites on dev rows, keep the best policy, end training when it stops improving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from prewrite.data import PRewriteDataset
from prewrite.errors import NoAnswerError
from prewrite.scoring.rewards import TaskReward
from prewrite.train import processes
from prewrite.types import RewriteExample


class DevResult(NamedTuple):
    """One evaluation."""

    score: float
    """Mean score in [0, 1] over all dev rows used."""
    is_best: bool
    rows: list[dict[str, Any]]
    """For rewrites.jsonl."""


class DevStopping:
    """Scores rewrites on a fixed sample of dev rows; the criterion is the mean score plus the penalties of the guards,
    which count as in the reward.

    The penalties count, so that the policy kept is the best readable one. Scores of a rewrite seen before are reused:
    a policy whose greedy rewrite has not changed costs no task-model call.
    """

    def __init__(
        self, dataset: PRewriteDataset | None, reward: TaskReward, *, every: int, patience: int, limit: int, seed: int
    ):
        self.reward = reward
        self.every = every
        self.patience = patience
        self.rows: dict[str, list[RewriteExample]] = {}
        if dataset is not None:
            chosen = np.random.default_rng(seed).permutation(len(dataset))[:limit]
            for example in (dataset[int(index)] for index in np.sort(chosen)):
                self.rows.setdefault(example.instruction, []).append(example)
        self.best = -np.inf
        self.best_step = 0
        self.best_state: dict[str, Any] | None = None
        self.best_rewrites: dict[str, str] = {}  # by instruction
        self.since_best = 0
        self._scores: dict[tuple[str, str], list[float]] = {}

    def due(self, step: int, *, last: bool = False) -> bool:
        """Whether dev is scored after this update: every `every` updates, and after the last one."""
        return bool(self.rows) and (last or step % self.every == 0)

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return 0 < self.patience <= self.since_best

    def state(self) -> dict[str, Any]:
        """JSON types, for a checkpoint; `best_state`, which are tensors, goes beside it."""
        scores = [
            {"instruction": instruction, "rewrite": rewrite, "scores": [None if np.isnan(s) else s for s in found]}
            for (instruction, rewrite), found in self._scores.items()
        ]
        return {
            "best": self.best if self.best_state is not None else None,
            "best_step": self.best_step,
            "since_best": self.since_best,
            "best_rewrites": self.best_rewrites,
            "scores": scores,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` told."""
        self.best = -np.inf if state["best"] is None else state["best"]
        self.best_step, self.since_best = state["best_step"], state["since_best"]
        self.best_rewrites = state["best_rewrites"]
        self._scores = {
            (told["instruction"], told["rewrite"]): [np.nan if s is None else s for s in told["scores"]]
            for told in state["scores"]
        }

    def evaluate(self, step: int, write: Callable[[str], str]) -> DevResult:
        """Let `write` write one rewrite per instruction, score it, and update the stopping state.

        A collective call: the main process writes and scores, and all of them come to the same decision.
        """
        graded, best = processes.from_main(lambda: self._graded(write))
        rows = [{"event": "dev_eval", "step": step, **row} for row, _ in graded]
        scores = [score for _, scores in graded for score in scores]
        penalised = [score + self.reward.penalty_sum(row["guards"]) for row, scores in graded for score in scores]
        criterion = float(np.mean(penalised))
        is_best = criterion > (self.best if best is None else best)
        if is_best:
            self.best, self.best_step, self.since_best = criterion, step, 0
            self.best_rewrites = {row["instruction"]: row["rewrite"] for row, _ in graded}
        else:
            self.since_best += 1
        return DevResult(float(np.mean(scores)), is_best, rows)

    def _graded(self, write: Callable[[str], str]) -> tuple[list[tuple[dict[str, Any], list[float]]], float | None]:
        """`_grade` of every instruction; and the best so far on the same rows, where some were left out since then."""
        left_out = self.reward.evaluator.left_out.reasons
        before = len(left_out)
        graded = [self._grade(name, write(name)) for name in self.rows]
        if len(left_out) > before:  # while one rewrite was scored: the others must do without the row too
            graded = [self._grade(row["instruction"], row["rewrite"]) for row, _ in graded]
        if not left_out or not self.best_rewrites:
            return graded, None
        old = [self._grade(name, rewrite) for name, rewrite in self.best_rewrites.items()]
        penalised = [score + self.reward.penalty_sum(row["guards"]) for row, scores in old for score in scores]
        return graded, float(np.mean(penalised))

    def _grade(self, instruction: str, rewrite: str) -> tuple[dict[str, Any], list[float]]:
        """A rewrite's line of rewrites.jsonl, and its score on each dev row that is not left out."""
        examples = self.rows[instruction]
        if (instruction, rewrite) not in self._scores:
            self._scores[instruction, rewrite] = self.reward.evaluator.score([rewrite], examples)[0].tolist()
        left_out = self.reward.evaluator.left_out.reasons
        found = zip(examples, self._scores[instruction, rewrite], strict=True)
        scores = [score for example, score in found if example not in left_out]
        if not scores:
            raise NoAnswerError(f"none of the dev rows of {instruction!r} got an answer; see the task model")
        penalties = self.reward.penalties(rewrite, instruction, examples)
        row = {"instruction": instruction, "rewrite": rewrite, "score": float(np.mean(scores)), "n": len(scores)}
        return row | {"guards": penalties}, scores
