"""What a reward model learns from and is measured on: the rewrites that a run's task model has graded.

Grades are comparable within a group only, the rewrites of one instruction in one update: those were graded on the same
examples. So pairs, correlations and the slope of the scale are all taken within groups.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.stats import rank_correlation
from prewrite.errors import RunFolderError
from prewrite.run_folder import RunFolder, check_shape

HELD_OUT = 0.2  # of each run's updates, the last ones: a reward model is used on a policy that has moved on
MIN_GAP = 0.5  # of the standard deviation within a group; nearer grades are mostly luck of the examples

Outputs = Sequence[NDArray[np.float64]]
"""One array per group: what a reward model says of its rewrites, in order."""


class Group(NamedTuple):
    """Rewrites of one instruction in one update of one run."""

    run: str
    step: int
    instruction: str
    grades: dict[str, float]
    """Task part of the reward by rewrite."""


class Preference(NamedTuple):
    """Two rewrites of an instruction in the order that their grades put them in."""

    instruction: str
    better: str
    worse: str


def read_groups(run: RunFolder) -> list[Group]:
    """The groups that the run's task model graded. Raises `RunFolderError` where there are none."""
    found: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for step, instruction, rewrite, grade in _graded_rows(run.rollouts):
        found[step, instruction][rewrite] = grade
    if not found:
        raise RunFolderError(f"{run.path} has no scored rollouts; give the folder of a run that trained")
    return [Group(str(run.path), step, name, grades) for (step, name), grades in sorted(found.items())]


def _graded_rows(path: Path) -> Iterator[tuple[int, str, str, float]]:
    for where, row in RunFolder.read_placed_rows(path):
        if "estimate" in row or "real" in row:
            check_shape(row, {"real": bool}, where)
            if not row["real"]:  # a reward model graded it, or nobody since guards refused it
                continue
        check_shape(row, _GRADED, where)
        yield row["step"], row["instruction"], row["rewrite"], row["parts"]["task"]


_GRADED = {"step": int, "instruction": str, "rewrite": str, "parts": {"task": float}}
"""Shape of a rollout that the task model graded."""


def split_updates(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Groups of the earlier updates, and those of each run's last `HELD_OUT`."""
    steps: dict[str, set[int]] = defaultdict(set)
    for group in groups:
        steps[group.run].add(group.step)
    first = {run: sorted(found)[-math.ceil(HELD_OUT * len(found))] for run, found in steps.items()}
    early = [group for group in groups if group.step < first[group.run]]
    return early, [group for group in groups if group.step >= first[group.run]]


def smallest_gap(groups: Sequence[Group]) -> float:
    """Grades nearer than this make no pair."""
    return MIN_GAP * float(np.std(_within(_grades(groups)))) if groups else 0.0


def preferences(group: Group, gap: float) -> list[Preference]:
    """All pairs of a group whose grades differ, by `gap` at least."""
    ranked = sorted(group.grades, key=lambda rewrite: -group.grades[rewrite])
    return [
        Preference(group.instruction, better, worse)
        for better, worse in combinations(ranked, 2)
        if group.grades[better] - group.grades[worse] >= max(gap, 1e-9)
    ]


def fit_scale(groups: Sequence[Group], outputs: Outputs) -> tuple[float, dict[str, float], float]:
    """(slope, intercept by instruction, intercept of other instructions) of grade over output, by least squares.

    The slope comes from deviations within groups: what the examples of an update add to all its grades tells nothing.
    """
    grades = _grades(groups)
    x, y = _within(outputs), _within(grades)
    slope = float(x @ y / (x @ x)) if x.any() else 0.0
    residuals: dict[str, list[float]] = defaultdict(list)
    for group, output, real in zip(groups, outputs, grades, strict=True):
        residuals[group.instruction] += (real - slope * output).tolist()
    intercepts = {name: float(np.mean(values)) for name, values in residuals.items()}
    return slope, intercepts, float(np.mean([value for values in residuals.values() for value in values]))


def pairwise_accuracy(groups: Sequence[Group], outputs: Outputs, gap: float) -> float:
    """Share of the pairs whose grades differ by `gap` that `outputs` put in the same order; a tie is half right."""
    right: list[float] = []
    for group, output in zip(groups, outputs, strict=True):
        value = dict(zip(group.grades, output, strict=True))
        leads = [value[pair.better] - value[pair.worse] for pair in preferences(group, gap)]
        right += [0.5 if lead == 0 else float(lead > 0) for lead in leads]
    return float(np.mean(right))


def figures(
    groups: Sequence[Group], estimates: Outputs, *, gap: float, known: AbstractSet[tuple[str, str]]
) -> dict[str, float]:
    """How far estimates may be trusted, on `groups`.

    `pearson` and `spearman`: correlations within groups. `error`: mean absolute difference to the grades, with group
    means taken out of both; `error_of_mean`: what guessing those means has. `new`: share of rewrites not in `known`.
    """
    grades = _grades(groups)
    x, y = _within(estimates), _within(grades)
    ranks = [r for e, g in zip(estimates, grades, strict=True) if (r := rank_correlation(e, g)) is not None]
    texts = [(group.instruction, rewrite) for group in groups for rewrite in group.grades]
    return {
        "updates": len({(group.run, group.step) for group in groups}),
        "rewrites": len(texts),
        "new": float(np.mean([text not in known for text in texts])),
        "pairs": sum(len(preferences(group, gap)) for group in groups),
        "pairwise_accuracy": pairwise_accuracy(groups, estimates, gap),
        "pearson": float(x @ y / math.sqrt((x @ x) * (y @ y))) if x.any() and y.any() else 0.0,
        "spearman": float(np.mean(ranks)) if ranks else 0.0,
        "error": float(np.mean(np.abs(x - y))),
        "error_of_mean": float(np.mean(np.abs(y))),
    }


def _grades(groups: Sequence[Group]) -> list[NDArray[np.float64]]:
    return [np.array(list(group.grades.values()), dtype=np.float64) for group in groups]


def _within(values: Outputs) -> NDArray[np.float64]:
    """Deviations from each group's mean, of all groups in a row."""
    return np.concatenate([group - group.mean() for group in values])
