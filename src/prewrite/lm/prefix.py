"""Prompts that begin with the same tokens, so that an engine computes those once. Over token ids, never strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class PrefixGroup(NamedTuple):
    """Rows that share their first `shared` tokens."""

    rows: list[int]
    shared: int


def group_by_prefix(token_ids: Sequence[list[int]], keep: Sequence[int]) -> list[PrefixGroup]:
    """Sort rows by their tokens and cut them into runs that share a beginning, whatever order they come in.

    So several rewrites on the same inputs share the instruction where the template begins with it, and the input
    where it begins with that. The last `keep[row]` tokens of a row are never shared. A row may make the beginning that
    its run shares shorter; it joins only if it saves more tokens than the rows before it lose by that. Rows that share
    nothing come last, together, with `shared` 0.
    """
    groups: list[PrefixGroup] = []
    alone: list[int] = []

    def close(rows: list[int], shared: int) -> None:
        if len(rows) > 1:
            groups.append(PrefixGroup(rows, shared))
        else:
            alone.extend(rows)

    rows: list[int] = []
    shared = 0
    for row in sorted(range(len(token_ids)), key=lambda row: token_ids[row]):
        ids = token_ids[row]
        longest = len(ids) - keep[row]
        common = _common(token_ids[rows[0]], ids, min(shared, longest)) if rows else 0
        if rows and common > (len(rows) - 1) * (shared - common):
            rows.append(row)
            shared = common
        else:
            close(rows, shared)
            rows, shared = [row], longest
    close(rows, shared)
    return [*groups, PrefixGroup(alone, 0)] if alone else groups


def batches(rows: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows, shortest first, in batches whose padded size stays within `tokens`; `lengths` are those of `rows`."""
    batch: list[int] = []
    for length, row in sorted(zip(lengths, rows, strict=True)):
        if batch and (len(batch) + 1) * length > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _common(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    return next((at for at in range(limit) if a[at] != b[at]), limit)
