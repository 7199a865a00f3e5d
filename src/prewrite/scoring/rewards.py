"""What a rewrite earns: a task part by `reward_mode`, and the penalties of the guards, each under its own name.

`reward_modes` holds the task parts. In mode `model` a learned reward model estimates the task part, and the task model
grades every so many updates, in the mode that the reward model was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prewrite.errors import ConfigError
from prewrite.scoring.answers import parse_answer
from prewrite.scoring.constraints import NO_CONSTRAINTS, Constraints
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.fidelity import Fidelity
from prewrite.scoring.guards import DEFAULT_GUARDS, GuardContext, check_guards, known_guards
from prewrite.scoring.left_out import answered_only
from prewrite.scoring.metrics import METRICS, get_metric, metric_for
from prewrite.scoring.reward_modes import MODES, Grades, RewriteBatch, check_capabilities
from prewrite.types import Decoding, Reward, RewriteExample

REWARD_MODES = (*MODES, "model")
MODEL_FREE_MODES = ("auto", *METRICS)
"""Those that grade a written answer without asking a model."""

MIN_FIDELITY = 0.25
"""Rewrites off the task lie below this, honest paraphrases above it (docs/readability.md)."""

RewardModel = Callable[[Sequence[str], str], Sequence[float]]
"""(rewrites, instruction) -> estimates of their task parts."""
REWARD_MODEL_FILE = "reward_model.json"
"""The file by which a folder is a learned reward model."""


def check_task_part(mode: str, *, reward_model: bool, real_mode: str = "auto", real_every: int | None = None) -> None:
    """Raise `ConfigError` for a mode that is unknown or does not go with the rest; see `TaskReward`."""
    if mode not in REWARD_MODES:
        raise ConfigError(f"reward_mode {mode!r} is unknown; choose one of {', '.join(REWARD_MODES)}")
    if (mode == "model") != reward_model:
        raise ConfigError("reward_mode model and reward_model go together; give both or neither")
    if real_mode not in MODES:
        raise ConfigError(f"real_mode {real_mode!r} does not ask the task model; choose one of {', '.join(MODES)}")
    if real_every is not None and real_every < 1:
        raise ConfigError(f"real_every is {real_every}; it must be at least 1")


def check_penalties(*, guards: Sequence[str] = (), guard_weight: float = 0.0, min_fidelity: float = 0.0) -> None:
    """Raise `ConfigError` for an unknown guard or a number out of range; see `TaskReward`."""
    known_guards(guards)
    if guard_weight < 0:
        raise ConfigError(f"guard_weight is {guard_weight}; it must be at least 0")
    if not 0 <= min_fidelity <= 1:
        raise ConfigError(f"min_fidelity is {min_fidelity}; it must be in [0, 1]")


def guards_of(
    evaluator: Evaluator, examples: Sequence[RewriteExample], guards: Sequence[str] = DEFAULT_GUARDS
) -> list[str]:
    """Those of `guards` that rows such as `examples` need.

    Where labels are scored, an instruction need not list them; anywhere else the task model learns the labels from
    the instruction alone.
    """
    scored = {evaluator.decoding_of(example) for example in examples} == {"likelihood"}
    return [name for name in guards if not (scored and name == "keep_words")]


@dataclass(frozen=True)
class Graded:
    """One rewrite, graded on the update's examples."""

    reward: Reward
    scores: tuple[float, ...]
    """Per-example scores in [0, 1] from the evaluator's metric, whatever the reward mode; none where the task model
    was not asked to answer."""
    fidelity: float | None = None
    """How much of the instruction the rewrite tells, in [0, 1]; None where nobody judges."""
    estimate: float | None = None
    """A learned reward model's estimate of the task part; None without one."""
    real: bool = True
    """Whether the task part is the task model's grade; else it is the estimate, or the lowest of the update's."""


class TaskReward:
    """Grades the rewrites of one instruction, all on the same examples.

    Args:
        evaluator: asks the task model.
        mode: one of `REWARD_MODES`.
        guards: names in `guards.GUARDS`; empty for none.
        guard_weight: what a fully violated guard costs; at least 0. All penalties together cost at most twice that.
        forbidden_texts: training inputs and answers that a rewrite must not copy.
        reward_model: for mode `model`.
        real_every: for mode `model`, the task model grades every so many updates; None for never.
        real_mode: for mode `model`, the mode of those updates.
        fidelity: judges how much of the instruction a rewrite tells.
        min_fidelity: below this the penalty `guard/fidelity` begins, its violation being 1 - fidelity / min_fidelity;
            in [0, 1], 0 for none.
        constraints: the user's own rules, each a penalty `guard/<rule>` whatever the guards are.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        mode: str = "auto",
        guards: Sequence[str] = DEFAULT_GUARDS,
        guard_weight: float = 0.5,
        forbidden_texts: Sequence[str] = (),
        reward_model: RewardModel | None = None,
        real_every: int | None = None,
        real_mode: str = "auto",
        fidelity: Fidelity | None = None,
        min_fidelity: float = MIN_FIDELITY,
        constraints: Constraints = NO_CONSTRAINTS,
    ):
        check_task_part(mode, reward_model=reward_model is not None, real_mode=real_mode, real_every=real_every)
        check_penalties(guards=guards, guard_weight=guard_weight, min_fidelity=min_fidelity)
        self.evaluator = evaluator
        self.guards = tuple(guards)
        self.guard_weight = guard_weight
        self.forbidden_texts = tuple(forbidden_texts)
        self.reward_model = reward_model
        self.real_every = real_every
        self.real_mode = real_mode if mode == "model" else mode
        self.fidelity = fidelity
        self.min_fidelity = min_fidelity
        self.constraints = constraints
        self._contexts: dict[tuple[str, tuple[str, ...]], GuardContext] = {}

    def __call__(
        self,
        rewrites: Sequence[str],
        instruction: str,
        examples: Sequence[RewriteExample],
        *,
        step: int = 0,
        refused_too: bool = True,
    ) -> list[Graded]:
        """One `Graded` per rewrite, in order.

        `step`, the update, decides who grades where there is a reward model. Without `refused_too` the task model is
        not asked about rewrites that are penalised, which will never be chosen: their task part is the lowest of the
        others'. Where all are penalised, all are asked about.
        """
        estimates = self.estimates(rewrites, instruction)
        real = self.asks_task_model(step)
        fidelities = self.fidelities(rewrites, instruction)  # all at once, for the penalties too
        penalties = [self.penalties(rewrite, instruction, examples) for rewrite in rewrites]
        everyone = range(len(rewrites))
        asked = [at for at in everyone if refused_too or not self.penalty_sum(penalties[at])] or everyone
        if real:
            batch = RewriteBatch(self.evaluator, [rewrites[at] for at in asked], instruction, examples)
            grades = MODES[self.real_mode].grade(batch)
        else:
            asked = everyone
            grades = Grades(np.array(estimates, dtype=np.float64), np.empty((len(rewrites), 0)))
        task_parts = dict.fromkeys(everyone, float(min(grades.task_parts, default=0.0)))
        task_parts |= {at: float(part) for at, part in zip(asked, grades.task_parts, strict=True)}
        scores = dict(zip(asked, map(answered_only, grades.scores), strict=True))
        return [
            Graded(
                Reward(task_parts[at] + self.penalty_sum(penalties[at]), {"task": task_parts[at]} | penalties[at]),
                scores.get(at, ()),
                fidelities[at],
                estimates[at],
                real and at in scores,
            )
            for at in everyone
        ]

    def check_capabilities(self, examples: Sequence[RewriteExample]) -> None:
        """Raise `CapabilityError` where the task model cannot do what the reward will ask for rows like these."""
        if self.reward_model is None or self.real_every is not None:
            check_capabilities(self.real_mode, self.evaluator, examples)

    def most_calls(self, decoding: Decoding, rewrites: int, examples: int, *, groups: int = 1) -> int:
        """The most task-model calls that grading `rewrites` of `groups` instructions on `examples` each takes."""
        return MODES[self.real_mode].most_calls(decoding, rewrites, examples, groups=groups)

    def asks_task_model(self, step: int) -> bool:
        """Whether the task model grades this update; always without a reward model."""
        return self.reward_model is None or (self.real_every is not None and step % self.real_every == 0)

    def estimates(self, rewrites: Sequence[str], instruction: str) -> list[float] | list[None]:
        """The reward model's estimate of each task part; None each without one."""
        if self.reward_model is None:
            return [None] * len(rewrites)
        return [float(value) for value in self.reward_model(rewrites, instruction)]

    def fidelities(self, rewrites: Sequence[str], instruction: str) -> list[float] | list[None]:
        """How much of the instruction each rewrite tells, in [0, 1]; None each where nobody judges."""
        return [None] * len(rewrites) if self.fidelity is None else self.fidelity(rewrites, instruction)

    def penalties(self, rewrite: str, instruction: str, examples: Sequence[RewriteExample]) -> dict[str, float]:
        """`guard/<name>` -> what the guard, or the user's rule, takes off, at most 0; only those that fired."""
        choices = next((example.choices for example in examples if example.choices), None) or ()
        if (instruction, choices) not in self._contexts:  # a context keeps what it computes
            context = GuardContext(instruction, choices=choices, forbidden_texts=self.forbidden_texts)
            self._contexts[instruction, choices] = context
        violations = check_guards(rewrite, self._contexts[instruction, choices], names=self.guards)
        if self.fidelity is not None and self.min_fidelity:
            lost = 1 - self.fidelity([rewrite], instruction)[0] / self.min_fidelity
            violations |= {"fidelity": lost} if lost > 0 else {}
        violations |= self.broken_constraints(rewrite)
        return {f"guard/{name}": -self.guard_weight * amount for name, amount in violations.items()}

    def broken_constraints(self, rewrite: str) -> dict[str, float]:
        """Rule of the user -> how far the rewrite breaks it, in (0, 1]; only rules that it breaks."""
        return self.constraints.violations(self.evaluator.prompt_of(rewrite))

    def penalty_sum(self, penalties: Mapping[str, float]) -> float:
        """What `penalties` take off together, at most 0: all of them count no more than two full ones."""
        return max(sum(penalties.values()), -2 * self.guard_weight)


def compute_reward(prediction: str, example: RewriteExample | str | Sequence[str], reward_mode: str = "auto") -> float:
    """The reward in [0, 1] of one task-model output for one example, by a mode that needs no model to grade it.

    In place of an example its gold answer is enough, or a list of answers that are all right.

    >>> compute_reward("The answer is Paris.", "Paris"), compute_reward("It is 3 + 4 = 7.", "7", "numeric_match")
    (1.0, 1.0)

    Raises `ConfigError` for a mode that is unknown or that needs log-probabilities, and for no gold answer.
    """
    if reward_mode not in MODEL_FREE_MODES:
        needs_model = "needs the task model's log-probabilities; use TaskReward" if reward_mode in REWARD_MODES else ""
        raise ConfigError(
            f"reward_mode {reward_mode!r} {needs_model or 'is unknown'}; choose one of {', '.join(MODEL_FREE_MODES)}"
        )
    if not isinstance(example, RewriteExample):
        answers = example if isinstance(example, str) else tuple(example)
        if not answers:
            raise ConfigError("there is no gold answer; give a text, or a list with at least one")
        example = RewriteExample("", "", answers, "math" if reward_mode == "numeric_match" else None)
    name = metric_for(example.task) if reward_mode == "auto" else reward_mode
    return get_metric(name)(parse_answer(prediction, example), example.targets)
