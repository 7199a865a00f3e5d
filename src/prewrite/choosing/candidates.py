"""Candidates: rewrites that may be chosen, and where they come from. Duplicates count as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prewrite.errors import ConfigError

Source = Literal["initial", "greedy", "sample", "rollout", "file"]


class Proposer(Protocol):
    """Anything that proposes rewrites of an instruction; a `Rewriter` is one."""

    def greedy(self, instruction: str) -> str:
        """The most likely rewrite; empty if the completion held none."""
        ...

    def sample_rewrites(self, instruction: str, count: int, *, seed: int) -> list[str]:
        """`count` rewrites at temperature 1, duplicates and empty ones included."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rewrite that may be chosen, and where it came from."""

    rewrite: str
    source: Source
    count: int = 1
    """How often it was proposed; exact duplicates are one candidate under their first source."""


def propose(proposer: Proposer, instruction: str, count: int, *, seed: int = 0) -> list[Candidate]:
    """The initial instruction, the greedy rewrite, then `count` samples; duplicates merged, empty ones dropped."""
    if count < 0:
        raise ConfigError(f"strategy asks for {count} samples; use 0 for the greedy rewrite alone, or more")
    proposed: list[tuple[str, Source]] = [(instruction, "initial"), (proposer.greedy(instruction), "greedy")]
    if count:
        proposed += [(rewrite, "sample") for rewrite in proposer.sample_rewrites(instruction, count, seed=seed)]
    return merge([Candidate(rewrite, source) for rewrite, source in proposed])


def merge(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Exact duplicates as one candidate under their first source; rewrites of white space dropped."""
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        text = candidate.rewrite.strip()
        if text:
            first = kept.get(text, Candidate(candidate.rewrite, candidate.source, 0))
            kept[text] = Candidate(first.rewrite, first.source, first.count + candidate.count)
    return list(kept.values())
