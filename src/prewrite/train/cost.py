"""What a run has cost so far: time and task-model use, over all its processes and over the parts that it resumes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from accelerate.utils import gather_object

from prewrite.task_models.base import TaskModel
from prewrite.task_models.budget import budget_of
from prewrite.task_models.counting import Usage
from prewrite.task_models.ledger import Spent
from prewrite.train import processes


class RunCost:
    """Adds to the task model's own `usage` and budget, where it has them.

    Args:
        task_model: the task model in its wrappers.
    """

    def __init__(self, task_model: TaskModel):
        self.usage: Usage | None = getattr(task_model, "usage", None)
        self.budget = budget_of(task_model)
        self.earlier = 0.0
        self.started = time.perf_counter()
        self._collected = Usage()

    @property
    def seconds(self) -> float:
        """Time in training."""
        return self.earlier + time.perf_counter() - self.started

    def collect(self) -> None:
        """Add what the other processes' task models were asked since the last time to the main process's count.

        A collective call, made after every update. Waiting times add up too.
        """
        if processes.count() == 1 or self.usage is None:
            return
        known, now = self._collected.as_dict(), self.usage.as_dict()
        reports: list[dict[str, Any]] = gather_object([{name: count - known[name] for name, count in now.items()}])
        if processes.is_main():
            for report in reports[1:]:
                self.usage.add(Usage(**report))
        self._collected = replace(self.usage)

    def state(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint."""
        return {
            "seconds": self.seconds,
            "usage": None if self.usage is None else self.usage.as_dict(),
            "budget": None if self.budget is None else self.budget.spent.as_dict(),
        }

    def add(self, state: dict[str, Any]) -> None:
        """Count what was spent before a resume; of the budget too, whose limits are the whole run's."""
        self.earlier += state["seconds"]
        if self.usage is not None and state["usage"] is not None:
            self.usage.add(Usage(**state["usage"]))
            self._collected = replace(self.usage)
        if self.budget is not None and state["budget"] is not None:
            self.budget.count_earlier(Spent(**state["budget"]))
