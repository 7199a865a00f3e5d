"""Several instructions on one data set, item by item: what each scores, and what it gains over the others."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.stats import (
    Interval,
    PairedDifference,
    Reliability,
    batch_calibrate,
    holm,
    label_probabilities,
    mean_interval,
    paired_bootstrap,
    reliability,
)
from prewrite.errors import ConfigError
from prewrite.types import Answer, RewriteExample


class Answering(Protocol):
    """The part of the evaluator that is needed here."""

    def answers(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """One graded answer per rewrite and example, indexed [rewrite][example]."""
        ...


@dataclass(frozen=True, slots=True)
class LabelResult:
    """How one label fared under one instruction."""

    label: str
    n: int
    """Items whose gold answer is this label."""
    accuracy: float | None
    """Mean score on those items; None where there are none."""
    predicted: int
    """Items for which the task model gave this label, right or wrong."""


@dataclass(frozen=True, slots=True)
class InstructionResult:
    """One instruction on the data set."""

    name: str
    instruction: str
    scores: NDArray[np.float64]
    """Per item, in [0, 1]."""
    mean: float
    interval: Interval
    labels: tuple[LabelResult, ...]
    """Empty where the rows have no choices."""
    reliability: Reliability | None
    """Of the label probabilities; None where the backend scored no labels."""
    calibrated: NDArray[np.float64] | None
    """Per item, 1 where the label is right after batch calibration (`stats.batch_calibrate`), else 0; None where the
    backend scored no labels, or the rows differ in theirs."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found. Differences are paired by item.

    The comparison of the primary instruction with the baseline is the one that was asked for; its p-value stands as it
    is. All the others, shown beside it, are Holm-corrected together. A text is never compared with itself there.
    """

    rows: str
    """Which rows these are, in a word: test, dev."""
    n: int
    level: float
    baseline: str
    primary: str | None
    """The instruction that the evaluation is about; None where all are asked for alike."""
    results: Mapping[str, InstructionResult]
    differences: Mapping[str, PairedDifference]
    """Instruction minus baseline, by name, for every instruction but the baseline."""
    gains_over: Mapping[str, PairedDifference]
    """Primary instruction minus each of the others but the baseline, by their names; empty without a primary one."""
    calibrated: Mapping[str, PairedDifference]
    """As `differences`, after batch calibration under both instructions; where that can be told."""
    examples: tuple[RewriteExample, ...]

    def verdict(self, name: str | None = None) -> str:
        """One sentence on `name` against the baseline; by default on the primary instruction, or else the first."""
        name = name or self.primary or next(iter(self.differences), self.baseline)
        if name != self.baseline and name not in self.differences:
            raise ConfigError(f"instruction {name!r} was not evaluated; known: {', '.join(self.results)}")
        if name == self.baseline or self.results[name].instruction == self.results[self.baseline].instruction:
            return f"No significant gain: the {self.baseline} instruction was kept."
        found = self.differences[name]
        measured = (
            f"{points(found.mean)} points on {self.n} {self.rows} rows, "
            f"{self.level:.0%} interval {points(found.low)} to {points(found.high)}"
        )
        if not found.significant:
            return f"No significant gain: {measured}."
        if found.mean < 0:
            return f"No significant gain but a loss: {measured}."
        return f"{measured}."

    def to_json(self) -> dict[str, Any]:
        """Everything but the items; JSON types only. Scores and differences are shares in [0, 1] and [-1, 1]."""
        return {
            "rows": self.rows,
            "n": self.n,
            "level": self.level,
            "baseline": self.baseline,
            "primary": self.primary,
            "instructions": {
                name: {
                    "instruction": result.instruction,
                    "mean": result.mean,
                    "interval": {
                        "low": result.interval.low,
                        "high": result.interval.high,
                        "method": result.interval.method,
                    },
                    "labels": [asdict(label) for label in result.labels],
                    "reliability": None if result.reliability is None else asdict(result.reliability),
                    "calibrated": None if result.calibrated is None else float(result.calibrated.mean()),
                }
                for name, result in self.results.items()
            },
            "differences": _differences_json(self.differences),
            "gains_over": _differences_json(self.gains_over),
            "calibrated": _differences_json(self.calibrated),
        }

    def items(self) -> list[dict[str, Any]]:
        """One row per example for `items.jsonl`: the input, the gold answers, and each instruction's answer."""
        return [
            {
                "index": index,
                "input": example.input,
                "gold": list(example.targets),
                "answers": {
                    name: {
                        "prompt": result.answers[index].prompt,
                        "output": result.answers[index].output,
                        "prediction": result.answers[index].prediction,
                        "score": result.answers[index].score,
                    }
                    for name, result in self.results.items()
                },
            }
            for index, example in enumerate(self.examples)
        ]


def evaluate(
    evaluator: Answering,
    instructions: Mapping[str, str],
    examples: Sequence[RewriteExample],
    *,
    baseline: str = "initial",
    primary: str | None = None,
    rows: str = "test",
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Ask for the answers under all `instructions` (name to text) in one call, and compare them item by item.

    Each is compared with `baseline`; `primary`, the one that the evaluation is about, with each of the others too.
    `seed` fixes the bootstrap. Raises `ConfigError` if there are no examples, or no instruction of either name.
    """
    if not examples:
        raise ConfigError(f"there are no {rows} rows to evaluate on; give at least one")
    for role, name in (("baseline", baseline), ("primary instruction", primary)):
        if name is not None and name not in instructions:
            known = ", ".join(instructions) or "none"
            raise ConfigError(f"{role} {name!r} is not among the instructions: {known}")
    graded = evaluator.answers(list(instructions.values()), examples)
    results = {
        name: _result(name, text, answers, examples, level, seed)
        for (name, text), answers in zip(instructions.items(), graded, strict=True)
    }
    others = [name for name in results if name != baseline]
    pairs = [(name, baseline) for name in others]
    if primary is not None and primary != baseline:
        pairs += [(primary, name) for name in others if name != primary]
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
    )


def calibrated_note(test: Mapping[str, Any], name: str) -> str | None:
    """How much of a gain remains after batch calibration, in a sentence; None where that cannot be told.

    `test` is what `Evaluation.to_json` gave. Calibration needs no rewrite, so what it brings to the baseline alone is
    no merit of the rewrite.
    """
    found = test["calibrated"].get(name)
    first, second = (test["instructions"][who] for who in (test["baseline"], name))
    if found is None or first["instruction"] == second["instruction"]:
        return None
    before, after = first["calibrated"], second["calibrated"]
    return (
        f"After batch calibration of the labels, which needs no rewrite: {before:.3f} under the {test['baseline']} "
        f"instruction, {after:.3f} under this one; {points(found['mean'])} points, {test['level']:.0%} interval "
        f"{points(found['low'])} to {points(found['high'])}."
    )


def few_shot_instruction(instruction: str, examples: Sequence[RewriteExample], shots: int, *, seed: int = 0) -> str:
    """`instruction` followed by `shots` random training rows: the baseline that an optimised instruction must beat.

    Labels take turns, so that few shots cover many labels. Raises `ConfigError` where `examples` has too few rows.
    """
    if not 0 < shots <= len(examples):
        raise ConfigError(f"{shots} exemplars asked for, {len(examples)} training rows there; choose 1 to that many")
    rng = random.Random(seed)
    by_label: dict[str, list[RewriteExample]] = {}
    for example in rng.sample(list(examples), len(examples)):
        by_label.setdefault(example.targets[0] if example.choices else "", []).append(example)
    queues = list(by_label.values())
    chosen: list[RewriteExample] = []
    while len(chosen) < shots:
        for queue in queues:
            if queue and len(chosen) < shots:
                chosen.append(queue.pop())
    rng.shuffle(chosen)
    shown = "\n\n".join(f"{example.input}\n{example.targets[0]}" for example in chosen)
    return f"{instruction}\n\n{shown}"


def points(share: float) -> str:
    """A difference of shares as percentage points with its sign: 0.124 is `+12.4`."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _result(
    name: str, text: str, answers: Sequence[Answer], examples: Sequence[RewriteExample], level: float, seed: int
) -> InstructionResult:
    scores = np.array([answer.score for answer in answers], dtype=np.float64)
    if scores.size != len(examples):
        raise ConfigError(f"instruction {name!r} has {scores.size} answers for {len(examples)} examples")
    return InstructionResult(
        name,
        text,
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


def _differences_json(found: Mapping[str, PairedDifference]) -> dict[str, Any]:
    return {name: {**asdict(one), "significant": one.significant} for name, one in found.items()}
