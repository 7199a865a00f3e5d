"""TRL's group trainers with each prompt read once: the rewrites of one instruction share its meta prompt.

TRL's GRPO and RLOO read the whole prompt again for every rewrite, in sampling, in scoring and in each pass of an
update, and a meta prompt is several times as long as a rewrite. Two of TRL's methods meet the model; here both go
through `policy.py`, as PPO does. They compute the same up to rounding: `tests/test_trl_group.py`. Losses, advantages,
optimiser steps and logs stay TRL's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import DistributedType
from torch import nn

from prewrite.train.policy import Completions, PolicyWithValueHead, Prompts

# TRL's settings under which it samples otherwise than from the policy's own distribution on the policy's device.
SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation", "use_vllm",
            "use_transformers_paged")  # fmt: skip


class SharedPrompts:
    """Goes before TRL's `GRPOTrainer` or `RLOOTrainer`, 0.25 or later, among the bases of a class.

    Where prompts cannot be shared, TRL's own methods run: with several processes, whose gradients are gathered in the
    model's forward pass, with gradient checkpointing, which keeps no keys and values, and, for sampling, with any of
    `SAMPLING` set.
    """

    model: nn.Module
    value_head: nn.Module
    accelerator: Any
    args: Any
    processing_class: Any

    @property
    def shares_prompts(self) -> bool:
        """Whether prompts are read once."""
        return self.accelerator.distributed_type == DistributedType.NO and not self.args.gradient_checkpointing

    def _generate_single_turn(self, *inputs, **settings):
        defaults = {field.name: field.default for field in dataclasses.fields(self.args)}
        plain = all(getattr(self.args, name) == defaults[name] for name in SAMPLING if name in defaults)
        if not (plain and self.shares_prompts):
            return super()._generate_single_turn(*inputs, **settings)
        policy = PolicyWithValueHead(self.accelerator.unwrap_model(self.model), self.value_head)
        with _generating(policy, self.processing_class.eos_token_id):
            return super()._generate_single_turn(*inputs, **settings)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probabilities and, if asked for, entropies of the last `logits_to_keep` tokens; (B, T) each."""
        if not self.shares_prompts:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        policy = PolicyWithValueHead(self.accelerator.unwrap_model(model), self.value_head)
        completions = Completions(input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:].bool())
        prompts = distinct(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep])
        with self.accelerator.autocast():
            scored = policy(prompts, completions, temperature=self.args.temperature)
        entropy = scored.entropy if compute_entropy else None
        routers = (None,) if hasattr(self, "aux_loss_enabled") else ()  # newer TRL: a loss of mixtures of experts
        return (scored.logprobs, entropy, *routers)


def distinct(ids: torch.Tensor, mask: torch.Tensor) -> Prompts:
    """The distinct rows of left-padded prompts; (B, P) each."""
    both, rows = torch.unique(torch.stack([ids, mask], dim=1), dim=0, return_inverse=True)
    return Prompts(both[:, 0], both[:, 1], rows)


@contextmanager
def _generating(policy: PolicyWithValueHead, eos_token_id: int) -> Iterator[None]:
    """While TRL samples, its model's `generate` is the policy's `sample`."""

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config, **_) -> torch.Tensor:
        completions = policy.sample(
            distinct(input_ids, attention_mask),
            max_new_tokens=generation_config.max_new_tokens,
            eos_token_id=eos_token_id,
            pad_token_id=generation_config.pad_token_id,
            temperature=generation_config.temperature,
        )
        return torch.cat([input_ids, completions.ids], dim=1)

    policy.policy.generate = generate
    try:
        yield
    finally:
        del policy.policy.generate
