"""The algorithms that train a rewriter. To add one, write a module with its trainer and a line in `ALGORITHMS`.

This file imports no torch, so that the settings can list the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prewrite.rewriter.rewriter import Rewriter
    from prewrite.scoring.rewards import TaskReward
    from prewrite.train.cost import RunCost


class Trainer(Protocol):
    """What a run asks of a trainer, whatever the algorithm."""

    reward: TaskReward
    cost: RunCost
    stop_requested: bool
    """Set to end training after the running update, with a checkpoint."""

    @property
    def updates(self) -> int:
        """Updates done."""

    @property
    def kept_step(self) -> int:
        """The update whose policy is the rewriter; 0 is before training."""

    def train(self, *, resume_from_checkpoint: str | Path | None = None) -> dict[str, float]:
        """Train, put the best policy on dev back, and save it as the rewriter; the metrics of the last update."""

    def rewriter(self) -> Rewriter:
        """The policy as it is now, for writing rewrites."""


SHARED_SETTINGS = ("response_length", "num_ppo_epochs", "kl_coef")
"""Settings that every algorithm has, though not by one name."""


@dataclass(frozen=True)
class Algorithm:
    """Where an algorithm's trainer is, and what the trainer calls our settings."""

    trainer: str
    """`module:class`; the class makes a `Trainer`."""
    own_settings: tuple[str, ...] = ()
    """Settings that not every algorithm has."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Setting -> the trainer's argument, where the two differ."""
    keeps_batch: bool = False
    """Whether a resumed run must split its batch as it began, among processes and micro-batches."""

    def trainer_class(self) -> type[Any]:
        """The class itself. Raises `MissingDependencyError` where the installed TRL lacks what it needs."""
        module, _, name = self.trainer.partition(":")
        found: type[Any] = getattr(import_module(module), name)
        return found

    def arguments(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of `settings`, those whose names depend on the algorithm or that it has for itself, as its trainer's."""
        return {self.names.get(name, name): settings[name] for name in (*SHARED_SETTINGS, *self.own_settings)}


GROUP_NAMES = {"response_length": "max_completion_length", "num_ppo_epochs": "num_iterations", "kl_coef": "beta"}
"""The names in TRL's trainers of groups."""

ALGORITHMS = {
    "ppo": Algorithm("prewrite.train.ppo:PRewritePPOTrainer", ("entropy_coef",)),
    "grpo": Algorithm("prewrite.train.grpo:PRewriteGRPOTrainer", ("resample_ties",), GROUP_NAMES, keeps_batch=True),
    "rloo": Algorithm("prewrite.train.grpo:PRewriteRLOOTrainer", ("resample_ties",), GROUP_NAMES, keeps_batch=True),
}
