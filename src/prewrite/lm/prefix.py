"""Prompts that begin with the same tokens, so that an engine computes those once. Over token ids, never strings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class PrefixGroup(NamedTuple):
    """Rows that share their first `shared` tokens."""

    rows: list[int]
    shared: int


def group_by_prefix(token_ids: Sequence[list[int]], keep: Sequence[int], *, worth: int = 1) -> list[PrefixGroup]:
    """Sort rows by their tokens and cut them into runs that share a beginning, whatever order they come in.

    So several rewrites on the same inputs share the instruction where the template begins with it, and the input
    where it begins with that. The last `keep[row]` tokens of a row are never shared. A row may make the beginning that
    its run shares shorter; it joins only if it saves more tokens than the rows before it lose by that. Runs that save
    fewer than `worth` tokens, and rows that share nothing, come last, together, with `shared` 0.
    """
    groups: list[PrefixGroup] = []
    alone: list[int] = []

    def close(rows: list[int], shared: int) -> None:
        if (len(rows) - 1) * shared >= worth:
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


def waves(groups: Sequence[PrefixGroup], tokens: int, most: int) -> Iterator[list[PrefixGroup]]:
    """Groups whose beginnings are read in one pass: `most` at most, of `tokens` in all.

    A longer beginning goes alone, and so do rows without one.
    """
    wave: list[PrefixGroup] = []
    for group in groups:
        ends = wave and (len(wave) == most or sum(g.shared for g in wave) + group.shared > tokens)
        if ends or (wave and not group.shared):
            yield wave
            wave = []
        wave.append(group)
    if wave:
        yield wave


def batches(
    wave: Sequence[PrefixGroup], lengths: Sequence[int] | Mapping[int, int], tokens: int
) -> Iterator[list[list[int]]]:
    """The rows of each group of a wave that go through together, a padded size of at most `tokens` at a time.

    A group's rows come shortest first; its list is empty where it has none in a batch. `lengths` are the tokens of all
    rows without the beginnings.
    """
    batch: list[list[int]] = [[] for _ in wave]
    count = longest = 0
    for number, group in enumerate(wave):
        for row in sorted(group.rows, key=lambda row: (lengths[row], row)):
            if count and (count + 1) * max(longest, lengths[row]) > tokens:
                yield batch
                batch, count, longest = [[] for _ in wave], 0, 0
            batch[number].append(row)
            count, longest = count + 1, max(longest, lengths[row])
    if count:
        yield batch


def _common(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    return next((at for at in range(limit) if a[at] != b[at]), limit)
