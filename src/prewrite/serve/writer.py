"""The rewriter that is served: one question at a time, since it is one model."""

from __future__ import annotations

import threading
from collections.abc import Callable

from prewrite.choosing.candidates import Proposer


class Writer:
    """A proposer that several requests share.

    Args:
        name: what the model is called at the endpoint.
        proposer: writes the rewrites.
        count_tokens: tokens of a text, or an estimate.
    """

    def __init__(self, name: str, proposer: Proposer, count_tokens: Callable[[str], int]):
        self.name = name
        self.count_tokens = count_tokens
        self._proposer = proposer
        self._lock = threading.Lock()

    def greedy(self, instruction: str) -> str:
        """The likeliest rewrite."""
        with self._lock:
            return self._proposer.greedy(instruction)

    def sample_rewrites(self, instruction: str, count: int, *, seed: int) -> list[str]:
        """`count` sampled rewrites."""
        with self._lock:
            return self._proposer.sample_rewrites(instruction, count, seed=seed)
