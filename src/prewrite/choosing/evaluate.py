"""Several prompts on one data set, item by item: what each scores, and what it gains over the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.evaluation import Evaluation, InstructionResult, LabelResult, LeftOutRow
from prewrite.choosing.labels import Reliability, batch_calibrate, label_probabilities, reliability
from prewrite.choosing.stats import holm, mean_interval, paired_bootstrap
from prewrite.errors import ConfigError, NoAnswerError
from prewrite.scoring.prompt import TaskPrompt
from prewrite.types import Answer, RewriteExample


class Answering(Protocol):
    """The part of the evaluator that is needed here."""

    def answers(self, rewrites: Sequence[str | TaskPrompt], examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """One graded answer per prompt and example, indexed [prompt][example]."""
        ...


def evaluate(
    evaluator: Answering,
    instructions: Mapping[str, str | TaskPrompt],
    examples: Sequence[RewriteExample],
    *,
    baseline: str = "initial",
    primary: str | None = None,
    rows: str = "test",
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Ask for the answers under all `instructions` (name to wording or whole prompt), and compare them item by item.

    Each is compared with `baseline`; `primary`, the one that the evaluation is about, with each of the others too.
    A row that one of them got no answer to is left out for all. `seed` fixes the bootstrap. Raises `ConfigError` if
    there are no examples, or no instruction of either name.
    """
    if not examples:
        raise ConfigError(f"there are no {rows} rows to evaluate on; give at least one")
    for role, name in (("baseline", baseline), ("primary instruction", primary)):
        if name is not None and name not in instructions:
            known = ", ".join(instructions) or "none"
            raise ConfigError(f"{role} {name!r} is not among the instructions: {known}")
    graded = evaluator.answers(list(instructions.values()), examples)
    left_out = [at for at in range(len(examples)) if any(answers[at].no_answer for answers in graded)]
    if len(left_out) == len(examples):
        raise NoAnswerError(f"none of the {len(examples)} {rows} rows got an answer: {graded[0][0].no_answer}")
    missing = tuple(LeftOutRow(examples[at].input, examples[at].place, graded[0][at].no_answer) for at in left_out)
    answered = [at for at in range(len(examples)) if at not in set(left_out)]
    examples = [examples[at] for at in answered]
    graded = [[answers[at] for at in answered] for answers in graded]
    results = {
        name: _result(name, prompt, answers, examples, level, seed)
        for (name, prompt), answers in zip(instructions.items(), graded, strict=True)
    }
    others = [name for name in results if name != baseline]
    pairs = [(name, baseline) for name in others]
    if primary is not None and primary != baseline:
        pairs += [(primary, name) for name in others if instructions[name] != instructions[primary]]
    found = {(a, b): paired_bootstrap(results[a].scores, results[b].scores, level=level, seed=seed) for a, b in pairs}
    beside = [(a, b) for a, b in pairs if (a, b) != (primary, baseline) and instructions[a] != instructions[b]]
    for pair, p_value in zip(beside, holm([found[pair].p_value for pair in beside]), strict=True):
        found[pair] = replace(found[pair], p_value=p_value)
    plain = results[baseline].calibrated
    calibrated = {
        name: paired_bootstrap(scores, plain, level=level, seed=seed)
        for name in others
        if (scores := results[name].calibrated) is not None and plain is not None
    }
    return Evaluation(
        rows,
        len(examples),
        level,
        baseline,
        primary,
        results,
        {name: found[name, baseline] for name in others},
        {b: difference for (_, b), difference in found.items() if b != baseline},
        calibrated,
        tuple(examples),
        missing,
    )


def _result(
    name: str,
    prompt: str | TaskPrompt,
    answers: Sequence[Answer],
    examples: Sequence[RewriteExample],
    level: float,
    seed: int,
) -> InstructionResult:
    scores = np.array([answer.score for answer in answers], dtype=np.float64)
    if scores.size != len(examples):
        raise ConfigError(f"instruction {name!r} has {scores.size} answers for {len(examples)} examples")
    return InstructionResult(
        name,
        prompt,
        scores,
        float(scores.mean()),
        mean_interval(scores, level=level, seed=seed),
        _labels(answers, examples),
        _reliability(answers),
        _calibrated(answers, examples),
        tuple(answers),
    )


def _labels(answers: Sequence[Answer], examples: Sequence[RewriteExample]) -> tuple[LabelResult, ...]:
    labels = list(dict.fromkeys(choice for example in examples for choice in example.choices or ()))
    found = []
    for label in labels:
        scores = [answer.score for answer, row in zip(answers, examples, strict=True) if row.targets[0] == label]
        predicted = sum(answer.prediction == label for answer in answers)
        found.append(LabelResult(label, len(scores), sum(scores) / len(scores) if scores else None, predicted))
    return tuple(found)


def _reliability(answers: Sequence[Answer]) -> Reliability | None:
    scored = [(answer.label_logprobs, answer.score) for answer in answers if answer.label_logprobs]
    if not scored:
        return None
    confidence = [float(label_probabilities(logprobs).max()) for logprobs, _ in scored]
    return reliability(confidence, [score >= 1 for _, score in scored])


def _calibrated(answers: Sequence[Answer], examples: Sequence[RewriteExample]) -> NDArray[np.float64] | None:
    choices = examples[0].choices
    if not choices or any(row.choices != choices for row in examples):
        return None
    scored = [answer.label_logprobs for answer in answers if answer.label_logprobs]
    if len(scored) < len(answers):
        return None
    labels = [choices[int(best)] for best in batch_calibrate(scored).argmax(axis=1)]
    return np.array([label in row.targets for label, row in zip(labels, examples, strict=True)], dtype=np.float64)
