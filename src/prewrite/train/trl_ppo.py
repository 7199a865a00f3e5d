"""TRL's side of PPO: its trainer where it has one, its settings with our defaults, its wrapper replaced by ours."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.train import processes

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL 0.25 warns at each construction that PPO will move
try:
    from trl import PPOConfig, PPOTrainer
    from trl.trainer import ppo_trainer
except ImportError:
    raise MissingDependencyError(
        f"TRL {metadata.version('trl')} has no PPOTrainer, which PPO needs; `pip install 'trl==0.25.*'`, "
        "or train with --algorithm grpo or rloo, which run on any TRL since 0.25"
    ) from None

__all__ = ["PPO_DEFAULTS", "PPOTrainer", "policy_wrapper", "ppo_config", "ppo_trainer"]

# TRL's own defaults that do not fit a rewriter; a keyword argument of the trainer overrides them.
PPO_DEFAULTS = {
    "temperature": 1.0,  # paper section 3.1; TRL's is 0.7
    "lam": 1.0,  # the reward comes once, at the end: 0.95 leaves the first of 24 tokens, which decide most, 30% of it
    "response_length": 64,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_ppo_epochs": 2,
    "stop_token": "eos",
    "kl_coef": 0.02,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "num_sample_generations": 0,
    "gradient_checkpointing": False,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",  # checkpoints are ours (see checkpoint.py)
}


def ppo_config(given: Mapping[str, Any], max_steps: int, output_dir: Path) -> PPOConfig:
    """`given` over `PPO_DEFAULTS` over TRL's own. Raises `ConfigError` for what TRL does not know."""
    known = {field.name for field in dataclasses.fields(PPOConfig)}
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"{unknown[0]!r} is no setting of the trainer or of trl.PPOConfig; check the spelling")
    settings = PPO_DEFAULTS | given
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}; it must be at least 1")
    settings.setdefault("output_dir", str(output_dir))
    settings.setdefault("use_cpu", not torch.cuda.is_available())
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    settings.setdefault("total_episodes", max_steps * batch * processes.count())
    return PPOConfig(**settings)


@contextmanager
def policy_wrapper(wrapper: type) -> Iterator[None]:
    """While TRL's constructor runs, its wrapper class is ours: one trunk for policy and value, one forward."""
    original = ppo_trainer.PolicyAndValueWrapper
    ppo_trainer.PolicyAndValueWrapper = wrapper
    try:
        yield
    finally:
        ppo_trainer.PolicyAndValueWrapper = original
