"""Demos for a DSPy program: labelled examples where they have all fields of a predictor, else runs that went well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from prewrite.choosing.exemplars import Pool, random_sets, set_sizes
from prewrite.interop.dspy_programs import Parts, run_program
from prewrite.types import RewriteExample

MOST_LABELS = 10
"""Different answers up to which they are taken for labels, which a set of demos shows in even numbers."""


class Demos(NamedTuple):
    """What sets of demos are drawn from."""

    rows: list[tuple[Any, ...]]
    """For each usable example the demo of every predictor, None where it has none."""
    labels: list[str]
    """The answer of each."""
    runs: int
    """Runs of the program that it took to find them."""


def gather_demos(
    program: Any, metric: Callable[..., Any], examples: Sequence[Any], most_runs: int, num_threads: int
) -> Demos:
    """The demos that `examples` give.

    An example is a demo as it stands where it has every field of every predictor. Otherwise the program is run on up
    to `most_runs` of them, and what its predictors read and wrote where the metric gave 1 becomes the demos.
    """
    fields = [set(predictor.signature.fields) for predictor in program.predictors()]
    if all(wanted <= set(example.keys()) for wanted in fields for example in examples):
        rows = [tuple(_only(example, wanted) for wanted in fields) for example in examples]
        return Demos(rows, [_label(example) for example in examples], 0)
    tried = examples[:most_runs]
    rows, labels = [], []
    for example, run in zip(tried, run_program(program, metric, tried, num_threads), strict=True):
        if run.score == 1 and run.steps:
            steps = dict(run.steps)  # a predictor that was asked twice gives what it did last
            rows.append(tuple(steps.get(number) for number in range(len(fields))))
            labels.append(_label(example))
    return Demos(rows, labels, len(tried))


def with_random_demos(start: Parts, demos: Demos, count: int, *, seed: int) -> list[Parts]:
    """`count` times the program's parts with another random set of demos; none where there are fewer than two rows."""
    known = sorted(set(demos.labels))
    choices = tuple(known) if len(known) <= MOST_LABELS else None
    rows = [RewriteExample("", str(number), label, choices=choices) for number, label in enumerate(demos.labels)]
    sizes = [size for size in set_sizes(len(choices or ())) if size <= len(rows) // 2] or [len(rows)][: len(rows) > 1]
    if not sizes or count < 1:
        return []
    sets = random_sets([Pool(size, rows) for size in sizes], count, seed=seed)
    return [
        tuple(
            replace(
                part, demos=tuple(demo for row in drawn if (demo := demos.rows[int(row.input)][number]) is not None)
            )
            for number, part in enumerate(start)
        )
        for drawn in sets
    ]


def _only(example: Any, fields: set[str]) -> Any:
    return example.without(*(set(example.keys()) - fields))


def _label(example: Any) -> str:
    return str(tuple(example.labels().values()))
