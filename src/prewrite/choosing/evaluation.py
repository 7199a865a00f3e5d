"""What an evaluation found, and how it is said: differences, verdict, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.labels import Reliability
from prewrite.choosing.stats import Interval, PairedDifference
from prewrite.errors import ConfigError
from prewrite.scoring.prompt import TaskPrompt
from prewrite.types import Answer, RewriteExample


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
    prompt: str | TaskPrompt
    """A wording of the instruction, or a whole prompt."""
    scores: NDArray[np.float64]
    """Per item, in [0, 1]."""
    mean: float
    interval: Interval
    labels: tuple[LabelResult, ...]
    """Empty where the rows have no choices."""
    reliability: Reliability | None
    """Of the label probabilities; None where the backend scored no labels."""
    calibrated: NDArray[np.float64] | None
    """Per item, 1 where the label is right after batch calibration (`labels.batch_calibrate`), else 0; None where the
    backend scored no labels, or the rows differ in theirs."""
    answers: tuple[Answer, ...]

    @property
    def instruction(self) -> str:
        """The instruction in the prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt.instruction


@dataclass(frozen=True, slots=True)
class LeftOutRow:
    """A row that no instruction is measured on, since one of them got no answer to it."""

    input: str
    place: str
    """Where it stands, e.g. `rows.jsonl, row 17`; empty where that is not known."""
    reason: str


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
    """Primary instruction minus each of the others but the baseline, by their names; those of the same text left out.
    Empty without a primary one."""
    calibrated: Mapping[str, PairedDifference]
    """As `differences`, after batch calibration under both instructions; where that can be told."""
    examples: tuple[RewriteExample, ...]
    left_out: tuple[LeftOutRow, ...] = ()

    def verdict(self, name: str | None = None) -> str:
        """One sentence on `name` against the baseline; by default on the primary instruction, or else the first."""
        name = name or self.primary or next(iter(self.differences), self.baseline)
        if name != self.baseline and name not in self.differences:
            raise ConfigError(f"instruction {name!r} was not evaluated; known: {', '.join(self.results)}")
        if name == self.baseline or self.results[name].prompt == self.results[self.baseline].prompt:
            kept = "instruction" if isinstance(self.results[self.baseline].prompt, str) else "prompt"
            return f"No significant gain: the {self.baseline} {kept} was kept."
        found = self.differences[name]
        measured = (
            f"{points(found.mean)} points on {self.n} {self.rows} rows{left_out_note(len(self.left_out))}, "
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
            "left_out": [{**asdict(row), "input": row.input[:200]} for row in self.left_out],
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


def left_out_note(count: int) -> str:
    """In brackets, how many rows are left out; nothing for none."""
    return f" ({count} left out: no answer)" if count else ""


def calibrated_note(test: Mapping[str, Any], name: str, *, in_points: bool = False) -> str | None:
    """How much of a gain remains after batch calibration, in a sentence; None where that cannot be told.

    `test` is what `Evaluation.to_json` gave. Scores are shares, or points of a hundred as in a report. Calibration
    needs no rewrite, so what it brings to the baseline alone is no merit of the rewrite.
    """
    found = test["calibrated"].get(name)
    first, second = (test["instructions"][who] for who in (test["baseline"], name))
    if found is None or first["instruction"] == second["instruction"]:
        return None
    before, after = first["calibrated"], second["calibrated"]
    if before is None or after is None:
        return None
    first_score, second_score = (f"{100 * score:.1f}" if in_points else f"{score:.3f}" for score in (before, after))
    return (
        f"After batch calibration of the labels, which needs no rewrite: {first_score} under the {test['baseline']} "
        f"instruction, {second_score} under this one; {points(found['mean'])} points, {test['level']:.0%} interval "
        f"{points(found['low'])} to {points(found['high'])}."
    )


def points(share: float) -> str:
    """A difference of shares as percentage points with its sign: 0.124 is `+12.4`."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _differences_json(found: Mapping[str, PairedDifference]) -> dict[str, Any]:
    return {name: {**asdict(one), "significant": one.significant} for name, one in found.items()}
