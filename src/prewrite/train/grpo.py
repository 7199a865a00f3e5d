"""GRPO and RLOO for a rewriter, on TRL's own trainers: 0.25 and every release since that keeps their interface.

    for each update:   prompts of the step  ->  generate  ->  `_reward`  ->  advantages and updates (all TRL's)

What is ours: the prompts, which are read once (`SharedPrompts`), the reward with its log, dev-set stopping and the run
folder; all as for PPO, so that the algorithms differ in the update alone. A group is the rewrites of one instruction
in one update, and its rewrites are scored on the same examples. GRPO (arXiv 2402.03300) divides a rewrite's advantage,
reward minus group mean, by the group's standard deviation, and adds `beta` times a KL estimate to the loss; RLOO
(arXiv 2402.14740) takes the mean of the *other* rewrites as the baseline, and `beta` times the completion's KL off the
reward, as PPO here does.

Groups whose rewrites all tie teach nothing; they are graded once more on other examples (`group_reward.py`).
`groups/resampled` counts these, `groups/tied` those that tie still. Where many do, the reward mode `soft` ranks
rewrites that tie on accuracy.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback, set_seed

from prewrite.data import PRewriteDataset
from prewrite.errors import RunFolderError
from prewrite.files import publish, writing
from prewrite.lm.tokens import decode, end_ids
from prewrite.rewriter.meta_prompts import extract_rewrite, load_meta_prompt
from prewrite.rewriter.policy import Completions, PolicyWithValueHead, ValueHead, pad_prompts
from prewrite.rewriter.rewriter import Rewriter, RewriterSettings, query_ids, save_rewriter
from prewrite.rewriter.starter import load_base
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.train import checkpoint, processes
from prewrite.train.cost import RunCost
from prewrite.train.dev_stopping import DevStopping
from prewrite.train.group_reward import GroupReward
from prewrite.train.kl import KLController
from prewrite.train.mixture import Mixture
from prewrite.train.steps import Clock, clear_sampling_defaults, rollout_rows, summarise
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


class _GroupTrainer:
    """What `PRewriteGRPOTrainer` and `PRewriteRLOOTrainer` add to TRL's trainers.

    Args:
        base_model, evaluator, meta_family, log_dir, train_dataset, dev_dataset, reward, warm_start, lora,
        examples_per_rewrite, instructions_per_step, max_steps, eval_steps, patience, dev_examples, save_steps,
        progress: as in `PRewritePPOTrainer`.
        target_kl: if set, `beta` adapts so that the KL per completion approaches it, in nats.
        resample_ties: grade tied groups once more, on other examples.
        trl_config: any field of TRL's config but `DERIVED` and `FIXED`; what is not given comes from
            `GROUP_DEFAULTS`, then from TRL. An update is `num_iterations` optimiser steps on one set of rewrites.
    """

    config_class: type

    def __init__(
        self,
        base_model,
        evaluator: Evaluator,
        meta_family: str = "generic",
        log_dir: str | Path = "runs/rewriter-grpo",
        *,
        train_dataset: PRewriteDataset | Mixture,
        dev_dataset: PRewriteDataset | None = None,
        reward: TaskReward | None = None,
        warm_start: str | Path | None = None,
        lora: LoraConfig | None = None,
        examples_per_rewrite: int = 16,
        instructions_per_step: int = 1,
        max_steps: int = 50,
        eval_steps: int = 5,
        patience: int = 0,
        dev_examples: int = 100,
        save_steps: int = 10,
        target_kl: float | None = None,
        resample_ties: bool = True,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        **trl_config,
    ):
        meta_prompt = load_meta_prompt(meta_family)
        self.run_folder = RunFolder(Path(log_dir))
        self.mixture = Mixture.of(train_dataset)
        groups = min(instructions_per_step, len(self.mixture.rows))
        args = group_config(self.config_class, trl_config, max_steps, groups, self.run_folder.path)
        self.run_folder.path.mkdir(parents=True, exist_ok=True)
        if isinstance(base_model, tuple):
            (model, tokenizer), name = base_model, "custom"
        else:
            model, tokenizer = load_base(str(base_model), warm_start=warm_start)
            name = str(base_model)
        clear_sampling_defaults(model)
        self.end_ids = end_ids(model, tokenizer)
        model.generation_config.eos_token_id = list(self.end_ids)  # newer TRL ends at every id that stands here
        tokenizer.model_input_names = ["input_ids", "attention_mask"]  # a plain fast tokenizer adds token types
        set_seed(args.seed)  # TRL 0.25 draws the adapter before it seeds
        self.evaluator = evaluator
        self.reward = reward or TaskReward(evaluator)
        self.group_reward = GroupReward(
            self.reward, self.mixture.rows, count=examples_per_rewrite, seed=args.seed, resample_ties=resample_ties
        )
        self.settings = RewriterSettings(
            base_model=name,
            meta_prompt=meta_prompt,
            templates=self.mixture.templates,
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
        )
        self.max_updates = max_steps
        self.save_every = save_steps
        self.warm_start = Path(warm_start) if warm_start is not None else None
        self.kl_controller = KLController(args.beta, target=target_kl)
        self.progress = progress
        self.dev = DevStopping(
            dev_dataset, self.reward, every=eval_steps, patience=patience, limit=dev_examples, seed=args.seed
        )
        self.cost = RunCost(evaluator.task_model)
        self.stop_requested = False
        self.clock = Clock()
        # Without an adapter to switch off the reference is a copy; TRL makes one only where `beta` needs it.
        frozen = copy.deepcopy(model) if lora is None and args.beta == 0 else None
        prompts = step_prompts(self.mixture, groups, max_steps, tokenizer, self.settings, seed=args.seed)
        with loadable(model) if lora is None and args.beta else nullcontext():
            super().__init__(
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
        self.value_head = ValueHead.of(model).to(self.accelerator.device)
        if self.ref_model is not None:
            frozen = self.accelerator.unwrap_model(self.ref_model.to(model.dtype))
        device = self.accelerator.device  # a model handed over may be elsewhere
        self.reference = None if frozen is None else PolicyWithValueHead(frozen.to(device), self.value_head)

    # ---- training -------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | Path | None = None, **settings) -> dict[str, float]:
        """Run TRL's training until `max_steps`, the dev set's patience, or a stop request; restore the best policy.

        Returns the metrics of the last update. A stop request (`self.stop_requested = True`, as Ctrl-C sets it)
        ends training after the running update, with a checkpoint.
        """
        self.metrics: dict[str, float] = {}
        if resume_from_checkpoint is not None:
            path = Path(resume_from_checkpoint)
            if not (path / "trainer_state.json").is_file():
                raise RunFolderError(
                    f"{path} is no checkpoint of GRPO or RLOO; resume with the --algorithm that the run began with"
                )
            record = checkpoint.load_record(path, dev=self.dev, kl_controller=self.kl_controller, cost=self.cost)
            self.beta = self.kl_controller.coefficient
            if self.accelerator.is_main_process:
                self.run_folder.truncate_all(after_step=record["step"])
            settings["resume_from_checkpoint"] = str(path)
        super().train(**settings)
        if not self.stop_requested and self.dev.best_state is not None:
            checkpoint.load_trainable_state(self._unwrapped(), self.dev.best_state)
        return self.metrics

    @property
    def updates(self) -> int:
        """Updates done; TRL's `state.global_step` counts the optimiser steps within them."""
        return self.state.global_step // self.args.num_iterations

    @property
    def between_updates(self) -> bool:
        """Whether the last update's rewrites are used up. Only then is a checkpoint exact: TRL saves no rewrites."""
        return self.state.global_step % self.args.num_iterations == 0

    def _reward(self, prompts, completions, completion_ids, instruction, step, **_) -> list[float]:
        """TRL's reward function: one call per update and process, with all its rows."""
        number = step[0]
        texts = decode(self.processing_class, completion_ids, self.end_ids)
        rewrites = [extract_rewrite(text) for text in texts]
        kl, entropy = self._divergence(instruction, completion_ids)
        self.clock.lap("rollout")
        scored = self.group_reward(rewrites, instruction, number)
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
    def _divergence(self, instructions: Sequence[str], completion_ids) -> tuple[list[float], list[float]]:
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
        policy = PolicyWithValueHead(self._unwrapped(), self.value_head)
        stats = policy(prompts, batch, temperature=temperature)
        if self.reference is not None:
            reference = self.reference(prompts, batch, temperature=temperature)
        else:
            reference = policy(prompts, batch, temperature=temperature, use_adapter=False)
        kl = ((stats.logprobs - reference.logprobs) * mask).sum(1)
        return kl.tolist(), stats.entropy[mask].tolist()

    # ---- what the callback calls ----------------------------------------------------------------------------------

    def evaluate_on_dev(self, step: int) -> float:
        """Greedy rewrites of all instructions on dev; remembers the policy if it is the best so far."""
        result = self.dev.evaluate(step, self.rewriter().greedy)
        self.model.train()  # TRL tells training from evaluation by this flag, and writing a rewrite clears it
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.rewrites, result.rows)
        if result.is_best:
            self.dev.best_state = checkpoint.trainable_state(self._unwrapped())
        return result.score

    def finish_update(self, logs: dict[str, list[float]]) -> None:
        """Write the run folder's lines of the update; `logs` are TRL's, one value per optimiser step."""
        self.kl_controller.update(float(np.mean([row["kl"] for row in self.rows])))
        self.beta = self.kl_controller.coefficient
        found = {ours: logs[theirs] for theirs, ours in TRL_KEYS.items() if theirs in logs}
        self.metrics = {
            **summarise(self.rows),
            "kl/coefficient": self.beta,
            **self.step_metrics,
            **{name: float(np.mean(values)) for name, values in found.items()},
            **{f"time/{name}": seconds for name, seconds in self.clock.seconds.items()},
        }
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.metrics, [{"step": self.updates, **self.metrics}])
            self.run_folder.append(self.run_folder.rollouts, self.rows)
        if self.progress is not None:
            self.progress(self.updates, self.metrics)

    # ---- save and load --------------------------------------------------------------------------------------------

    def rewriter(self) -> Rewriter:
        """The policy as it is now, for writing rewrites."""
        return Rewriter(PolicyWithValueHead(self._unwrapped(), self.value_head), self.processing_class, self.settings)

    def save_rewriter(self) -> Path:
        """Write the policy as it is now to the run folder's `rewriter/`."""
        folder = self.run_folder.rewriter
        save_rewriter(
            folder, self._unwrapped(), self.settings, warm_start=self.warm_start, tokenizer=self.processing_class
        )
        return folder

    def _save_checkpoint(self, model, trial, **settings) -> None:
        """TRL's own checkpoint and our record in one folder, which gets its name when it is whole."""
        written = self.run_folder.checkpoints / f"checkpoint-{self.state.global_step}"
        with writing(written):
            super()._save_checkpoint(model, trial, **settings)
        self.accelerator.wait_for_everyone()  # each process writes its generator's state into the folder
        if self.accelerator.is_main_process:
            record = {"step": self.updates}
            checkpoint.save_record(written, record, dev=self.dev, kl_controller=self.kl_controller, cost=self.cost)
            publish(written, checkpoint.folder_of(self.run_folder, self.updates))
            checkpoint.remove_older(self.run_folder, self.updates)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, folder) -> None:
        """As transformers, which in several processes on CPUs asks torch for a place `cpu:0` that it does not know."""
        if folder is None or self.args.device.type != "cpu":
            super()._load_optimizer_and_scheduler(folder)
        else:
            checkpoint.load_optimizer(Path(folder), self.optimizer, self.lr_scheduler)

    def _get_output_dir(self, trial) -> str:
        """Where checkpoints go; trackers write beside it, to the run folder."""
        return str(self.run_folder.checkpoints)

    def create_model_card(self, *_, **__) -> None:
        """None: a checkpoint is for resuming, and a run has its report."""

    def _unwrapped(self):
        return self.accelerator.unwrap_model(self.model)


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

    def on_train_begin(self, args, state, control, **_):
        if state.global_step == 0 and self.trainer.dev.due(0):
            self.trainer.evaluate_on_dev(0)

    def on_step_begin(self, args, state, control, **_):
        if self.trainer.between_updates:
            self.trainer.clock = Clock()

    def on_step_end(self, args, state, control, **_):
        trainer = self.trainer
        if not trainer.between_updates:
            return
        trainer.clock.lap("update")
        step, last = trainer.updates, trainer.updates == trainer.max_updates
        if trainer.dev.due(step, last=last):
            trainer.step_metrics["dev/score"] = trainer.evaluate_on_dev(step)
            trainer.clock.lap("dev")
        trainer.cost.collect()
        stop = processes.any_of(trainer.stop_requested)
        if stop:
            trainer.stop_requested = True  # asked of another process, maybe
        if stop or trainer.dev.exhausted:
            control.should_training_stop = True
        control.should_save = stop or step % trainer.save_every == 0 or last

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" not in logs:  # TRL's last line, with totals
            return
        for name, value in logs.items():
            self.logs[name].append(value)
        if self.trainer.between_updates:
            self.trainer.finish_update(self.logs)
            self.logs.clear()
            logs.update(self.trainer.metrics)
