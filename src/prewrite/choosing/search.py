"""Searching the whole prompt: wording, answer line, exemplars and label offsets, within a budget of task-model calls.

Two halvings share one board, so that no row is asked for twice. The first tries structures (answer lines, sets of
exemplars, where they stand) around the initial instruction; the second tries wordings in the best structures. The
initial prompt competes in every round and is kept unless another is better on dev rows. Exemplars come from training
rows, the choice from dev rows; test rows are not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from prewrite.choosing.candidates import Candidate, merge
from prewrite.choosing.halving import FIRST_ROWS, Board, Round, halve, plan_rounds
from prewrite.choosing.structures import PromptCandidate, shortened, structures
from prewrite.errors import ConfigError, NoAnswerError
from prewrite.scoring.constraints import NO_CONSTRAINTS, Constraints
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.offsets import (
    Floats,
    Offsets,
    calibrated_logprob,
    choose_offsets,
    clearly_better,
    gold_indices,
    gold_logprob,
    standard_errors,
)
from prewrite.scoring.prompt import PARTS, TaskPrompt
from prewrite.types import Answer, RewriteExample

WORDING_SHARE = 0.2
"""Of the calls, what the wordings get: exemplars and offsets bring nearly all of the gain."""
WORDING_ERRORS = 2.0
"""By so many standard errors another wording has to beat the best prompt around the initial one: many wordings
compete, they bring little on average, and the user has to put their name to what they say."""
STRUCTURES = 2
"""So many of the best structures are tried with every wording."""


@dataclass(frozen=True, slots=True)
class Found:
    """The prompt of a search, and what it rests on."""

    prompt: TaskPrompt
    """The chosen one, label offsets included where they won."""
    initial: TaskPrompt
    """The one that it started from."""
    calibrated_initial: TaskPrompt
    """The initial prompt with offsets of its own: what arithmetic alone brings."""
    source: str
    calls: int
    """Task-model calls that the search made; at most its budget."""
    rows: int
    """Dev rows that the last comparison rests on."""
    dev_scores: dict[str, float]
    """Mean score on those rows of `initial` and of the chosen `prompt`; the latter flatters, since it was chosen."""
    offsets: str
    """How the chosen prompt's offsets were found: `none` or `fitted`."""
    events: tuple[dict[str, Any], ...]
    """Every candidate and what became of it, for `candidates.jsonl`."""

    def to_json(self) -> dict[str, Any]:
        """What `result.json` tells of the search."""
        return {
            "calls": self.calls,
            "rows": self.rows,
            "source": self.source,
            "offsets": self.offsets,
            "candidates": len(self.events),
            "wordings": len({event["prompt"]["instruction"] for event in self.events} - {self.initial.instruction}),
        }


def plan_search(
    calls: int, rows: int, *, wordings: int, parts: Sequence[str] = PARTS
) -> tuple[list[Round], list[Round]]:
    """The rounds of both halvings: of structures, and of wordings in the best of them.

    The second is empty without wordings, or where the calls are too few for it; the first is, where `parts` leave
    the structure as it is and there are wordings. With neither the initial prompt alone sees what rows it may. Raises
    `ConfigError` for calls that cannot compare two prompts.
    """
    alone = plan_rounds(calls, rows)
    if not {"answer_line", "exemplars"} & set(parts):
        if wordings:
            return [], plan_rounds(calls, rows, most=wordings + 1)
        return [Round(1, min(rows, calls))], []
    pairs = STRUCTURES * wordings
    for_wordings = int(WORDING_SHARE * calls) if pairs else 0
    if for_wordings < 4 * FIRST_ROWS:
        return alone, []
    return plan_rounds(calls - for_wordings, rows), plan_rounds(for_wordings, rows, most=pairs + 1)


def search_prompt(
    evaluator: Evaluator,
    initial: TaskPrompt,
    examples: Sequence[RewriteExample],
    *,
    train_rows: Sequence[RewriteExample] = (),
    wordings: Sequence[Candidate] = (),
    parts: Sequence[str] = PARTS,
    constraints: Constraints = NO_CONSTRAINTS,
    calls: int = 1200,
    seed: int = 0,
) -> Found:
    """The best prompt for the dev rows `examples` that `calls` task-model calls find.

    Args:
        initial: where the search starts; it always competes.
        train_rows: where exemplars come from; without rows, no exemplars.
        wordings: other wordings of the instruction.
        parts: which of `PARTS` may change; the rest stays as `initial` has it.
        constraints: rules of the user; no other prompt that breaks one is tried.
        calls: most task-model calls, a cached answer counted like a fresh one.
        seed: of the sets of exemplars, the order of rows, and the folds in which offsets are chosen.

    Raises `ConfigError` for no dev rows, unknown parts, or a budget that cannot compare two prompts.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"part {unknown[0]!r} is unknown; choose from {', '.join(PARTS)}")
    if not examples:
        raise ConfigError("there are no dev rows to choose on; give at least one")
    others = [
        wording
        for wording in merge(wordings)
        if wording.rewrite != initial.instruction and constraints.allows(initial.with_instruction(wording.rewrite))
    ]
    if "instruction" not in parts:
        others = []
    first, second = plan_search(calls, len(examples), wordings=len(others), parts=parts)

    judge = _Judge(evaluator, examples, calls=calls, seed=seed, calibrate="offsets" in parts)
    start = judge.add(PromptCandidate(initial, "initial"))
    ranked = [start]
    if first:
        count = first[0].candidates - 1
        for candidate in structures(
            initial,
            examples[0],
            train_rows,
            count,
            parts=parts,
            layouts=evaluator.layouts,
            constraints=constraints,
            seed=seed,
        ):
            judge.add(candidate)
        numbers = range(len(judge.candidates))
        ranked = halve(judge.board, numbers, first, judge.worth, incumbent=start, size=judge.prompt_tokens)
    if second:
        best = ranked[:STRUCTURES]
        pairs = []
        for wording, structure in product(others, best):
            prompt = judge.candidates[structure].prompt.with_instruction(wording.rewrite)
            pairs.append(judge.add(PromptCandidate(shortened(prompt, constraints), wording.source)))
        # The best structure so far is the one to beat; the initial prompt has seen as many rows already.
        ranked = halve(
            judge.board, [*best[1:], *pairs], second, judge.worth, incumbent=best[0], size=judge.prompt_tokens
        )
        ranked += [start] if start not in ranked else []
    return judge.conclude(ranked, start, seed=seed)


class _Judge:
    """Scores candidates on dev rows, and says how good each is by what it has seen."""

    def __init__(
        self, evaluator: Evaluator, examples: Sequence[RewriteExample], *, calls: int, seed: int, calibrate: bool
    ):
        self.candidates: list[PromptCandidate] = []
        self.examples = examples
        self.labels = examples[0].choices or ()
        self.calibrate = calibrate
        self.left_out = evaluator.left_out.reasons
        self._prompt_tokens = cache(lambda candidate: evaluator.prompt_tokens(self.candidates[candidate].prompt))
        self.board: Board[Answer] = Board(self._ask(evaluator), len(examples), seed=seed)
        self._worth: dict[tuple[int, int], float] = {}

    def add(self, candidate: PromptCandidate) -> int:
        """The candidate's number; one that is there already keeps its own."""
        for number, known in enumerate(self.candidates):
            if known.prompt == candidate.prompt:
                return number
        self.candidates.append(candidate)
        return len(self.candidates) - 1

    def _ask(self, evaluator: Evaluator):  # type: ignore[no-untyped-def]
        def ask(candidates: Sequence[int], rows: Sequence[int]) -> list[list[Answer]]:
            prompts = [self.candidates[number].prompt for number in candidates]
            return evaluator.answers(prompts, [self.examples[row] for row in rows])

        return ask

    def worth(self, candidate: int) -> float:
        """The mean log-probability of the right label, or the mean score where labels are not scored.

        It is calibrated where label offsets may be shipped: prompts are compared by what the user will get.
        """
        seen = self.seen(candidate)
        key = candidate, len(seen)
        if key not in self._worth:
            self._worth[key] = float(self._worths(candidate).mean())
        return self._worth[key]

    def _worths(self, candidate: int, rows: int | None = None) -> Floats:
        """The same, row by row, on the first rows."""
        if not self._scored(candidate):
            return np.array([answer.score for _, answer in self.seen(candidate, rows)])
        of_rows = calibrated_logprob if self.calibrate else gold_logprob
        return of_rows(*self._table(candidate, rows))

    def prompt_tokens(self, candidate: int) -> int:
        """Tokens of a candidate without the input; of two that are worth the same the shorter one goes on."""
        return self._prompt_tokens(candidate)

    def seen(self, candidate: int, rows: int | None = None) -> list[tuple[RewriteExample, Answer]]:
        """A candidate's answers to the first rows, less the rows that are left out for all candidates.

        Raises `NoAnswerError` where none is left.
        """
        numbers = self.board.rows_of(candidate)[:rows].tolist()
        pairs = zip((self.examples[number] for number in numbers), self.board.results[candidate], strict=False)
        found = [(example, answer) for example, answer in pairs if example not in self.left_out]
        if not found:
            raise NoAnswerError("none of the first dev rows got an answer, so there is nothing to choose on")
        return found

    def _scored(self, candidate: int) -> bool:
        return bool(self.labels) and all(answer.label_logprobs is not None for _, answer in self.seen(candidate))

    def _table(self, candidate: int, rows: int | None = None):  # type: ignore[no-untyped-def]
        """Label log-probabilities (row, label) and gold labels (row,) of what a candidate has seen."""
        seen = self.seen(candidate, rows)
        targets = [example.targets for example, _ in seen]
        return np.array([answer.label_logprobs for _, answer in seen]), gold_indices(self.labels, targets)

    def offsets(self, candidate: int, *, seed: int) -> Offsets | None:
        """The offsets that suit a candidate; None where labels are not scored."""
        if not self._scored(candidate):
            return None
        return choose_offsets(*self._table(candidate), seed=seed)

    def scores(self, candidate: int, rows: int, offsets: Offsets | None) -> Floats:
        """The scores on the first rows as the prompt would be shipped, each row with offsets found on others."""
        if offsets is None or offsets.method == "none":
            return np.array([answer.score for _, answer in self.seen(candidate, rows)])
        return offsets.right[: len(self.seen(candidate, rows))]

    def leads(self, one: int, other: int, shift: Mapping[int, Offsets | None]) -> bool:
        """Whether `one` is to be taken in place of `other`, a simpler prompt, by the rows that both have seen.

        Where labels are scored there are two witnesses, accuracy and what prompts are ranked by. The leads, each in
        its own standard errors, must add up to more than 0. Elsewhere `one` has to be better by more than a standard
        error.
        """
        rows = self.common(one, other)
        scores = self.scores(one, rows, shift[one]), self.scores(other, rows, shift[other])
        if not (self._scored(one) and self._scored(other)):
            return clearly_better(*scores)
        ranked_by = self._worths(one, rows) - self._worths(other, rows)
        return standard_errors(scores[0] - scores[1]) + standard_errors(ranked_by) > 0

    def common(self, one: int, other: int) -> int:
        """How many of the first rows both candidates have seen."""
        return min(len(self.board.results[one]), len(self.board.results[other]))

    def conclude(self, ranked: Sequence[int], start: int, *, seed: int) -> Found:
        """Ship the best candidate whose changes are worth it on the rows that it and a simpler one have seen.

        Another wording has to be clearly better than the best prompt around the initial wording, and whatever is left
        has to lead the initial prompt. What a reader has to accept must earn its place.
        """
        own = self.candidates[start].prompt.instruction
        winner = ranked[0]
        unworded = next(number for number in ranked if self.candidates[number].prompt.instruction == own)
        shift = {
            number: self.offsets(number, seed=seed) if self.calibrate else None
            for number in dict.fromkeys((start, winner, unworded))
        }
        rows = self.common(winner, unworded)
        worded, plain = (self.scores(number, rows, shift[number]) for number in (winner, unworded))
        if not clearly_better(worded, plain, errors=WORDING_ERRORS):
            winner = unworded
        if not self.leads(winner, start, shift):
            winner = start
        rows = self.common(winner, start)
        before, after = self.scores(start, rows, None), self.scores(winner, rows, shift[winner])
        shipped = {
            number: _with_offsets(self.candidates[number].prompt, self.labels, shift[number]) for number in shift
        }
        chosen_offsets = shift[winner]
        return Found(
            prompt=shipped[winner],
            initial=self.candidates[start].prompt,
            calibrated_initial=shipped[start],
            source=self.candidates[winner].source,
            calls=self.board.calls,
            rows=len(before),
            dev_scores={"initial": float(before.mean()), "prompt": float(after.mean())},
            offsets=chosen_offsets.method if chosen_offsets is not None else "none",
            events=tuple(self._events(winner)),
        )

    def _events(self, winner: int) -> list[dict[str, Any]]:
        return [
            {
                "index": number,
                "source": candidate.source,
                "prompt": candidate.prompt.to_json(),
                "rows": len(seen),
                "worth": round(self.worth(number), 6),
                "score": float(np.mean([answer.score for _, answer in seen])),
                "chosen": number == winner,
            }
            for number, candidate in enumerate(self.candidates)
            if self.board.results.get(number) and (seen := self.seen(number))
        ]


def _with_offsets(prompt: TaskPrompt, labels: Sequence[str], offsets: Offsets | None) -> TaskPrompt:
    if offsets is None or offsets.method == "none":
        return prompt
    return replace(prompt, label_offsets=tuple(zip(labels, np.round(offsets.values, 6).tolist(), strict=True)))
