"""TRL's side of PPO: settings, construction, state and callbacks, checkpoints. The algorithm itself is in `ppo.py`."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl

from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.lm.packing import Completions, Prompts
from prewrite.rewriter.policy import PolicyWithValueHead, TokenStats, ValueHead
from prewrite.train import checkpoint, processes
from prewrite.train.trainer import RewriterTrainer
from prewrite.train.trl_values import check_values, taken_by_trl, try_out

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL 0.25 warns at each construction that PPO will move
try:
    from trl import PPOConfig, PPOTrainer
    from trl.trainer import ppo_trainer
except ImportError:
    raise MissingDependencyError(
        f"TRL {metadata.version('trl')} has no PPOTrainer, which PPO needs; `pip install 'trl==0.25.*'`, "
        "or train with --algorithm grpo or rloo, which run on any TRL since 0.25"
    ) from None

logger = logging.getLogger(__name__)

__all__ = ["PPO_DEFAULTS", "TRLPPOTrainer", "ppo_trainer"]

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
    known = {field.name for field in dataclasses.fields(PPOConfig) if field.init}
    if unknown := sorted(set(given) - known):
        raise ConfigError(
            f"{unknown[0]!r} is no setting of the trainer or of trl.PPOConfig; check the spelling in trl_overrides"
        )
    check_values(PPOConfig, given)
    settings: dict[str, Any] = {**PPO_DEFAULTS, **given}
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}; it must be at least 1")
    settings.setdefault("output_dir", str(output_dir))
    settings.setdefault("use_cpu", not torch.cuda.is_available())
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    settings.setdefault("total_episodes", max_steps * batch * processes.count())
    parts = settings.get("num_mini_batches", 1)
    if batch % parts:
        raise ConfigError(
            f"trl_overrides: num_mini_batches is {parts}; it must divide the {batch} rewrites of a process"
        )
    if settings.get("whiten_rewards") and batch // parts < 8:
        raise ConfigError(
            f"trl_overrides: whiten_rewards needs 8 rewrites in a mini-batch and there are {batch // parts}; raise "
            "rewrites_per_step, or leave it out"
        )
    if settings["stop_token"] and settings.get("stop_token_id") is not None:
        raise ConfigError("trl_overrides: stop_token_id goes with `stop_token: null`; give both, or neither")
    with taken_by_trl():
        config = PPOConfig(**settings)
        try_out(config, max_steps)
        return config


class TRLPPOTrainer(RewriterTrainer, PPOTrainer):
    """A `trl.PPOTrainer` (0.25) around our policy, with exact resume; `train` is left to `PRewritePPOTrainer`.

    TRL gives configuration, PEFT wrapping, optimiser, scheduler, accelerate, callbacks and logging.
    """

    control: TrainerControl

    @classmethod
    def trl_config(cls, given: Mapping[str, Any], *, updates: int, groups: int, folder: Path) -> PPOConfig:
        """`given` over `PPO_DEFAULTS` over TRL's own."""
        return ppo_config(given, updates, folder)

    def start_trl(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: PPOConfig, lora: LoraConfig | None
    ) -> None:
        """TRL's constructor, around one trunk for policy and value."""
        with policy_wrapper(PolicyWithValueHead), taken_by_trl():
            PPOTrainer.__init__(
                self,
                args=args,
                processing_class=tokenizer,
                model=model,
                ref_model=None,
                reward_model=torch.nn.Identity(),  # never called: `score` asks the task model
                train_dataset=[{"input_ids": [0]}],  # never read: `rollout` writes its own prompts
                value_model=ValueHead.of(model),
                peft_config=lora,
            )
        for printer in (ppo_trainer.PrinterCallback, ppo_trainer.DEFAULT_PROGRESS_CALLBACK):
            self.callback_handler.pop_callback(printer)  # `progress` is the caller's one line per update
        model.generation_config.eos_token_id = list(self.end_ids)  # TRL has left one of them
        if args.stop_token != "eos":  # the caller's own end, or none
            self.end_ids = () if args.stop_token_id is None else (args.stop_token_id,)
        self.max_updates = args.num_total_batches
        self.instructions_per_step = min(self.instructions_per_step, args.batch_size)
        if args.batch_size == 1:
            logger.warning(
                "an update of one rewrite cannot learn: a rewrite is good or bad beside other rewrites of its "
                "instruction, and alone it has none; give per_device_train_batch_size=16, or "
                "gradient_accumulation_steps=16"
            )

    @property
    def policy(self) -> PolicyWithValueHead:
        """The policy as it is now, with its value head."""
        policy: PolicyWithValueHead = self._unwrapped()
        return policy

    @property
    def updates(self) -> int:
        """Updates done."""
        return int(self.state.global_step)

    def forward(self, prompts: Prompts, completions: Completions) -> TokenStats:
        """What the policy thinks of `completions`; gradients flow where they are on."""
        stats: TokenStats = self.model(prompts, completions, temperature=self.args.temperature)
        return stats

    def reference(self, prompts: Prompts, completions: Completions) -> TokenStats:
        """What the reference thinks of `completions`: the policy without its adapter, or a frozen copy of it."""
        temperature = self.args.temperature
        if self.is_peft_model:
            stats: TokenStats = self.model(prompts, completions, temperature=temperature, use_adapter=False)
            return stats
        frozen = PolicyWithValueHead(self.ref_model, self.policy.value_model)
        return frozen(prompts, completions, temperature=temperature)

    # ---- state and callbacks --------------------------------------------------------------------------------------

    def begin(self, resume_from: str | Path | None) -> None:
        """Start at the first update, or after the one of the checkpoint `resume_from`; dev is scored before the first.

        The policy stays in eval mode throughout: dropout is off in every pass, so that sampling, old and new
        log-probabilities come from one function. TRL's PPO switches dropout off too.
        """
        self.model.eval()
        self.state.max_steps = self.max_updates
        self.state.num_train_epochs = 1
        self.state.episode = 0
        if resume_from is not None:
            checkpoint.load(self, Path(resume_from))
            self.return_to(self.updates)
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if self.updates == 0 and self.dev.due(0):
            self.evaluate_on_dev(0)

    def count_update(self) -> None:
        """One more update is done."""
        self.state.global_step += 1
        self.state.episode += self.args.batch_size
        self.state.epoch = self.updates / self.max_updates
        self.lr_scheduler.step()

    def tell_callbacks(self, metrics: dict[str, float]) -> None:
        """Trackers, such as TensorBoard, get the metrics of this update."""
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, metrics)

    def end(self) -> None:
        """Close the trackers and put the best policy on dev back."""
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self.restore_best()

    def save_now(self) -> None:
        """As `save_checkpoint`."""
        self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write everything that the next update depends on to the run folder's `checkpoints/`."""
        if self.accelerator.is_main_process:
            checkpoint.save(self)


@contextmanager
def policy_wrapper(wrapper: type) -> Iterator[None]:
    """While TRL's constructor runs, its wrapper class is ours: one trunk for policy and value, one forward."""
    original = ppo_trainer.PolicyAndValueWrapper
    ppo_trainer.PolicyAndValueWrapper = wrapper
    try:
        yield
    finally:
        ppo_trainer.PolicyAndValueWrapper = original
