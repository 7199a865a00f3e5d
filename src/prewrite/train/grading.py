"""What the rewrites of an update earn: those of one instruction on the same examples, each text once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from prewrite.data import PRewriteDataset
from prewrite.errors import TrainingError
from prewrite.scoring.rewards import Graded, TaskReward
from prewrite.text import shown
from prewrite.train.draws import draw_examples
from prewrite.types import RewriteExample


class Grader:
    """Grades the rewrites of an update.

    Args:
        reward: grades the rewrites of one instruction on given examples.
        train_rows: each instruction's rows, from which every update draws its examples.
        count: examples per instruction and update.
        seed: of the draws.
    """

    def __init__(self, reward: TaskReward, train_rows: Mapping[str, PRewriteDataset], *, count: int, seed: int):
        self.reward = reward
        self.train_rows = train_rows
        self.count = count
        self.seed = seed

    def __call__(
        self, rewrites: Sequence[str], instructions: Sequence[str], step: int, *, others: bool = False
    ) -> list[Graded]:
        """One `Graded` per rewrite, in order; `others`: on the update's other examples, see `examples`."""
        graded: dict[tuple[str, str], Graded] = {}
        rows = list(zip(instructions, rewrites, strict=True))
        for instruction in dict.fromkeys(instructions):
            texts = list(dict.fromkeys(rewrite for name, rewrite in rows if name == instruction))
            examples = self.examples(instruction, step, others=others)
            results = self.reward(texts, instruction, examples, step=step, refused_too=False)
            for text, result in zip(texts, results, strict=True):
                _check_finite(step, text, result)
            graded |= {(instruction, text): result for text, result in zip(texts, results, strict=True)}
        return [graded[row] for row in rows]

    def examples(self, instruction: str, step: int, *, others: bool = False) -> list[RewriteExample]:
        """The examples of an update, the same on every process; `others`: as many that are not among them."""
        rows = self.train_rows[instruction]
        return draw_examples(rows, self.count, seed=self.seed, step=step, instruction=instruction, others=others)


def _check_finite(step: int, rewrite: str, graded: Graded) -> None:
    """Raise `TrainingError` that names the part of a reward that is not finite, which no policy can learn from."""
    for name, value in (*graded.reward.parts.items(), ("total", graded.reward.total)):
        if not math.isfinite(value):
            raise TrainingError(
                f"update {step}: the reward of the rewrite {shown(rewrite)} is {value} in its part {name!r}; correct "
                "what gives that part: the task model, the judge of fidelity, or the reward model"
            )
