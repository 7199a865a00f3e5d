"""Prompts and completions as padded blocks, and as one packed list of real tokens for what needs no padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from prewrite.lm.attention import Heads, causal


class Prompts(NamedTuple):
    """Distinct prompts, left-padded, and which of them each row continues."""

    ids: torch.Tensor  # (U, P)
    mask: torch.Tensor  # (U, P), 1 where real
    rows: torch.Tensor  # (B,), index into U


class Completions(NamedTuple):
    """Sampled tokens, right-padded. The token that ends a row, where there is one, counts as sampled."""

    ids: torch.Tensor  # (B, T)
    mask: torch.Tensor  # (B, T), True where sampled

    def token_lists(self) -> list[list[int]]:
        """The sampled tokens of each row."""
        return [ids[mask].tolist() for ids, mask in zip(self.ids, self.mask, strict=True)]


def pad_prompts(
    prompts: Sequence[list[int]], rows: Sequence[int], pad_token_id: int, device: torch.device | str
) -> Prompts:
    """Left-pad token lists to one block."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return Prompts(ids, mask, torch.tensor(list(rows), device=device))


class PackedLayout:
    """Where tokens stand in a packed list of N: those of all prompts, then those of all completions."""

    def __init__(self, prompts: Prompts, completions: Completions, heads: Heads, dtype: torch.dtype):
        prompt_mask, rows = prompts.mask.bool(), prompts.rows
        mask = completions.mask[:, :-1]  # no state is asked for after the last place
        lengths = prompt_mask.sum(1)
        self.prompt_count = int(lengths.sum())
        self.rows = rows
        self.rows_of_prompts = [(rows == prompt).nonzero().squeeze(1) for prompt in range(len(prompt_mask))]
        self.ids = torch.cat([prompts.ids[prompt_mask], completions.ids[:, :-1][mask]])
        after = lengths[rows, None] + torch.arange(mask.shape[1])
        self.positions = torch.cat([(prompt_mask.cumsum(1) - 1)[prompt_mask], after[mask]])
        self.prompts = Padding(prompt_mask)
        self.completions = Padding(mask)
        seen = prompt_mask[:, None] & causal(prompt_mask.shape[1], 0)
        self.prompt_bias = heads.bias_of(seen, dtype)
        seen = torch.cat([prompt_mask[rows], mask], dim=1)[:, None] & causal(mask.shape[1], prompt_mask.shape[1])
        self.completion_bias = heads.bias_of(seen, dtype)
        # The state before a completion's first token is that of the prompt's last; those of the others follow.
        first = self.prompts.places[rows, -1:]
        places = self.completions.places
        beyond = self.prompt_count + self.completions.count
        self.states = torch.cat([first, torch.where(mask, places + self.prompt_count, beyond)], dim=1)

    def gather_states(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (B, T, D): the state before each completion token, and after a row's last; 0 further on."""
        padded = torch.cat([hidden, hidden.new_zeros(1, hidden.shape[1])])
        return padded.index_select(0, self.states.flatten()).view(*self.states.shape, -1)

    def sum_over_rows(self, found: torch.Tensor) -> torch.Tensor:
        """(B, heads, P, size) -> (n, heads, size) of the prompts' tokens: the sum over the rows of each prompt."""
        alone = len(self.rows_of_prompts) == 1
        sums = [(found if alone else found[rows]).sum(0) for rows in self.rows_of_prompts]
        return self.prompts.pack(torch.stack(sums).transpose(1, 2))


class Padding:
    """Between a packed list of tokens and a padded block."""

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.count = int(mask.sum())
        self.full = self.count == mask.numel()
        self.places = (mask.flatten().cumsum(0) - 1).clamp(min=0).view(mask.shape)
        self.flat = mask.flatten().nonzero().squeeze(1)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> (B, T, ...); where there is no token stands another one's entry, which nobody may look at."""
        if not self.full:
            packed = packed.index_select(0, self.places.flatten())
        return packed.view(*self.mask.shape, *packed.shape[1:])

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (n, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.flat)

    def spread(self, packed: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> (B, T, ...), 0 where there is no token: the gradient of what `pack` takes."""
        if self.full:
            return packed.view(*self.mask.shape, *packed.shape[1:])
        padded = packed.new_zeros(self.mask.numel(), *packed.shape[1:])
        return padded.index_copy_(0, self.flat, packed).view(*self.mask.shape, *packed.shape[1:])
