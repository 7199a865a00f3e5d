"""TRL's side of GRPO and RLOO: settings, prompts in TRL's form, and those two of its methods that call the model.

TRL's trainers read the whole prompt again for every rewrite, in sampling, in scoring and in each pass of an update,
and a meta prompt is several times as long as a rewrite. In `SharedPrompts` both methods go through `policy.py`, as PPO
does, and compute the same up to rounding (`tests/train/test_trl_group.py`). Losses, advantages, optimiser steps and
logs stay TRL's.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from datasets import Dataset
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL 0.25 warns at each construction that RLOO may move
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from prewrite.errors import ConfigError
from prewrite.lm.packing import Completions, Prompts
from prewrite.lm.tokens import has_chat_template
from prewrite.rewriter.meta_prompts import format_rewriter_query
from prewrite.rewriter.policy import PolicyWithValueHead, in_eval_mode
from prewrite.rewriter.rewriter import RewriterSettings, query_ids
from prewrite.train import processes
from prewrite.train.draws import draw_instructions
from prewrite.train.mixture import Mixture
from prewrite.train.trl_values import check_values, try_out

__all__ = ["TRL_KEYS", "GRPOConfig", "GRPOTrainer", "RLOOConfig", "RLOOTrainer", "SharedPrompts", "group_config",
           "loadable", "step_prompts"]  # fmt: skip

# TRL's own defaults that do not fit a rewriter; a keyword argument of the trainer overrides them.
GROUP_DEFAULTS = {
    "temperature": 1.0,
    "max_completion_length": 64,
    "max_prompt_length": None,  # TRL 0.25 would cut the end of a long prompt, the cue included; gone in later releases
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_iterations": 2,
    "beta": 0.02,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "gradient_checkpointing": False,
    "bf16": False,
    "report_to": "none",
}
# Settings that the updates and the run folder depend on.
FIXED = {
    "disable_dropout": True,  # so that old and new log-probabilities come from one function (docs/decisions.md)
    "shuffle_dataset": False,  # the data set has the prompts in the order of the steps
    "remove_unused_columns": False,
    "logging_strategy": "steps",
    "logging_steps": 1,
    "save_strategy": "no",  # the callback asks for a save where one is exact
    "disable_tqdm": True,
    "chat_template_kwargs": {"enable_thinking": False},  # as `format_rewriter_query`
}
DERIVED = ("output_dir", "max_steps", "num_train_epochs", "num_generations", "steps_per_generation",
           "generation_batch_size")  # fmt: skip
CHECKPOINTING = "gradient_checkpointing", "activation_checkpointing"  # the name, and the one since transformers 5
# TRL's names of what it logs, and ours.
TRL_KEYS = {
    "loss": "loss/policy",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "clip_ratio/region_mean": "ppo/clip_fraction",
}
# With any of these set, TRL samples from another distribution than the policy's, or on another device.
SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation", "use_vllm",
            "use_transformers_paged")  # fmt: skip


def group_config(
    kind: type[GRPOConfig | RLOOConfig], given: Mapping[str, Any], updates: int, groups: int, output_dir: Path
) -> GRPOConfig | RLOOConfig:
    """`given` over `GROUP_DEFAULTS` over TRL's own, as `kind`, which is TRL's `GRPOConfig` or `RLOOConfig`.

    Args:
        updates: number of updates, of `num_iterations` optimiser steps each.
        groups: instructions in an update, which share its rewrites out evenly.

    Raises `ConfigError` for what TRL does not know, what follows from other settings, and rewrites that do not divide.
    """
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{name!r} is no setting of the trainer or of TRL's {kind.__name__}; check trl_overrides"
            )
        if name in DERIVED or name in FIXED:
            raise ConfigError(f"{name!r} follows from the trainer's own settings; leave it out of trl_overrides")
    check_values(kind, given)
    settings: dict[str, Any] = {**GROUP_DEFAULTS, **given}
    if updates < 1:
        raise ConfigError(f"max_steps is {updates}; it must be at least 1")
    rewrites = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    rewrites *= processes.count()
    if rewrites % groups or rewrites // groups < 2:
        raise ConfigError(
            f"{rewrites} rewrites per step cannot be shared evenly, two or more each, by {groups} instructions; "
            "choose a multiple of instructions_per_step"
        )
    settings |= FIXED | {
        "output_dir": str(output_dir),
        "max_steps": updates * settings["num_iterations"],
        "num_generations": rewrites // groups,
        "steps_per_generation": settings["gradient_accumulation_steps"],
    }
    settings.setdefault("use_cpu", not torch.cuda.is_available())
    old, new = CHECKPOINTING
    if new in known:
        settings.setdefault(new, settings.pop(old))
    config = kind(**{name: value for name, value in settings.items() if name in known})
    try_out(config, config.max_steps)
    return config


class SharedPrompts(Trainer):
    """Reads each prompt once; goes before TRL's `GRPOTrainer` or `RLOOTrainer` among the bases of a class.

    Where prompts cannot be shared, TRL's own methods run: with several processes, whose gradients are gathered in the
    model's forward pass; with gradient checkpointing, which keeps no keys and values; with a mixture of experts whose
    routers have a loss (newer TRL); and, for sampling, with any of `SAMPLING` set.
    """

    value_head: nn.Module
    end_ids: tuple[int, ...]

    def end_everywhere(self) -> None:
        """Let each of `end_ids` end a completion in TRL's own code too; after its constructor."""
        self.eos_token_id = AnyOf(self.end_ids)
        if hasattr(self, "generation_config"):
            self.generation_config.eos_token_id = list(self.end_ids)

    @property
    def shares_prompts(self) -> bool:
        """Whether prompts are read once."""
        alone = self.accelerator.distributed_type == DistributedType.NO
        checkpointing = any(getattr(self.args, name, False) for name in CHECKPOINTING)
        return alone and not checkpointing and not getattr(self, "aux_loss_enabled", False)

    def _generate_single_turn(self, *inputs: Any, **settings: Any) -> Any:
        defaults = {field.name: field.default for field in dataclasses.fields(self.args)}
        plain = all(getattr(self.args, name) == defaults[name] for name in SAMPLING if name in defaults)
        if not (plain and self.shares_prompts):
            return super()._generate_single_turn(*inputs, **settings)
        policy = PolicyWithValueHead(self.accelerator.unwrap_model(self.model), self.value_head)
        with _generating(policy, self.end_ids):
            return super()._generate_single_turn(*inputs, **settings)

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probabilities and, if asked for, entropies of the last `logits_to_keep` tokens; (B, T) each."""
        if not self.shares_prompts:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        policy = PolicyWithValueHead(self.accelerator.unwrap_model(model), self.value_head)
        completions = Completions(input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:].bool())
        prompts = distinct(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep])
        with in_eval_mode(policy), self.accelerator.autocast():
            scored = policy(prompts, completions, temperature=self.args.temperature)
        entropy = scored.entropy if compute_entropy else None
        router_loss = (None,) if hasattr(self, "aux_loss_enabled") else ()  # newer TRL returns it too
        return (scored.logprobs, entropy, *router_loss)


class AnyOf:
    """Several token ids where TRL 0.25 compares with one: it equals each of them, and elementwise in a tensor."""

    def __init__(self, ids: Sequence[int]):
        self.ids = tuple(ids)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, torch.Tensor):
            return torch.isin(other, torch.tensor(self.ids, device=other.device))
        return other in self.ids

    __hash__ = None  # type: ignore[assignment]


def distinct(ids: torch.Tensor, mask: torch.Tensor) -> Prompts:
    """The distinct rows of left-padded prompts; (B, P) each."""
    both, rows = torch.unique(torch.stack([ids, mask], dim=1), dim=0, return_inverse=True)
    return Prompts(both[:, 0], both[:, 1], rows)


@contextmanager
def _generating(policy: PolicyWithValueHead, end_ids: Sequence[int]) -> Iterator[None]:
    """While TRL samples, its model's `generate` is the policy's `sample`."""

    def generate(
        input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **_: Any
    ) -> torch.Tensor:
        with in_eval_mode(policy):
            completions = policy.sample(
                distinct(input_ids, attention_mask),
                max_new_tokens=generation_config.max_new_tokens,
                end_ids=end_ids,
                pad_token_id=generation_config.pad_token_id,
                temperature=generation_config.temperature,
            )
        return torch.cat([input_ids, completions.ids], dim=1)

    policy.policy.generate = generate
    try:
        yield
    finally:
        del policy.policy.generate


def step_prompts(
    mixture: Mixture,
    groups: int,
    steps: int,
    tokenizer: PreTrainedTokenizerBase,
    settings: RewriterSettings,
    *,
    seed: int,
) -> Dataset:
    """The prompts of all steps in order, `groups` a step, with the columns `instruction` and `step`."""
    rows = []
    prompts = {name: trl_prompt(settings.query(name), tokenizer) for name in mixture.rows}
    for step in range(1, steps + 1):
        for name in draw_instructions(mixture, groups, seed=seed, step=step):
            rows.append({"prompt": prompts[name], "instruction": name, "step": step})
    return Dataset.from_list(rows)


def trl_prompt(query: str, tokenizer: PreTrainedTokenizerBase) -> str | list[dict[str, str]]:
    """What TRL tokenises to `query_ids`: messages where there is a chat template, else text.

    Text goes through the tokenizer without special tokens in TRL 0.25 and with them in newer releases (those have
    `_tokenize_prompts`), so there the special tokens that belong to the query are written out.
    """
    if has_chat_template(tokenizer):
        return [{"role": "user", "content": query}]
    if hasattr(GRPOTrainer, "_tokenize_prompts"):
        return format_rewriter_query(query, tokenizer)
    return tokenizer.decode(query_ids(query, tokenizer))


@contextmanager
def loadable(model: PreTrainedModel) -> Iterator[None]:
    """While TRL's constructor runs, a copy of `model` is in a folder, from which TRL loads the reference.

    From the model's own name TRL would load the weights before the warm start, or find none.
    """
    named, folder = model.config._name_or_path, tempfile.mkdtemp(prefix="prewrite-reference-")
    try:
        model.save_pretrained(folder)
        model.config._name_or_path = folder
        yield
    finally:
        model.config._name_or_path = named
        shutil.rmtree(folder)
