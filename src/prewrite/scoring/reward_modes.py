"""The task part of a reward, by `reward_mode`.

All task parts are means over the update's examples, higher is better:

| mode | task part | range |
| --- | --- | --- |
| `auto` | the evaluator's metric: numeric match for math, token F1 for qa, label match for labels | [0, 1] |
| `exact_match`, `token_f1`, `numeric_match`, `label_match`, `bleu` | that metric | [0, 1] |
| `soft`, labels scored | (1 + m) / 2, m the log-probability margin of the right one in nats, clipped to ±1 | [0, 1] |
| `soft`, other rows | (1 + g) / 2, g the gold answer's gain over the instruction, nats a token, ±1 at most | [0, 1] |
| `perplexity` | mean log-probability per token of the gold answer, i.e. minus the log-perplexity | at most 0 |
| `perplexity+f1` | the sum of `perplexity` and token F1 | at most 1 |
| `length` | minus the relative change in words against the instruction, clipped to [-1, 0] | [-1, 0] |

`auto`, `token_f1` (F1), `perplexity` and `perplexity+f1` are those of arXiv 2401.08189v4, appendix D, which leaves
sign and scale of perplexity open; `length` is reported of its first version. `soft` follows StablePrompt (arXiv
2410.07652): with few examples many rewrites tie on accuracy, and the margin still ranks them. Where no labels are
scored it counts nats as well, not probabilities: those of whole answers differ by thousandths, penalties by tenths.
An empty rewrite earns the least of its update in every mode, and nothing is asked of it.

To add a mode: write its function, and add its line to `MODES`. Each metric is a mode already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import CapabilityError
from prewrite.scoring.evaluator import Evaluator, margin
from prewrite.scoring.left_out import mean_of_answered
from prewrite.scoring.metrics import METRICS, get_metric
from prewrite.types import Answer, Decoding, RewriteExample

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RewriteBatch:
    """The rewrites of one instruction in an update, and what the task model says to them, asked when first needed."""

    evaluator: Evaluator
    rewrites: Sequence[str]
    instruction: str
    examples: Sequence[RewriteExample]

    @cached_property
    def answers(self) -> list[list[Answer]]:
        """The graded answers; [rewrite][example]."""
        return self.evaluator.answers(self.rewrites, self.examples)

    @property
    def scores(self) -> Floats:
        """Scores by the evaluator's metric, in [0, 1]; (rewrite, example)."""
        return self._table(lambda answer, example: answer.score)

    @property
    def margins(self) -> Floats:
        """Margins of the right label, in nats; (rewrite, example)."""
        return self._table(margin)

    def regraded(self, metric: str) -> Floats:
        """Scores of the same answers by another metric, in [0, 1]; (rewrite, example)."""
        grade = get_metric(metric)
        return self._table(lambda answer, example: grade(answer.prediction, example.targets))

    def _table(self, number: Callable[[Answer, RewriteExample], float]) -> Floats:
        rows = [[np.nan if answer.no_answer else number(answer, row)
                 for answer, row in zip(answers, self.examples, strict=True)]
                for answers in self.answers]  # fmt: skip
        return np.array(rows, dtype=np.float64).reshape(len(self.rewrites), len(self.examples))


class Grades(NamedTuple):
    """What the task model makes of a batch."""

    task_parts: Floats
    """One per rewrite."""
    scores: Floats
    """By the evaluator's metric, in [0, 1]; (rewrite, example), or (rewrite, 0) where no answers were asked for."""


def metric_mean(batch: RewriteBatch) -> Grades:
    """The mean score by the evaluator's own metric."""
    return Grades(mean_of_answered(batch.scores), batch.scores)


def other_metric_mean(metric: str, batch: RewriteBatch) -> Grades:
    """The mean score by `metric`, whatever grades the choice and the test."""
    return Grades(mean_of_answered(batch.regraded(metric)), batch.scores)


def soft(batch: RewriteBatch) -> Grades:
    """The clipped margin of the right label where labels are scored, else the clipped gain of the gold answer.

    For open answers the gold answer is scored and none is written: one forward pass in place of one for each token.
    """
    if any(batch.evaluator.decoding_of(example) == "likelihood" for example in batch.examples):
        return Grades(mean_of_answered((1 + np.clip(batch.margins, -1, 1)) / 2), batch.scores)
    logprobs = batch.evaluator.target_logprobs([batch.instruction, *batch.rewrites], batch.examples)
    gains = mean_of_answered(np.clip(logprobs[1:] - logprobs[0], -1, 1))
    written = [bool(rewrite.strip()) for rewrite in batch.rewrites]
    return Grades(np.where(written, (1 + gains) / 2, 0.0), np.empty((len(batch.rewrites), 0)))


def perplexity(batch: RewriteBatch) -> Grades:
    """Minus the log-perplexity of the gold answer."""
    logprobs = batch.evaluator.target_logprobs(batch.rewrites, batch.examples)
    return Grades(mean_of_answered(logprobs), batch.scores)


def perplexity_and_f1(batch: RewriteBatch) -> Grades:
    """The sum of `perplexity` and token F1."""
    return Grades(perplexity(batch).task_parts + mean_of_answered(batch.regraded("token_f1")), batch.scores)


def length(batch: RewriteBatch) -> Grades:
    """Minus the relative change in words."""
    return Grades(-np.array([length_difference(text, batch.instruction) for text in batch.rewrites]), batch.scores)


def length_difference(rewrite: str, instruction: str) -> float:
    """|words of rewrite - words of instruction| / words of instruction, clipped to [0, 1]."""
    before, after = len(instruction.split()), len(rewrite.split())
    return min(abs(after - before) / max(before, 1), 1.0)


Question = Literal["answer", "gold"]
"""To answer an input, in the evaluator's way; to score the gold answer as a given text."""


def _an_answer(decoding: Decoding) -> tuple[Question, ...]:
    return ("answer",)


def _both(decoding: Decoding) -> tuple[Question, ...]:
    return ("answer", "gold")


def _an_answer_of_labels(decoding: Decoding) -> tuple[Question, ...]:
    return ("answer",) if decoding == "likelihood" else ("gold",)


class Mode(NamedTuple):
    """A reward mode."""

    grade: Callable[[RewriteBatch], Grades]
    asks: Callable[[Decoding], tuple[Question, ...]] = _an_answer
    """What the task model is asked for each rewrite and example, by how answers are read."""
    compares: bool = False
    """Whether a gold answer is scored under the initial instruction too, once for all rewrites."""

    def most_calls(self, decoding: Decoding, rewrites: int, examples: int, *, groups: int = 1) -> int:
        """The most task-model calls that grading `rewrites` takes, which are of `groups` instructions."""
        asks = self.asks(decoding)
        compared = groups if self.compares and "gold" in asks else 0
        return (len(asks) * rewrites + compared) * examples


MODES: dict[str, Mode] = {
    "auto": Mode(metric_mean),
    **{name: Mode(partial(other_metric_mean, name)) for name in METRICS},
    "soft": Mode(soft, _an_answer_of_labels, compares=True),
    "perplexity": Mode(perplexity, _both),
    "perplexity+f1": Mode(perplexity_and_f1, _both),
    "length": Mode(length),
}


def check_capabilities(mode: str, evaluator: Evaluator, examples: Sequence[RewriteExample]) -> None:
    """Raise `CapabilityError` where the task model cannot do what `mode` asks for these examples; asks nothing."""
    can = evaluator.task_model.capabilities
    for decoding in {evaluator.decoding_of(example) for example in examples}:
        if "gold" in MODES[mode].asks(decoding) and "target_logprobs" not in can:
            raise CapabilityError(
                f"reward_mode {mode!r} scores gold answers as given texts, which {evaluator.task_model.name} cannot "
                f"do (it can: {', '.join(sorted(can))}); choose reward_mode auto, or a task model run by hf or vllm"
            )
