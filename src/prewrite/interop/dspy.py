"""PRewrite as an optimiser of DSPy programs: it searches the instruction and the examples (demos) of each predictor.

    from prewrite.interop.dspy import PRewriteOptimizer
    better = PRewriteOptimizer(metric=my_metric).compile(program, trainset=rows)

The program itself is run and scored by the user's metric: DSPy writes the prompts, and its language model answers. So
there are no answer lines, layouts and label offsets here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prewrite.choosing.candidates import Proposer, propose
from prewrite.choosing.halving import FIRST_ROWS, Board, Round, halve, plan_rounds
from prewrite.choosing.search import STRUCTURES, WORDING_ERRORS, WORDING_SHARE
from prewrite.choosing.server_rewriter import ServerRewriter
from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.scoring.offsets import clearly_better
from prewrite.task_models.counting import CountingTaskModel

try:
    import dspy
    from dspy.teleprompt import Teleprompter
except ImportError:
    raise MissingDependencyError("dspy is not installed; `pip install 'prewrite[dspy]'`") from None

from prewrite.interop.dspy_demos import Demos, gather_demos, with_random_demos
from prewrite.interop.dspy_model import DSPyTaskModel
from prewrite.interop.dspy_programs import Parts, configured, parts_of, run_program

PARTS = ("instruction", "demos")
"""What of a predictor a search may change."""
LEAST = 2 * FIRST_ROWS
"""Runs that two candidates can be compared with."""
DEMO_SHARE = 0.2
"""Of the runs, those that may go into finding demos, where labelled rows cannot be demos as they are."""


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """What a search of a program rests on."""

    runs: int
    """Runs of the program on one row; at most the budget."""
    rows: int
    """Dev rows that the last comparison rests on."""
    initial_score: float
    """Mean score on those rows of the program as it came."""
    score: float
    """Mean score of the compiled one on the same rows; it flatters, since the program was chosen by it."""
    changed: tuple[str, ...]
    """The predictors that were changed."""


class PRewriteOptimizer(Teleprompter):
    """Searches instruction and demos of a program's predictors, within a number of runs of the program.

    Args:
        metric: (example, prediction, trace) -> a number in [0, 1], or a truth value.
        rewriter: who writes other instructions: a trained `Rewriter`, a DSPy language model, or by default the
            language model that DSPy is configured with.
        num_candidates: instructions that are sampled for each predictor, beside the likeliest one.
        max_runs: most runs of the program on one row; each asks the language model once for each predictor, or more.
        parts: which of `PARTS` may change.
        num_threads: runs at the same time.
        seed: of the split, the order of rows, the sets of demos and the samples.

    After `compile`, `found` tells what it rests on.
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        *,
        rewriter: Proposer | dspy.BaseLM | None = None,
        num_candidates: int = 8,
        max_runs: int = 400,
        parts: Sequence[str] = PARTS,
        num_threads: int = 8,
        seed: int = 0,
    ):
        super().__init__()
        if unknown := [part for part in parts if part not in PARTS]:
            raise ConfigError(f"part {unknown[0]!r} is unknown; choose from {', '.join(PARTS)}")
        for name, value, least in (
            ("num_candidates", num_candidates, 1),
            ("num_threads", num_threads, 1),
            ("max_runs", max_runs, 2 * LEAST),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        self.metric, self.rewriter, self.num_candidates = metric, rewriter, num_candidates
        self.max_runs, self.parts, self.num_threads, self.seed = max_runs, tuple(parts), num_threads, seed
        self.found: FoundProgram | None = None

    def compile(self, student: Any, *, trainset: Sequence[Any], valset: Sequence[Any] | None = None) -> Any:
        """A copy of the program `student` with what scored best; the student stays as it is, and competes.

        Args:
            student: the program.
            trainset: examples that demos are taken from.
            valset: examples to choose on; without them every other one of `trainset`, in random order.

        Raises `ConfigError` for too few rows or runs, and for a metric that gives no score. What DSPy, the program or
        its language model raise goes on, except that answers which cannot be read score 0.
        """
        train, dev = self._split(trainset, valset)
        start = parts_of(student)
        if not start:
            raise ConfigError("the program has no predictors, so there is nothing to search; give one that asks an LM")
        demos = Demos([], [], 0)
        if "demos" in self.parts:
            demos = gather_demos(student, self.metric, train, int(DEMO_SHARE * self.max_runs), self.num_threads)
        search = _Search(self, student, start, dev)
        calls = self.max_runs - demos.runs
        share = self._share_of_wordings(calls, len(start), alone=len(demos.rows) < 2)
        if len(demos.rows) > 1:
            search.try_demos(demos, plan_rounds(calls - share * len(start), len(dev)), seed=self.seed)
        for number in range(len(start)) if share else ():
            search.try_wordings(number, self._wordings(start[number].instruction), share)
        chosen = search.conclude()
        before, after = (search.board.results[candidate] for candidate in (0, chosen))
        rows = search.common(chosen, 0)
        names = [name for name, _ in student.named_predictors()]
        parts = search.candidates[chosen]
        self.found = FoundProgram(
            runs=demos.runs + search.board.calls,
            rows=rows,
            initial_score=float(np.mean(before[:rows])),
            score=float(np.mean(after[:rows])),
            changed=tuple(name for name, old, new in zip(names, start, parts, strict=True) if old != new),
        )
        compiled = configured(student, parts)
        compiled._compiled = True  # as DSPy's own optimisers mark what they made
        return compiled

    def _split(self, trainset: Sequence[Any], valset: Sequence[Any] | None) -> tuple[list[Any], list[Any]]:
        """Rows for demos and rows to choose on."""
        order = np.random.default_rng([self.seed, *b"split"]).permutation(len(trainset))
        mixed = [trainset[index] for index in order]
        train, dev = (mixed[::2], mixed[1::2]) if valset is None else (mixed, list(valset))
        if not dev:
            raise ConfigError("there are no rows to choose on; give two rows of trainset at least, or a valset")
        return train, dev

    def _share_of_wordings(self, calls: int, predictors: int, *, alone: bool) -> int:
        """The calls that each predictor's wordings get; 0 where that is too few to compare two."""
        if "instruction" not in self.parts:
            return 0
        share = int(calls if alone else WORDING_SHARE * calls) // predictors
        return share if share >= LEAST else 0

    def _wordings(self, instruction: str) -> list[str]:
        found = propose(self._proposer(), instruction, self.num_candidates, seed=self.seed)
        return [candidate.rewrite for candidate in found if candidate.rewrite != instruction]

    def _proposer(self) -> Proposer:
        author = self.rewriter or dspy.settings.lm
        if author is None:
            raise ConfigError("no language model is known that writes instructions; call dspy.configure(lm=...)")
        if isinstance(author, dspy.BaseLM):
            return ServerRewriter(CountingTaskModel(DSPyTaskModel(author)))
        return author


class _Search:
    """Candidates and what they scored on dev rows; `best` are those that the next step starts from, best first."""

    def __init__(self, optimizer: PRewriteOptimizer, student: Any, start: Parts, dev: Sequence[Any]):
        self.candidates = [start]
        self.best = [0]
        self.rows = len(dev)

        def ask(candidates: Sequence[int], rows: Sequence[int]) -> list[list[float]]:
            found = []
            for number in candidates:
                program = configured(student, self.candidates[number])
                examples = [dev[row] for row in rows]
                runs = run_program(program, optimizer.metric, examples, optimizer.num_threads)
                found.append([run.score for run in runs])
            return found

        self.board: Board[float] = Board(ask, len(dev), seed=optimizer.seed)

    def try_demos(self, demos: Demos, plan: Sequence[Round], *, seed: int) -> None:
        """Sets of demos around the instructions as they are."""
        start = self.candidates[0]
        rivals = [self._add(parts) for parts in with_random_demos(start, demos, plan[0].candidates - 1, seed=seed)]
        self.best = self._halve(rivals, plan)[:STRUCTURES]

    def try_wordings(self, predictor: int, wordings: Sequence[str], calls: int) -> None:
        """Other instructions of one predictor in the best candidates so far; one has to be clearly better."""
        base, rivals = self.best[0], self.best[1:]
        for text in wordings:
            for number in self.best:
                parts = list(self.candidates[number])
                parts[predictor] = replace(parts[predictor], instruction=text)
                rivals.append(self._add(tuple(parts)))
        if rivals:
            winner = self._halve(rivals, plan_rounds(calls, self.rows, most=len(rivals) + 1))[0]
            if self._better(winner, base, errors=WORDING_ERRORS):
                self.best = [winner, base]

    def conclude(self) -> int:
        """The best candidate, or the program as it came unless that one is better by more than a standard error."""
        if not self.board.results:
            self.board.show([0], min(self.rows, LEAST))
        return self.best[0] if self._better(self.best[0], 0, errors=1.0) else 0

    def common(self, one: int, other: int) -> int:
        """How many of the first rows both have seen."""
        return min(len(self.board.results[one]), len(self.board.results[other]))

    def _better(self, one: int, other: int, *, errors: float) -> bool:
        rows = self.common(one, other)
        scores = [np.array(self.board.results[number][:rows]) for number in (one, other)]
        return clearly_better(scores[0], scores[1], errors=errors)

    def _add(self, parts: Parts) -> int:
        self.candidates.append(parts)
        return len(self.candidates) - 1

    def _halve(self, rivals: Sequence[int], plan: Sequence[Round]) -> list[int]:
        return halve(self.board, rivals, plan, self._worth, incumbent=self.best[0], size=self._demos)

    def _worth(self, number: int) -> float:
        return float(np.mean(self.board.results[number]))

    def _demos(self, number: int) -> int:
        return sum(len(part.demos) for part in self.candidates[number])
