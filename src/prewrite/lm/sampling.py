"""Continuing prompts: one loop for the rewriter, which samples, and for a task model, which writes greedily.

On a CPU the model runs as `llama.Llama`. A policy's packed weights are made for each call of `sample`, since the
policy has changed by the next; that costs about as much as 8 of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from prewrite.lm.packing import Prompts
from prewrite.lm.trunk import SOFTMAX_ROWS, Cache, Trunk, open_trunk

SHRINK = 0.75  # rows that have ended leave the batch when no more than this share is still running


class Start(NamedTuple):
    """Rows whose prompts the model has read, ready to be continued."""

    state: torch.Tensor  # (B, D), after each row's last token
    cache: Cache  # of B rows, with room for what is written
    positions: torch.Tensor  # (B,), of each row's next token
    seen: torch.Tensor | None  # (B, S), which cached tokens a row may look at; None: all


@torch.no_grad()
def write(
    trunk: Trunk,
    start: Start,
    choose: Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_token_id: int,
    observe: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, max_new_tokens), padded at the right, and where tokens were written; a row's end counts too.

    Rows that have ended are taken out of the batch a few at a time, since they cost as much as running ones.
    `choose(step, rows, running, logits)`, with logits in the model's dtype, gives the next token of each of `rows`,
    those still in the batch; only tokens of `running` ones are kept. `observe(step, rows, states)` is shown the state
    before each token, and each row's state after its end.
    """
    state, cache, positions, seen = start
    count, device = len(state), state.device
    tokens = torch.full((count, max_new_tokens), pad_token_id, device=device)
    written = torch.zeros((count, max_new_tokens), dtype=torch.bool, device=device)
    ends = torch.tensor(list(end_ids), dtype=torch.long, device=device)
    rows = torch.arange(count, device=device)  # those still in the batch
    running = torch.ones(count, dtype=torch.bool, device=device)  # of those, the ones without an end
    for step in range(max_new_tokens):
        if observe is not None:
            observe(step, rows, state)
        if not bool(running.any()):
            break
        token = choose(step, rows, running, trunk.lm_head(state))
        tokens[rows[running], step], written[rows[running], step] = token[running], True
        still = running & ~torch.isin(token, ends)
        stays = still if observe is None else running  # one that is observed stays for a step after its end
        running = still
        if step + 1 == max_new_tokens or not bool(stays.any()):
            break
        if stays.sum() <= SHRINK * len(rows):
            rows, running, token, positions = rows[stays], running[stays], token[stays], positions[stays]
            cache = cache.select(stays.nonzero().squeeze(1), room=max_new_tokens - step - 1)
            seen = None if seen is None else seen[stays]
        if seen is not None:
            seen = torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1)
        state = trunk(token[:, None], positions[:, None], cache, seen)[:, -1]
        positions = positions + 1
    return tokens, written


def write_greedily(trunk: Trunk, start: Start, **settings: Any) -> list[list[int]]:
    """The likeliest token each time; the ids of each row, its end too. `settings` are those of `write`."""
    tokens, written = write(trunk, start, lambda step, rows, running, logits: logits.argmax(-1), **settings)
    return [ids[kept].tolist() for ids, kept in zip(tokens, written, strict=True)]


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
    prompts: Prompts,
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_token_id: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Sampled:
    """One completion for each of `prompts.rows`; `temperature` 0 is greedy.

    A row ends at the first of `end_ids`. Its tokens depend on its place among `rows` and the generator's state, not on
    when other rows end.
    """
    ids, mask, rows = prompts
    count, device = len(rows), ids.device
    trunk = open_trunk(model, rows=count)
    cache = trunk.new_cache(*ids.shape)
    padded = not bool(mask.all())
    state = trunk(ids, positions_of(mask), cache, mask if padded else None, keep=1)[rows, -1]
    if len(ids) == 1 and not padded:  # all rows go on from the one prompt, whose keys and values stay where they are
        cache = cache.branch([ids.shape[1]], [count], room=max_new_tokens)
    else:
        cache = cache.select(rows, room=max_new_tokens)
    start = Start(state, cache, mask.sum(1)[rows], mask[rows] if padded else None)
    logprobs, entropy, values = torch.zeros((3, count, max_new_tokens), device=device)

    def observe(step: int, here: torch.Tensor, states: torch.Tensor) -> None:
        values[here, step] = value_model(states).squeeze(-1)  # PPO wants the value after a row's end too

    def choose(step: int, here: torch.Tensor, running: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(count, 1, device=device, generator=generator)[here]
        choice = pick(logits, temperature, uniform)
        at = here[running]
        logprobs[at, step], entropy[at, step] = choice.logprob[running], choice.entropy[running]
        return choice.token

    tokens, sampled = write(
        trunk,
        start,
        choose,
        max_new_tokens=max_new_tokens,
        end_ids=end_ids,
        pad_token_id=pad_token_id,
        observe=observe,
    )
    lengths = sampled.sum(1)
    width = min(int(lengths.max()) + 1, max_new_tokens)
    known = torch.arange(max_new_tokens, device=device) <= lengths[:, None]
    parts = (tokens, sampled, logprobs, entropy, values.masked_fill(~known, 0.0))
    return Sampled(*(part[:, :width] for part in parts))


class Picked(NamedTuple):
    """A sampled token per row, its log-probability, and the entropy of the distribution in nats; (B,) each."""

    token: torch.Tensor
    logprob: torch.Tensor
    entropy: torch.Tensor


def pick(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> Picked:
    """Sample from logits (B, V) by uniform numbers (B, 1) in [0, 1); `temperature` 0 takes the highest.

    In fp32, on a CPU a few rows at a time, so that they stay in its cache.
    """
    size = SOFTMAX_ROWS if logits.device.type == "cpu" else len(logits)
    few = (rows.split(size) for rows in (logits, uniform))
    parts = [_pick(some.float(), temperature, numbers) for some, numbers in zip(*few, strict=True)]
    return Picked(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _pick(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> Picked:
    """Inverting the distribution function needs one random number a row; torch.multinomial draws one a token."""
    if temperature not in (0, 1):
        logits = logits / temperature
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = shifted.exp()
    total = weights.sum(-1, keepdim=True)
    norm = total.log()
    entropy = (norm - torch.linalg.vecdot(weights, shifted)[:, None] / total).squeeze(1)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        cumulative = torch.cumsum(weights, -1, out=weights)
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
        token = token.clamp(max=logits.shape[-1] - 1)
    return Picked(token, (shifted.gather(1, token[:, None]) - norm).squeeze(1), entropy)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Positions of left-padded tokens; (U, P) -> (U, P)."""
    return (mask.cumsum(1) - 1).clamp(min=0)
