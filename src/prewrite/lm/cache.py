"""Keys and values of the tokens that a model has read: each row's own, and those that neighbouring rows share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch


class Stem(NamedTuple):
    """What `rows` neighbouring rows begin with: keys and values (key heads, P, size) of each layer, held once."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    rows: int


class Cache:
    """A block (B, key heads, capacity, head size) of keys and one of values per layer, of each row's own tokens.

    Without stems a row's own tokens are all there are. `length` counts own tokens only.
    """

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor], length: int, stems: Sequence[Stem] = ()):
        self.keys, self.values, self.length, self.stems = keys, values, length, stems

    def branch(self, lengths: Sequence[int], counts: Sequence[int], *, room: int) -> Cache:
        """A cache for `counts[i]` rows that go on from the first `lengths[i]` tokens of row `i`, for all i in turn.

        Each of them has room for `room` tokens of its own. Nothing is copied.
        """
        stems = [
            Stem([k[row, :, :length] for k in self.keys], [v[row, :, :length] for v in self.values], count)
            for row, (length, count) in enumerate(zip(lengths, counts, strict=True))
            if count
        ]

        def own(block: torch.Tensor) -> torch.Tensor:
            return _heads_first(block, sum(counts), room)

        return Cache([own(block) for block in self.keys], [own(block) for block in self.values], 0, stems)

    def select(self, rows: torch.Tensor, *, room: int = 0) -> Cache:
        """A copy of some rows with room for `room` more tokens; with repetitions only where there are no stems.

        With stems `rows` are in ascending order.
        """
        length = self.length

        def copy(block: torch.Tensor) -> torch.Tensor:
            new = _heads_first(block, len(rows), length + room)
            new[:, :, :length] = block[rows, :, :length]
            return new

        stems = []
        if self.stems:
            owners = torch.repeat_interleave(torch.tensor([stem.rows for stem in self.stems]))[rows]
            counts = torch.bincount(owners, minlength=len(self.stems)).tolist()
            stems = [stem._replace(rows=count) for stem, count in zip(self.stems, counts, strict=True) if count]
        return Cache([copy(block) for block in self.keys], [copy(block) for block in self.values], length, stems)

    def crop(self, length: int) -> None:
        """Forget the own tokens after the first `length`."""
        self.length = length

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a layer's keys and values (B, heads, T, size); returns those of all own tokens. `length` stays."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def shared(self, layer: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """The rows of each stem, and its keys and values (key heads, P, size) in a layer."""
        start = 0
        for stem in self.stems:
            yield slice(start, start + stem.rows), stem.keys[layer], stem.values[layer]
            start += stem.rows


def _heads_first(block: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
    """An empty (rows, key heads, capacity, head size) for more of what `block` holds; in memory the heads come first.

    Attention multiplies the queries of all rows by a stem's keys head by head, and wants their own keys in that order.
    """
    _, heads, _, size = block.shape
    return block.new_empty(heads, rows, capacity, size).transpose(0, 1)
