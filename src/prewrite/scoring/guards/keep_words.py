"""Labels that a rewrite must not lose."""

from __future__ import annotations

from prewrite.scoring.guards.context import GuardContext


def keep_words(rewrite: str, context: GuardContext) -> float:
    """Share of the labels named by the instruction that the rewrite lacks; whole words count, in any case."""
    missing = sum(not pattern.search(rewrite) for pattern in context.protected)
    return missing / len(context.protected) if missing else 0.0
