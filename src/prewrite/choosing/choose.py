"""Choosing a rewrite of one instruction on dev rows: propose, refuse what guards refuse, let the rest race.

Training, its control and `prewrite rewrite` all choose here, so that what they choose compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prewrite.choosing.candidates import Candidate, Proposer, merge, propose
from prewrite.choosing.race import Selection, select
from prewrite.scoring.rewards import TaskReward
from prewrite.types import RewriteExample

MORE_DRAWS = 5
"""How often a proposer is asked for further samples until enough of them compete."""


class Choice(NamedTuple):
    """A chosen rewrite, and how it came to be chosen."""

    selection: Selection
    refused: list[dict[str, Any]]
    """A row of `rewrites.jsonl` for each candidate that a guard kept out of the race."""
    rows: list[dict[str, Any]]
    """Every decision of the race, for `rewrites.jsonl`; candidates with their fidelity."""

    @property
    def rewrite(self) -> str:
        """The chosen rewrite."""
        return self.selection.rewrite


def choose_rewrite(
    instruction: str,
    proposer: Proposer,
    reward: TaskReward,
    examples: Sequence[RewriteExample],
    *,
    num_candidates: int = 10,
    remembered: Sequence[Candidate] = (),
    num_competitors: int | None = None,
    race: bool = True,
    practical_delta: float = 0.01,
    max_items: int | None = None,
    complete: bool = False,
    seed: int = 0,
) -> Choice:
    """The best of the initial instruction, the greedy rewrite, `num_candidates` samples and `remembered` ones.

    Candidates on which a guard of `reward` fires do not compete; the others are scored on `examples`. `race`,
    `practical_delta`, `max_items`, `complete` and `seed` are as in `select`.

    `num_competitors` makes two choices compare; see `competitors`.
    """
    competing, refused = competitors(
        instruction,
        proposer,
        reward,
        examples,
        num_candidates=num_candidates,
        remembered=remembered,
        num_competitors=num_competitors,
        seed=seed,
    )
    selection = select(
        competing,
        reward.evaluator.score,
        examples,
        race=race,
        practical_delta=practical_delta,
        max_items=max_items,
        complete=complete,
        seed=seed,
    )
    return Choice(selection, refused, _with_fidelity(selection.rows, reward, instruction))


def competitors(
    instruction: str,
    proposer: Proposer,
    reward: TaskReward,
    examples: Sequence[RewriteExample],
    *,
    num_candidates: int,
    remembered: Sequence[Candidate] = (),
    num_competitors: int | None = None,
    seed: int = 0,
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """The initial instruction and the rewrites that no guard refuses, and a row for each that one does.

    With `num_competitors` exactly so many compete, the initial instruction among them. Where fewer are left the
    proposer is asked for more samples, `MORE_DRAWS` times at most; the last ones too many stay out.
    """
    proposed = merge([*propose(proposer, instruction, num_candidates, seed=seed), *remembered])
    competing, refused = split_by_guards(proposed, reward, instruction, examples)
    if num_competitors is not None:
        for draw in range(1, MORE_DRAWS + 1):
            if len(competing) >= num_competitors:
                break
            samples = proposer.sample_rewrites(instruction, num_competitors, seed=seed + draw)
            proposed = merge([*proposed, *(Candidate(text, "sample") for text in samples)])
            competing, refused = split_by_guards(proposed, reward, instruction, examples)
        competing = competing[:num_competitors]
    return competing, refused


def most_calls(candidates: int, examples: int, *, max_items: int | None = None, complete: bool = False) -> int:
    """The most task-model calls that choosing among so many candidates takes; arguments as in `choose_rewrite`."""
    raced = examples if max_items is None else min(max_items, examples)
    return candidates * raced + (2 * (examples - raced) if complete else 0)


def split_by_guards(
    candidates: Sequence[Candidate], reward: TaskReward, instruction: str, examples: Sequence[RewriteExample]
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Candidates on which every guard is silent, and a `rewrites.jsonl` row for each refused one.

    The initial instruction is never refused.
    """
    kept, refused = [], []
    fidelities = reward.fidelities([candidate.rewrite for candidate in candidates], instruction)
    for candidate, fidelity in zip(candidates, fidelities, strict=True):
        penalties = reward.penalties(candidate.rewrite, instruction, examples)
        if penalties and candidate.source != "initial":
            refused.append({"event": "refused", **asdict(candidate), "guards": penalties, "fidelity": fidelity})
        else:
            kept.append(candidate)
    return kept, refused


def _with_fidelity(rows: Sequence[dict[str, Any]], reward: TaskReward, instruction: str) -> list[dict[str, Any]]:
    return [
        row | {"fidelity": reward.fidelities([row["rewrite"]], instruction)[0]} if row["event"] == "candidate" else row
        for row in rows
    ]
