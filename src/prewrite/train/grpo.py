"""GRPO and RLOO for a rewriter, on TRL's own trainers: 0.25 and every release since that keeps their interface.

    for each update:   prompts of the update  ->  generate  ->  `_reward`  ->  advantages and updates (all TRL's)

What is ours: the prompts, which are read once (`SharedPrompts`), the reward with its log, dev-set stopping and the run
folder; all as for PPO (`trainer.py`), so that the algorithms differ in the update alone. A group is the rewrites of
one instruction in one update, and its rewrites are scored on the same examples. GRPO (arXiv 2402.03300) divides a
rewrite's advantage, reward minus group mean, by the group's standard deviation, and adds `beta` times a KL estimate to
the loss. RLOO (arXiv 2402.14740) takes the mean of the *other* rewrites as the baseline, and `beta` times the
completion's KL off the reward, as PPO here does.

Groups whose rewrites all tie teach nothing; they are graded once more on other examples (`group_reward.py`).
`groups/resampled` counts these, `groups/tied` those that tie still. Where many do, the reward mode `soft` ranks
rewrites that tie on accuracy.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from prewrite.errors import BudgetExceededError, MetricError, RunFolderError, TaskModelError, TrainingError
from prewrite.files import publish, write_checksums, writing
from prewrite.lm.packing import Completions, pad_prompts
from prewrite.lm.tokens import decode
from prewrite.rewriter.meta_prompts import extract_rewrite
from prewrite.rewriter.policy import PolicyWithValueHead, ValueHead, in_eval_mode
from prewrite.rewriter.rewriter import query_ids
from prewrite.run_folder import check_there
from prewrite.train import checkpoint
from prewrite.train.algorithms import GROUP_NAMES
from prewrite.train.clock import Clock
from prewrite.train.group_reward import GroupReward
from prewrite.train.health import check_logprobs, finite
from prewrite.train.random_state import RandomState
from prewrite.train.records import rollout_rows, summarise
from prewrite.train.trainer import RewriterTrainer
from prewrite.train.trl_group import (
    TRL_KEYS,
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SharedPrompts,
    group_config,
    loadable,
    step_prompts,
)
from prewrite.train.trl_values import taken_by_trl


class _GroupTrainer(RewriterTrainer, SharedPrompts):
    """What `PRewriteGRPOTrainer` and `PRewriteRLOOTrainer` add to TRL's trainers.

    Args:
        arguments, settings: those of `RewriterTrainer`; `settings` may also hold any field of TRL's config but
            `DERIVED` and `FIXED`. What is not given comes from `GROUP_DEFAULTS`, then from TRL. An update is
            `num_iterations` optimiser steps on one set of rewrites. With `target_kl` it is `beta` that adapts.
        resample_ties: grade tied groups once more, on other examples.
    """

    trl_names = GROUP_NAMES
    config_class: type[GRPOConfig | RLOOConfig]

    def __init__(self, *arguments: Any, resample_ties: bool = True, **settings: Any):
        self.resample_ties = resample_ties
        super().__init__(*arguments, **settings)

    @classmethod
    def trl_config(cls, given: Mapping[str, Any], *, updates: int, groups: int, folder: Path) -> Any:
        """`given` over `GROUP_DEFAULTS` over TRL's own."""
        with taken_by_trl():
            return group_config(cls.config_class, given, updates, groups, folder)

    def start_trl(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: Any, lora: LoraConfig | None
    ) -> None:
        """TRL's constructor, with the prompts of all updates as its data and `_reward` as its reward function."""
        self.group_reward, self.clock = GroupReward(self.grade, resample_ties=self.resample_ties), Clock()
        tokenizer.model_input_names = ["input_ids", "attention_mask"]  # a plain fast tokenizer adds token types
        # Without an adapter to switch off the reference is a copy; TRL makes one only where `beta` needs it.
        frozen = copy.deepcopy(model) if lora is None and args.beta == 0 else None
        groups, updates = self.instructions_per_step, self.max_updates
        prompts = step_prompts(self.mixture, groups, updates, tokenizer, self.settings, seed=args.seed)
        with loadable(model) if lora is None and args.beta else nullcontext(), taken_by_trl():
            super(RewriterTrainer, self).__init__(
                model=model,
                args=args,
                reward_funcs=[self._reward],
                train_dataset=prompts,
                processing_class=tokenizer,
                peft_config=lora,
            )
        self.end_everywhere()
        self.remove_callback(PrinterCallback)
        self.callback_handler.callbacks.insert(0, _StepCallback(self))  # before trackers, which log what it adds
        device = self.accelerator.device  # a model handed over may be elsewhere
        self.value_head = ValueHead.of(model).to(device)
        if self.ref_model is not None:
            frozen = self.accelerator.unwrap_model(self.ref_model.to(model.dtype))
        reference = None if frozen is None else PolicyWithValueHead(frozen.to(device), self.value_head)
        self.reference = None if reference is None else reference.eval()

    @property
    def policy(self) -> PolicyWithValueHead:
        """The policy as it is now. Its value head is never trained; no passes but PPO's read it."""
        return PolicyWithValueHead(self._unwrapped(), self.value_head)

    # ---- training -------------------------------------------------------------------------------------------------

    def run_updates(self, resume_from_checkpoint: str | Path | None) -> dict[str, float]:
        """Run TRL's training until `max_steps`, the dev set's patience, or a stop request; restore the best policy."""
        self.metrics: dict[str, float] = {}
        settings: dict[str, str] = {}
        if resume_from_checkpoint is not None:
            path = Path(resume_from_checkpoint)
            if not (path / "trainer_state.json").is_file():
                raise RunFolderError(
                    f"{path} is no checkpoint of GRPO or RLOO; resume with the --algorithm that the run began with"
                )
            record = checkpoint.load_record(self, path)
            self.beta = self.kl_controller.coefficient
            self.return_to(record["step"])
            if self.dev.exhausted:  # training ended there; TRL would do one more step
                self.state.global_step = record["step"] * self.args.num_iterations
                self.restore_best()
                return self.metrics
            settings["resume_from_checkpoint"] = str(path)
        super(RewriterTrainer, self).train(**settings)  # TRL's
        self.restore_best()
        return self.metrics

    @property
    def updates(self) -> int:
        """Updates done; TRL's `state.global_step` counts the optimiser steps within them."""
        return int(self.state.global_step // self.args.num_iterations)

    @property
    def between_updates(self) -> bool:
        """Whether the last update's rewrites are used up. Only then is a checkpoint exact: TRL saves no rewrites."""
        return bool(self.state.global_step % self.args.num_iterations == 0)

    def _reward(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        instruction: Sequence[str],
        step: Sequence[int],
        **_: Any,
    ) -> list[float]:
        """TRL's reward function: one call per update and process, with all its rows."""
        number = step[0]
        texts = decode(self.processing_class, completion_ids, self.end_ids)
        rewrites = [extract_rewrite(text) for text in texts]
        kl, entropy = self._divergence(instruction, completion_ids)
        self.clock.lap("rollout")
        try:
            scored = self.group_reward(rewrites, instruction, number)
        except (TaskModelError, BudgetExceededError, MetricError, TrainingError):
            self._save_last_update()
            raise
        rows = rollout_rows(number, instruction, texts, rewrites, scored.graded, kl)
        self.rows = gather_object(rows)
        tokens = gather_object([len(ids) for ids in completion_ids])
        self.step_metrics = {
            "groups/tied": float(scored.tied),
            "groups/resampled": float(scored.resampled),
            "entropy/mean": float(np.mean(gather_object(entropy))),
            "completion/tokens": float(np.mean(tokens)),
        }
        self.clock.lap("score")
        return [result.reward.total for result in scored.graded]

    @torch.no_grad()
    def _divergence(
        self, instructions: Sequence[str], completion_ids: Sequence[list[int]]
    ) -> tuple[list[float], list[float]]:
        """Each completion's KL from the reference, summed over its tokens, and each token's entropy; in nats.

        TRL logs other KLs: per token, by another estimator in GRPO, and none where `beta` is 0.
        """
        device, pad = self.accelerator.device, self.processing_class.pad_token_id
        names = list(dict.fromkeys(instructions))
        queries = [query_ids(self.settings.query(name), self.processing_class) for name in names]
        prompts = pad_prompts(queries, [names.index(name) for name in instructions], pad, device)
        width = max(map(len, completion_ids))
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in completion_ids], device=device)
        lengths = torch.tensor([len(row) for row in completion_ids], device=device)
        mask = torch.arange(width, device=device) < lengths[:, None]
        batch, temperature = Completions(ids, mask), self.args.temperature
        with in_eval_mode(self.policy) as policy:
            stats = policy(prompts, batch, temperature=temperature)
            if self.reference is not None:
                reference = self.reference(prompts, batch, temperature=temperature)
            else:
                reference = policy(prompts, batch, temperature=temperature, use_adapter=False)
        check_logprobs(self.updates + 1, rewriter=stats.logprobs, reference=reference.logprobs)
        kl = ((stats.logprobs - reference.logprobs) * mask).sum(1)
        return kl.tolist(), stats.entropy[mask].tolist()

    def _save_last_update(self) -> None:
        """Save what was trained so far: until the rewards are there an update changes nothing but random numbers.

        Several processes go on from the last regular checkpoint, since one cannot save without the others.
        """
        if self.updates and self.accelerator.num_processes == 1:
            self.random_state.put_back()
            self.save_now()

    # ---- what the callback calls ----------------------------------------------------------------------------------

    def evaluate_on_dev(self, step: int) -> float:
        """As for every algorithm. TRL tells training from evaluation by the model's mode, so that is set again."""
        score = super().evaluate_on_dev(step)
        self.model.train()
        return score

    def finish_update(self, logs: Mapping[str, Sequence[float]]) -> None:
        """Write the run folder's lines of the update; `logs` are TRL's, one value per optimiser step."""
        self.kl_controller.update(float(np.mean([row["kl"] for row in self.rows])))
        self.beta = self.kl_controller.coefficient
        found = {ours: logs[theirs] for theirs, ours in TRL_KEYS.items() if theirs in logs}
        self.metrics = {
            **summarise(self.rows),
            "kl/coefficient": self.beta,
            **self.step_metrics,
            **finite({name: float(np.mean(values)) for name, values in found.items()}),
            **self.health.finish_update(self.updates, self._trained()),
            **self.clock.metrics(),
        }
        self.log_update(self.metrics, self.rows)
        self.end_without_hope(self.rows)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def save_now(self) -> None:
        """As TRL saves after an update."""
        self._save_checkpoint(self.model, None)

    # ---- save and load --------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any, **settings: Any) -> None:
        """TRL's own checkpoint and our record in one folder, which gets its name when it is whole."""
        check_there(self.run_folder.path)
        written = self.run_folder.checkpoints / f"checkpoint-{self.state.global_step}"
        with writing(written):
            super()._save_checkpoint(model, trial, **settings)
        self.accelerator.wait_for_everyone()  # each process writes its generator's state into the folder
        if self.accelerator.is_main_process:
            record = {"step": self.updates}
            checkpoint.save_record(self, written, record)
            write_checksums(written)
            publish(written, self.run_folder.checkpoint(self.updates))
            checkpoint.remove_older(self.run_folder, self.updates, keep=self.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        """As transformers, which in several processes on CPUs asks torch for a place `cpu:0` that it does not know."""
        if folder is None or self.args.device.type != "cpu":
            super()._load_optimizer_and_scheduler(folder)
        else:
            checkpoint.load_optimizer(Path(folder), self.optimizer, self.lr_scheduler)

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints go; trackers write beside it, to the run folder."""
        return str(self.run_folder.checkpoints)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: a checkpoint is for resuming, and a run has its report."""


class PRewriteGRPOTrainer(_GroupTrainer, SharedPrompts, GRPOTrainer):
    """Trains a rewriter by group-relative policy optimisation; see `_GroupTrainer` for the arguments."""

    config_class = GRPOConfig


class PRewriteRLOOTrainer(_GroupTrainer, SharedPrompts, RLOOTrainer):
    """Trains a rewriter by REINFORCE with a leave-one-out baseline; see `_GroupTrainer` for the arguments."""

    config_class = RLOOConfig


class _StepCallback(TrainerCallback):
    """Turns TRL's optimiser steps into updates of the run folder: dev evaluation, stopping, saving, logging."""

    def __init__(self, trainer: _GroupTrainer):
        self.trainer = trainer
        self.logs: dict[str, list[float]] = defaultdict(list)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer.updates == 0 and self.trainer.dev.due(0):
            self.trainer.evaluate_on_dev(0)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer.between_updates:
            self.trainer.clock = Clock()
            self.trainer.random_state = RandomState.now()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        trainer = self.trainer
        trainer.health.drop_bad_gradients(trainer.model.parameters())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer = self.trainer
        if not trainer.between_updates:
            return
        trainer.clock.lap("update")
        trainer.step_metrics |= trainer.score_dev(trainer.clock)
        trainer.cost.collect()
        stop, save = trainer.next_step()
        control.should_training_stop = control.should_training_stop or stop
        control.should_save = save

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:  # TRL's last line, with totals
            return
        for name, value in logs.items():
            self.logs[name].append(value)
        if self.trainer.between_updates:
            self.trainer.finish_update(self.logs)
            self.logs.clear()
            logs.update(self.trainer.metrics)
