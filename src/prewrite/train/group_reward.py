"""The reward of a group, the rewrites of one instruction in one update, and what happens where all of them tie.

Where they tie every advantage is 0: the task-model calls were spent and nothing is learned. Such a group is graded
once more, on other examples, and each rewrite earns the mean of both grades.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from accelerate.utils import gather_object

from prewrite.scoring.rewards import Graded
from prewrite.train.grading import Grader
from prewrite.types import Reward

TIE = 1e-6  # rewards closer than this tie: TRL holds them in fp32


class Scored(NamedTuple):
    """What the rewrites of one step earned, on this process."""

    graded: list[Graded]
    tied: int
    """Groups, over all processes, whose rewards tie in the end."""
    resampled: int
    """Groups that were graded a second time."""


class GroupReward:
    """Grades the rewrites of a step, and those of tied groups once more on other examples.

    Args:
        grade: grades them once.
        resample_ties: whether a tied group of different rewrites is graded again.
    """

    def __init__(self, grade: Grader, *, resample_ties: bool = True):
        self.grade = grade
        self.resample_ties = resample_ties

    def __call__(self, rewrites: Sequence[str], instructions: Sequence[str], step: int) -> Scored:
        """Grade one rewrite per row. Every process makes the same choices, since a group may span several."""
        graded = self.grade(rewrites, instructions, step)
        real = any(result.real for result in graded)  # other examples would not change a reward model's estimates
        resample = self.resample_ties and real
        again = self._resampled(tied_groups(instructions, rewrites, graded), step) if resample else []
        if again:
            rows = [row for row, name in enumerate(instructions) if name in again]
            texts, names = [rewrites[row] for row in rows], [instructions[row] for row in rows]
            for row, result in zip(rows, self.grade(texts, names, step, others=True), strict=True):
                graded[row] = averaged(graded[row], result)
        return Scored(graded, len(tied_groups(instructions, rewrites, graded)), len(again))

    def _resampled(self, tied: Mapping[str, int], step: int) -> list[str]:
        """Of the tied groups, those that other examples may tell apart."""
        return [name for name, texts in tied.items() if texts > 1 and self.grade.examples(name, step, others=True)]


def tied_groups(instructions: Sequence[str], rewrites: Sequence[str], graded: Sequence[Graded]) -> dict[str, int]:
    """Instructions whose rewrites all earned the same, on any process, and how many different rewrites those are."""
    rows = zip(instructions, rewrites, graded, strict=True)
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for name, rewrite, total in gather_object([(name, text, result.reward.total) for name, text, result in rows]):
        groups[name][rewrite] = total
    return {name: len(group) for name, group in groups.items() if max(group.values()) - min(group.values()) < TIE}


def averaged(first: Graded, second: Graded) -> Graded:
    """One rewrite's grades on two draws of examples of equal weight."""
    names = first.reward.parts.keys() | second.reward.parts.keys()
    parts = {n: (first.reward.parts.get(n, 0.0) + second.reward.parts.get(n, 0.0)) / 2 for n in sorted(names)}
    reward = Reward((first.reward.total + second.reward.total) / 2, parts)
    return replace(first, reward=reward, scores=first.scores + second.scores)
