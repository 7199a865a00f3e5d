"""Prompts and completions as one packed list of real tokens, which is padded only where tokens look at each other."""

from __future__ import annotations

from typing import Any

import torch

from prewrite.lm.attention import Heads, causal


class Layout:
    """Where tokens stand in a packed list of N: those of all prompts, then those of all completions."""

    def __init__(self, prompts: Any, completions: Any, heads: Heads, dtype: torch.dtype):
        prompt_mask, rows = prompts.mask.bool(), prompts.rows
        mask = completions.mask[:, :-1]  # no state is asked for after the last place
        lengths = prompt_mask.sum(1)
        self.prompt_count = int(lengths.sum())
        self.rows = rows
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


class Padding:
    """Between a packed list of tokens and a padded block."""

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.count = int(mask.sum())
        self.full = self.count == mask.numel()
        order = (mask.flatten().cumsum(0) - 1).view(mask.shape)
        self.places = torch.where(mask, order, self.count)  # the place after the last holds zeros
        self.flat = mask.flatten().nonzero().squeeze(1)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> (B, T, ...)."""
        if not self.full:
            packed = torch.cat([packed, packed.new_zeros(1, *packed.shape[1:])])
            packed = packed.index_select(0, self.places.flatten())
        return packed.view(*self.mask.shape, *packed.shape[1:])

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (n, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.flat)
