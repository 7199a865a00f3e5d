"""A DSPy program as what a search changes: an instruction and demos for each predictor; and its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import dspy

from prewrite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Part:
    """What of one predictor may change."""

    instruction: str
    demos: tuple[Any, ...]
    """`dspy.Example`s in the order in which they are shown."""


Parts = tuple[Part, ...]
"""One part for each predictor of the program, in its order."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a program did with one example."""

    score: float
    """From the metric, in [0, 1]; 0 where the answer could not be read."""
    steps: tuple[tuple[int, Any], ...]
    """(number of the predictor, its inputs and outputs as a `dspy.Example`), in the order in which they were asked."""


def parts_of(program: Any) -> Parts:
    """The parts of a program as it is."""
    return tuple(Part(one.signature.instructions, tuple(one.demos)) for one in program.predictors())


def configured(program: Any, parts: Parts) -> Any:
    """A copy of the program with these parts."""
    copy = program.deepcopy()
    for predictor, part in zip(copy.predictors(), parts, strict=True):
        predictor.signature = predictor.signature.with_instructions(part.instruction)
        predictor.demos = list(part.demos)
    return copy


def run_program(program: Any, metric: Callable[..., Any], examples: Sequence[Any], num_threads: int) -> list[Run]:
    """What the program does with each example, in order.

    An answer that DSPy cannot read, or a prompt too long for the model, scores 0. Everything else that goes wrong is
    raised; so is `ConfigError` for a metric that gives no number in [0, 1].
    """
    numbers = {id(predictor): number for number, predictor in enumerate(program.predictors())}

    def run(example: Any) -> Run:
        with dspy.context(trace=[]):
            try:
                prediction = program(**example.inputs())
            except (dspy.AdapterParseError, dspy.ContextWindowExceededError):
                return Run(0.0, ())
            trace = dspy.settings.trace
        score = _checked(metric(example, prediction, None))
        asked = [(numbers[id(one)], given, told) for one, given, told in trace if id(one) in numbers]
        return Run(score, tuple((number, dspy.Example(**given, **told)) for number, given, told in asked))

    pool = ThreadPoolExecutor(num_threads)
    try:
        waiting = [pool.submit(copy_context().run, run, example) for example in examples]  # with DSPy's settings
        return [future.result() for future in waiting]
    finally:
        pool.shutdown(cancel_futures=True)


def _checked(score: Any) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"metric gave {score!r}; it must give True, False or a number from 0 to 1")
    return value
