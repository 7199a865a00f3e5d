"""The rewriter as a policy: a causal language model with a value head, sampling, and log-probabilities.

All rollouts of an instruction share one prompt, so the prompt goes through the model once and its keys and values are
shown to every row. Gradients flow through them: what is computed is the same function as with full sequences, and
`tests/rewriter/test_policy.py` holds it to that. Only completion tokens reach the vocabulary projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from prewrite.lm import lora, sampling
from prewrite.lm.packing import Completions, Prompts
from prewrite.lm.trunk import backbone, logits_of, runs_fast

LOGIT_CHUNK = 256  # completion tokens whose logits are held at once: 256 x 49,152 x 4 bytes = 50 MB for SmolLM2


class TokenStats(NamedTuple):
    """Per completion token; 0 where padded."""

    logprobs: torch.Tensor  # (B, T), of the sampled tokens
    values: torch.Tensor  # (B, T), of the state before each token
    entropy: torch.Tensor  # (B, T), in nats, without gradient


class PolicyWithValueHead(nn.Module):
    """A policy and its value head on one trunk.

    Everything heavy happens in `forward`, so that autocast and DDP, which wrap `forward`, apply to all of it; and old,
    reference and new log-probabilities come from this one function, so that the PPO ratio of the first epoch is 1.
    It takes the place of TRL's `PolicyAndValueWrapper` and has its attributes.
    """

    def __init__(self, policy: nn.Module, value_model: nn.Module):
        super().__init__()
        self.policy = policy
        self.value_model = value_model
        self.is_gradient_checkpointing = False

    def forward(
        self, prompts: Prompts, completions: Completions, *, temperature: float = 1.0, use_adapter: bool = True
    ) -> TokenStats:
        """Score `completions` under the policy, or under the reference (`use_adapter=False`) with PEFT."""
        with nullcontext() if use_adapter else self.policy.disable_adapter():
            states = self._states(prompts, completions)  # (B, T, D): the state before each completion token
            values = self.value_model(states).squeeze(-1)
            mask = completions.mask
            logprobs, entropy = self._token_logprobs(states[mask], completions.ids[mask], temperature)
        zeros = torch.zeros_like(values)
        return TokenStats(zeros.masked_scatter(mask, logprobs), values, zeros.masked_scatter(mask, entropy.detach()))

    @property
    def language_model(self) -> nn.Module:
        """The causal language model inside the PEFT wrapper, adapters included."""
        return self.policy.get_base_model() if hasattr(self.policy, "get_base_model") else self.policy

    def _trunk(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        output = backbone(self.language_model)(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state

    def _prefill(self, prompts: Prompts) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
        """Run the distinct prompts once; returns the rows' last states (B, D), cache and prompt lengths (B,)."""
        cache = DynamicCache()
        hidden = self._trunk(prompts.ids, prompts.mask, sampling.positions_of(prompts.mask), cache)
        rows_cache = DynamicCache()
        for layer, keys_values in enumerate(cache):
            keys, values = keys_values[:2]
            rows_cache.update(keys[prompts.rows], values[prompts.rows], layer)
        return hidden[prompts.rows, -1], rows_cache, prompts.mask.sum(1)[prompts.rows]

    def _states(self, prompts: Prompts, completions: Completions) -> torch.Tensor:
        if lora.computes(self.language_model):
            return lora.completion_states(self.language_model, prompts, completions)
        last, cache, lengths = self._prefill(prompts)
        ids, mask = completions.ids[:, :-1], completions.mask[:, :-1]
        if ids.shape[1] == 0:
            return last[:, None]
        full_mask = torch.cat([prompts.mask[prompts.rows], mask.to(prompts.mask.dtype)], dim=1)
        positions = lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        hidden = self._trunk(ids, full_mask, positions, cache)
        return torch.cat([last[:, None], hidden], dim=1)

    def _token_logprobs(
        self, states: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy per token; (N, D), (N,) -> (N,), (N,). Logits live one chunk at a time."""
        if lora.computes(self.language_model):
            weight = self.language_model.lm_head.weight.detach()
            return lora.token_logprobs(weight, states, tokens, temperature, LOGIT_CHUNK)

        def chunk(some_states: torch.Tensor, some_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = logits_of(self.language_model, some_states).float() / temperature
            log_softmax = logits.log_softmax(-1)
            entropy = -(log_softmax.detach().exp() * log_softmax.detach()).sum(-1)
            return log_softmax.gather(1, some_tokens[:, None]).squeeze(1), entropy

        parts = []
        for at in range(0, len(tokens), LOGIT_CHUNK):
            some = states[at : at + LOGIT_CHUNK], tokens[at : at + LOGIT_CHUNK]
            keep_graph = torch.is_grad_enabled()
            parts.append(checkpoint(chunk, *some, use_reentrant=False) if keep_graph else chunk(*some))
        return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])

    def sample(
        self,
        prompts: Prompts,
        *,
        max_new_tokens: int,
        end_ids: Sequence[int],
        pad_token_id: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Completions:
        """One completion per row, from the untruncated distribution; `temperature` 0 is greedy."""
        completions, _ = self.sample_scored(
            prompts,
            max_new_tokens=max_new_tokens,
            end_ids=end_ids,
            pad_token_id=pad_token_id,
            temperature=temperature,
            generator=generator,
        )
        width = int(completions.mask.sum(1).max())
        return Completions(completions.ids[:, :width], completions.mask[:, :width])

    def sample_scored(
        self, prompts: Prompts, *, temperature: float = 1.0, **settings: Any
    ) -> tuple[Completions, TokenStats | None]:
        """Completions, with one column after the longest where there is room, and what `forward` would say of them.

        Sampling knows each token's log-probability already. Where it computes the same function as `forward` up to
        fp32 rounding, that is returned; elsewhere (bf16) None.
        """
        model = self.language_model
        sampled = sampling.sample(model, self.value_model, prompts, temperature=temperature, **settings)
        completions = Completions(sampled.ids, sampled.mask)
        exact = runs_fast(model) and model.dtype == torch.float32 and temperature > 0
        return completions, TokenStats(sampled.logprobs, sampled.values, sampled.entropy) if exact else None


@contextmanager
def in_eval_mode(policy: PolicyWithValueHead) -> Iterator[PolicyWithValueHead]:
    """`policy` without dropout or anything else that differs in training; its model's mode is put back afterwards."""
    training = policy.policy.training
    try:
        yield policy.eval()
    finally:
        policy.policy.train(training)


class ValueHead(nn.Module):
    """A linear value of a state, in fp32; starts at 0, so that the first advantages are the rewards themselves."""

    base_model_prefix = "trunk"  # TRL asks a value model for it; the trunk is the policy's own

    def __init__(self, hidden_size: int):
        super().__init__()
        self.score = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    @classmethod
    def of(cls, model: nn.Module) -> ValueHead:
        """A new head for the states of a causal language model, on its device."""
        return cls(model.config.get_text_config().hidden_size).to(model.device)

    def forward(self, states: torch.Tensor) -> torch.Tensor:  # (..., D) -> (..., 1)
        with torch.autocast(states.device.type, enabled=False):
            return self.score(states.float())
