"""Sampling from a policy: one loop over two engines, and what sampling already knows about the sampled tokens.

On a CPU in fp32 the engine is `task_models.llama` over merged, packed weights, built for each call, since the policy
has changed by the next. Elsewhere it is the transformers model itself.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import nn
from transformers import DynamicCache

from prewrite.task_models.llama import Cache, Llama, is_supported

SHRINK = 0.75  # rows that have ended leave the batch when no more than this share is still running


class Engine(Protocol):
    """A model on its way through the rows' tokens."""

    def prefill(self, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, room: int) -> torch.Tensor:
        """Run left-padded prompts (U, P) once, for rows (B,) that continue them; the rows' last states (B, D)."""
        ...

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """One more token per row; (B,) -> (B, D)."""
        ...

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows only."""
        ...

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, V), fp32."""
        ...


class FastEngine:
    """`task_models.llama` over merged and packed weights."""

    def __init__(self, model: nn.Module, rows: int):
        self.llama = Llama(model, rows=rows)

    def prefill(self, ids, mask, rows, room):
        padded = not bool(mask.all())
        cache = self.llama.new_cache(*ids.shape)
        hidden = self.llama(ids, positions_of(mask), cache, mask if padded else None, keep=1)
        self.cache: Cache = cache.select(rows, room=room)
        self.mask = mask[rows] if padded else None
        self.positions = mask.sum(1)[rows]
        return hidden[rows, -1]

    def step(self, tokens):
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        state = self.llama(tokens[:, None], self.positions[:, None], self.cache, self.mask)[:, -1]
        self.positions = self.positions + 1
        return state

    def select(self, rows):
        room = self.cache.keys[0].shape[2] - self.cache.length
        self.cache = self.cache.select(rows, room=room)
        self.positions = self.positions[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def logits(self, states):
        return self.llama.lm_head(states)


class TransformersEngine:
    """The transformers model as it is."""

    def __init__(self, model: nn.Module):
        self.model = model

    def prefill(self, ids, mask, rows, room):
        cache = DynamicCache()
        hidden = self._trunk(ids, mask, positions_of(mask), cache)
        cache.batch_select_indices(rows)
        self.cache, self.mask, self.positions = cache, mask[rows], mask.sum(1)[rows]
        return hidden[rows, -1]

    def step(self, tokens):
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        state = self._trunk(tokens[:, None], self.mask, self.positions[:, None], self.cache)[:, -1]
        self.positions = self.positions + 1
        return state

    def select(self, rows):
        self.cache.batch_select_indices(rows)
        self.mask, self.positions = self.mask[rows], self.positions[rows]

    def logits(self, states):
        return self.model.lm_head(states).float()

    def _trunk(self, ids, mask, positions, cache) -> torch.Tensor:
        output = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state


class Sampled(NamedTuple):
    """Sampled tokens and the model's view of them; T is the longest row's length, plus one where there is room."""

    ids: torch.Tensor  # (B, T), right-padded; the end-of-sequence token, where there is one, counts as sampled
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
    eos_token_id: int,
    pad_token_id: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Sampled:
    """One completion for each of `rows`, which continue left-padded prompts `ids`; `temperature` 0 is greedy.

    A row's tokens depend on its place among `rows` and the generator's state, not on when other rows end.
    """
    count, device = len(rows), ids.device
    engine: Engine = FastEngine(model, count) if is_fast(model) else TransformersEngine(model)
    tokens = torch.full((count, max_new_tokens), pad_token_id, device=device)
    sampled = torch.zeros((count, max_new_tokens), dtype=torch.bool, device=device)
    logprobs, entropy, values = torch.zeros((3, count, max_new_tokens), device=device)

    state = engine.prefill(ids, mask, rows, max_new_tokens)
    here = torch.arange(count, device=device)  # the rows still in the batch
    running = torch.ones(count, dtype=torch.bool, device=device)  # of those, the ones without an end
    for step in range(max_new_tokens):
        # A row stays for one step after its end: PPO wants the value of the state there.
        values[here, step] = value_model(state).squeeze(-1)
        if not bool(running.any()):
            break
        uniform = torch.rand(count, 1, device=device, generator=generator)[here]
        choice = pick(engine.logits(state), temperature, uniform)
        at = here[running]
        tokens[at, step], sampled[at, step] = choice.token[running], True
        logprobs[at, step], entropy[at, step] = choice.logprob[running], choice.entropy[running]
        if step + 1 == max_new_tokens:
            break
        stays = running
        running = running & (choice.token != eos_token_id)
        token = choice.token
        if stays.sum() <= SHRINK * len(here):  # ended rows cost as much as running ones
            here, running, token = here[stays], running[stays], token[stays]
            engine.select(stays.nonzero().squeeze(1))
        state = engine.step(token)
    lengths = sampled.sum(1)
    width = min(int(lengths.max()) + 1, max_new_tokens)
    known = torch.arange(max_new_tokens, device=device) <= lengths[:, None]
    parts = (tokens, sampled, logprobs, entropy, values.masked_fill(~known, 0.0))
    return Sampled(*(part[:, :width] for part in parts))


def is_fast(model: nn.Module) -> bool:
    """Whether the fast engine runs `model`; its log-probabilities are then exact to fp32 rounding."""
    return is_supported(model) and not torch.is_autocast_enabled("cpu")


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
