"""A rewriter as the author of proposals in GEPA, another search for prompts (the package `gepa`).

gepa.optimize(..., custom_candidate_proposer=RewriterProposer(rewriter))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prewrite.choosing.candidates import Proposer
from prewrite.errors import ConfigError

DRAWS = 8
"""Rewrites that are sampled at once, of which GEPA gets the first that it has not had."""


class RewriterProposer:
    """Gives GEPA rewrites of the texts that it wants to change.

    Args:
        rewriter: a trained rewriter (`Rewriter.load("runs/first")`), or anything else with `sample_rewrites`.
        seed: of the samples; each request draws others.

    A rewriter reads the text alone: what GEPA has noted about wrong answers is not used.
    """

    def __init__(self, rewriter: Proposer, *, seed: int = 0):
        self.rewriter, self.seed = rewriter, seed
        self.requests = 0
        self.proposed: set[str] = set()

    def __call__(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """A new text for each of the components; the same one where the rewriter has nothing new to say."""
        return {name: self._rewrite(candidate[name]) for name in components_to_update}

    def _rewrite(self, text: str) -> str:
        if not text.strip():
            raise ConfigError(
                "GEPA asks for a rewrite of an empty text; every component of the seed candidate needs one"
            )
        drawn = self.rewriter.sample_rewrites(text, DRAWS, seed=self.seed + self.requests)
        self.requests += 1
        new = [rewrite for rewrite in drawn if rewrite.strip() and rewrite != text and rewrite not in self.proposed]
        self.proposed |= set(new[:1])
        return new[0] if new else text
