"""A run folder as the report needs it: read in one pass, sampled where it is long, checked where it may be broken."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from prewrite.errors import RunFolderError
from prewrite.report.shapes import (
    CANDIDATE,
    CONFIG,
    ESTIMATED,
    EVAL,
    EVENTS,
    ITEM,
    METRICS,
    RESULT,
    ROLLOUT,
    check_names,
    split_parts,
)
from prewrite.run_folder import RunFolder, check_shape
from prewrite.scoring.prompt import TaskPrompt
from prewrite.text import Maybe

MAX_POINTS = 240
"""Points per curve; longer runs are averaged over neighbouring updates, since a screen shows no more."""
MAX_DOTS = 400
FARTHEST = 5


@dataclass(slots=True)
class Bucket:
    """Neighbouring updates that share one point of the curves, and what their rollouts held."""

    first: int
    last: int
    count: int = 0
    distinct: set[int] = field(default_factory=set)
    best: str = ""
    best_reward: float = -math.inf
    other: str = ""
    """One rollout drawn at random."""
    other_reward: float = 0.0


@dataclass(slots=True)
class GuardDigest:
    """How often a guard fired in the rollouts, and an example."""

    name: str
    count: int = 0
    penalty: float = 0.0
    """Sum of the penalties, at most 0."""
    example: str = ""


@dataclass(slots=True)
class EstimateDigest:
    """A reward model's estimates beside the task model's grades of the same rollouts."""

    both: int = 0
    """Rollouts that have both."""
    alone: int = 0
    """Rollouts that only the reward model graded."""
    points: list[tuple[float, float]] = field(default_factory=list)
    """(estimate, grade) of up to `MAX_DOTS` rollouts, drawn at random."""
    farthest: list[tuple[float, float, int, str]] = field(default_factory=list)
    """(estimate, grade, step, rewrite) of the `FARTHEST` rewrites most misjudged, the worst first."""

    def add(self, estimate: float, grade: float, step: int, rewrite: str, rng: random.Random) -> None:
        """Count one rollout that has both."""
        self.both += 1
        if len(self.points) < MAX_DOTS:
            self.points.append((estimate, grade))
        elif (place := rng.randrange(self.both)) < MAX_DOTS:
            self.points[place] = (estimate, grade)
        by_text = {text: (e, g, at, text) for e, g, at, text in self.farthest}
        known = by_text.get(rewrite)
        if known is None or abs(estimate - grade) > abs(known[0] - known[1]):
            by_text[rewrite] = (estimate, grade, step, rewrite)
        self.farthest = sorted(by_text.values(), key=lambda row: -abs(row[0] - row[1]))[:FARTHEST]


@dataclass(slots=True)
class RunData:
    """What the files of one run say."""

    folder: RunFolder
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    """A row of each update; one of update 0, with the dev score before training, where dev was scored then."""
    buckets: list[Bucket]
    guards: list[GuardDigest]
    estimates: EstimateDigest
    rollouts: int
    rewrites: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    """Every prompt that a search compared."""
    evals: list[dict[str, Any]]
    """What the prompt does with other task models, as `prewrite eval --run` found."""
    items: list[dict[str, Any]]
    splits: list[dict[str, Any]]
    """Of each data set, where the rows of train, dev and test came from, and how many they are."""
    result: dict[str, Any] | None
    """None while the run goes on, or where it was stopped."""

    def items_by_instruction(self) -> list[list[dict[str, Any]]]:
        """The test rows of each instruction, in the order of the run; one empty list where there are none."""
        begins = [place for place, item in enumerate(self.items) if place and item.get("index") == 0]
        return [self.items[start:end] for start, end in pairwise([0, *begins, len(self.items)])]

    @property
    def updates(self) -> int:
        """The last update that is logged, 0 for none."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.path.resolve().name

    def events(self, event: str) -> list[dict[str, Any]]:
        """The rows of `rewrites.jsonl` with this event, in order."""
        return [row for row in self.rewrites if row["event"] == event]


def read_run(path: str | Path, *, seed: int = 0) -> RunData:
    """Read a run folder. Files that the run has not written yet are empty; a broken one raises `RunFolderError`."""
    folder = RunFolder.open(path)
    config = RunFolder.read_json(folder.config, CONFIG)
    metrics = [_metrics(row, where) for where, row in RunFolder.read_placed_rows(folder.metrics)]
    buckets = _buckets([row["step"] for row in metrics if row["step"] > 0])
    guards, estimates, rollouts = _read_rollouts(folder.rollouts, buckets, random.Random(seed))
    rewrites = []
    for where, row in RunFolder.read_placed_rows(folder.rewrites):
        check_shape(row, {"event": str}, where)
        check_shape(row, EVENTS.get(row["event"], {}), where)
        rewrites.append(row)
    items, candidates = _rows(folder.items, ITEM), _rows(folder.candidates, CANDIDATE)
    evals = _rows(folder.evals, EVAL)
    for row in candidates:
        TaskPrompt.from_json(row["prompt"], where=str(folder.candidates))
    result = None
    if folder.result.exists():
        result = RunFolder.read_json(folder.result, RESULT)
        try:
            check_names(result)
        except ValueError as error:
            raise RunFolderError(f"{folder.result}: {error}; the file was changed") from None
    splits: list[dict[str, Any]] = []
    if folder.splits.exists():
        splits = split_parts(RunFolder.read_json(folder.splits), str(folder.splits))
    return RunData(
        folder,
        config,
        metrics,
        buckets,
        guards,
        estimates,
        rollouts,
        rewrites,
        candidates,
        evals,
        items,
        splits,
        result,
    )


def _metrics(row: dict[str, Any], where: str) -> dict[str, Any]:
    check_shape(row, {"step": int, **dict.fromkeys(row, Maybe(float)), **METRICS}, where)
    return row


def _rows(path: Path, shape: Any) -> list[dict[str, Any]]:
    """The rows of a JSONL file, all of one shape."""
    rows = []
    for where, row in RunFolder.read_placed_rows(path):
        check_shape(row, shape, where)
        rows.append(row)
    return rows


def _buckets(steps: Sequence[int]) -> list[Bucket]:
    """At most `MAX_POINTS` runs of neighbouring updates of equal length."""
    distinct = sorted(set(steps))
    size = max(1, math.ceil(len(distinct) / MAX_POINTS))
    groups = [distinct[start : start + size] for start in range(0, len(distinct), size)]
    return [Bucket(group[0], group[-1]) for group in groups]


def _read_rollouts(
    path: Path, buckets: list[Bucket], rng: random.Random
) -> tuple[list[GuardDigest], EstimateDigest, int]:
    starts = [bucket.first for bucket in buckets]
    guards: dict[str, GuardDigest] = {}
    estimates = EstimateDigest()
    total = 0
    for where, row in RunFolder.read_placed_rows(path):
        check_shape(row, ROLLOUT, where)
        total += 1
        for name, penalty in (row.get("guards") or {}).items():
            if penalty:
                guard = guards.setdefault(name, GuardDigest(name))
                guard.count += 1
                guard.penalty += penalty
                if rng.random() * guard.count < 1:
                    guard.example = row["rewrite"]
        if "estimate" in row:
            check_shape(row, ESTIMATED, where)
            estimate, grade = row["estimate"], row["parts"]["task"]
            if not row["real"]:
                estimates.alone += 1
            else:
                estimates.add(estimate, grade, row["step"], row["rewrite"], rng)
        place = bisect_right(starts, row["step"]) - 1
        if place < 0:
            continue
        bucket, reward, rewrite = buckets[place], float(row["reward"]), row["rewrite"]
        bucket.count += 1
        bucket.distinct.add(hash(rewrite))
        if reward > bucket.best_reward:
            bucket.best, bucket.best_reward = rewrite, reward
        if rng.random() * bucket.count < 1:
            bucket.other, bucket.other_reward = rewrite, reward
    return sorted(guards.values(), key=lambda guard: -guard.count), estimates, total
