"""Sampling from a policy, and what sampling already knows about the sampled tokens.

On a CPU the model runs as `task_models.llama` over packed weights. They are made for each call, since the policy has
changed by the next; that costs about as much as 8 of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from prewrite.lm.trunk import open_trunk

SHRINK = 0.75  # rows that have ended leave the batch when no more than this share is still running


class Sampled(NamedTuple):
    """Sampled tokens and the model's view of them; T is the longest row's length, plus one where there is room."""

    ids: torch.Tensor  # (B, T), right-padded; the token that ends a row, where there is one, counts as sampled
    mask: torch.Tensor  # (B, T), True where sampled
    logprobs: torch.Tensor  # (B, T), of the sampled tokens; 0 where padded
    entropy: torch.Tensor  # (B, T), of the distribution of each sampled token, in nats; 0 where padded
    values: torch.Tensor  # (B, T), of the state before each token, and of the state after a row's last; else 0


@torch.no_grad()
def sample(
    model: nn.Module,
    value_model: nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    rows: torch.Tensor,
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_token_id: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Sampled:
    """One completion for each of `rows`, which continue left-padded prompts `ids`; `temperature` 0 is greedy.

    A row ends at the first of `end_ids`. A row's tokens depend on its place among `rows` and
    the generator's state, not on when other rows end.
    """
    count, device = len(rows), ids.device
    trunk = open_trunk(model, rows=count)
    tokens = torch.full((count, max_new_tokens), pad_token_id, device=device)
    sampled = torch.zeros((count, max_new_tokens), dtype=torch.bool, device=device)
    logprobs, entropy, values = torch.zeros((3, count, max_new_tokens), device=device)

    cache = trunk.new_cache(*ids.shape)
    padded = not bool(mask.all())
    state = trunk(ids, positions_of(mask), cache, mask if padded else None, keep=1)[rows, -1]
    cache = cache.select(rows, room=max_new_tokens)
    positions = mask.sum(1)[rows]
    seen = mask[rows] if padded else None  # (B, S), what each row may look at; None: everything
    here = torch.arange(count, device=device)  # the rows still in the batch
    running = torch.ones(count, dtype=torch.bool, device=device)  # of those, the ones without an end
    ends = torch.tensor(end_ids, dtype=torch.long, device=device)
    for step in range(max_new_tokens):
        # A row stays for one step after its end: PPO wants the value of the state there.
        values[here, step] = value_model(state).squeeze(-1)
        if not bool(running.any()):
            break
        uniform = torch.rand(count, 1, device=device, generator=generator)[here]
        choice = pick(trunk.lm_head(state).float(), temperature, uniform)
        at = here[running]
        tokens[at, step], sampled[at, step] = choice.token[running], True
        logprobs[at, step], entropy[at, step] = choice.logprob[running], choice.entropy[running]
        if step + 1 == max_new_tokens:
            break
        stays = running
        running = running & ~torch.isin(choice.token, ends)
        token = choice.token
        if stays.sum() <= SHRINK * len(here):  # ended rows cost as much as running ones
            here, running, token, positions = here[stays], running[stays], token[stays], positions[stays]
            cache = cache.select(stays.nonzero().squeeze(1), room=max_new_tokens - step - 1)
            seen = None if seen is None else seen[stays]
        if seen is not None:
            seen = torch.cat([seen, seen.new_ones(len(here), 1)], dim=1)
        state = trunk(token[:, None], positions[:, None], cache, seen)[:, -1]
        positions = positions + 1
    lengths = sampled.sum(1)
    width = min(int(lengths.max()) + 1, max_new_tokens)
    known = torch.arange(max_new_tokens, device=device) <= lengths[:, None]
    parts = (tokens, sampled, logprobs, entropy, values.masked_fill(~known, 0.0))
    return Sampled(*(part[:, :width] for part in parts))


class Choice(NamedTuple):
    """A sampled token per row, its log-probability, and the entropy of the distribution in nats; (B,) each."""

    token: torch.Tensor
    logprob: torch.Tensor
    entropy: torch.Tensor


def pick(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> Choice:
    """Sample from logits (B, V) by uniform numbers (B, 1) in [0, 1); `temperature` 0 takes the highest.

    Inverting the distribution function needs one random number a row; torch.multinomial draws one a token.
    """
    if temperature not in (0, 1):
        logits = logits / temperature
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    total = weights.sum(-1, keepdim=True)
    entropy = (total.log() + top - (weights * logits).sum(-1, keepdim=True) / total).squeeze(1)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        cumulative = weights.cumsum(-1)
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
        token = token.clamp(max=logits.shape[-1] - 1)
    logprob = (logits.gather(1, token[:, None]) - top - total.log()).squeeze(1)
    return Choice(token, logprob, entropy)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Positions of left-padded tokens; (U, P) -> (U, P)."""
    return (mask.cumsum(1) - 1).clamp(min=0)
