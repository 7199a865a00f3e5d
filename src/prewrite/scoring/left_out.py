"""Rows that the task model gives no answer to, left out of every comparison for all prompts alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import ConfigError, NoAnswerError
from prewrite.types import RewriteExample


class LeftOut:
    """The rows left out so far, and why; at most `limit` of them.

    A row that one prompt got no answer to is left out for all prompts from then on, so that comparisons stay paired.
    """

    def __init__(self, limit: int = 0):
        if limit < 0:
            raise ConfigError(f"skip_refused_rows is {limit}; it must be at least 0")
        self.limit = limit
        self.reasons: dict[RewriteExample, str] = {}

    def add(self, example: RewriteExample, reason: str, *, task_model: str) -> None:
        """Leave `example` out. Raises `NoAnswerError` that names the row where the limit is reached."""
        if example in self.reasons:
            return
        if len(self.reasons) >= self.limit:
            begins = " ".join(example.input[:120].split())
            place = f" ({example.place})" if example.place else ""
            more = f" {self.limit} such rows are left out already." if self.limit else ""
            raise NoAnswerError(
                f"{task_model} gave no answer to the row that begins {begins!r}{place}: {reason}.{more} "
                "--skip-refused-rows N leaves up to N rows out, for every instruction alike"
            )
        self.reasons[example] = reason

    def state(self) -> list[dict[str, Any]]:
        """JSON types, for a checkpoint."""
        return [{**asdict(row), "reason": why} for row, why in self.reasons.items()]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Leave out what `state` told, as well."""
        for told in state:
            row: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
            }
            reason = row.pop("reason")
            self.reasons[RewriteExample(**row)] = reason

    def to_json(self) -> list[dict[str, str]]:
        """For the report: which rows, and why."""
        return [{"input": row.input[:200], "at": row.place, "reason": why} for row, why in self.reasons.items()]


def mean_of_answered(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row of (prompt, example) over the examples that are not left out (NaN), the same for all prompts.

    Raises `NoAnswerError` where none is left.
    """
    answered = answered_columns(values)
    if not answered.any():
        raise NoAnswerError("none of the rows got an answer, so there is nothing to compare on; see the task model")
    return np.asarray(values[:, answered].mean(axis=1))


def answered_columns(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which examples of (prompt, example) every prompt has a value for."""
    return np.asarray(~np.isnan(values).any(axis=0))


def answered_only(values: Sequence[float]) -> tuple[float, ...]:
    """The values of one prompt without those of rows that are left out."""
    return tuple(float(value) for value in values if not np.isnan(value))
