"""PPO for a rewriter: the main path of the package, top to bottom.

    for each update:   rollout  ->  score and logprobs  ->  advantages  ->  update

`PRewritePPOTrainer` is a `trl.PPOTrainer` (0.25): TRL gives configuration, PEFT wrapping, optimiser, scheduler,
accelerate, callbacks and logging. `train` and these five methods are ours: one prompt pass per instruction, one
task-model call per update, exact resume. On a fixed batch in fp32 the losses are TRL's
(tests/train/test_ppo_matches_trl.py).

Where it departs from the paper (arXiv 2401.08189): the paper names PPO, a KL penalty and GAE and gives no number; all
hyperparameters here are ours. The KL penalty is in the reward of each token (InstructGPT's form, and TRL's). The KL
reference may be a warm-started model. Training stops on the dev score of the greedy rewrites, with a patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from transformers import set_seed

from prewrite.data import PRewriteDataset
from prewrite.errors import BudgetExceededError, TaskModelError
from prewrite.lm.tokens import decode, end_ids
from prewrite.rewriter.meta_prompts import extract_rewrite, load_meta_prompt
from prewrite.rewriter.policy import Completions, PolicyWithValueHead, Prompts, TokenStats, ValueHead, pad_prompts
from prewrite.rewriter.rewriter import Rewriter, RewriterSettings, query_ids, save_rewriter
from prewrite.rewriter.starter import load_base
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import Graded, TaskReward
from prewrite.task_models.stream import answers_elsewhere
from prewrite.train import checkpoint, processes
from prewrite.train.cost import RunCost
from prewrite.train.dev_stopping import DevStopping
from prewrite.train.kl import KLController
from prewrite.train.mixture import Mixture
from prewrite.train.steps import (
    Clock,
    clear_sampling_defaults,
    draw_examples,
    draw_instructions,
    grade,
    rollout_rows,
    step_rng,
    summarise,
)
from prewrite.train.trl_ppo import PPOTrainer, policy_wrapper, ppo_config, ppo_trainer
from prewrite.types import RewriteExample


class RolloutBatch(NamedTuple):
    """What the policy wrote in one update, on this process; `logprobs` adds what it and the reference think of it."""

    instructions: list[str]  # (B,), one per row
    texts: list[str]
    rewrites: list[str]
    prompts: Prompts
    completions: Completions
    old: TokenStats | None  # None where sampling does not tell it
    ref_logprobs: torch.Tensor | None = None  # (B, T)


class Estimates(NamedTuple):
    """Targets of the update."""

    advantages: torch.Tensor  # (B, T), whitened
    returns: torch.Tensor  # (B, T)
    value_mask: torch.Tensor  # (B, T), sampled tokens and the state after the last one
    kl: torch.Tensor  # (B,), summed over tokens, in nats


class PRewritePPOTrainer(PPOTrainer):
    """Trains `base_model` to rewrite the instructions of `train_dataset` so that the task model scores better.

    Args:
        base_model: folder, hub id or `embedded`; or a loaded (model, tokenizer) pair.
        evaluator: scores rewrites with the frozen task model.
        meta_family: the meta prompt, see `meta_prompts`.
        log_dir: the run folder; metrics, rollouts and checkpoints go there.
        train_dataset: rows, or a `Mixture` of instructions and their rows; each update draws its examples from them.
        dev_dataset: rows that decide which policy is kept and when to stop.
        reward: what a rewrite earns; by default the evaluator's metric and the default guards.
        warm_start: folder of an adapter that is merged into the base model first and becomes the KL reference.
        lora: a `peft.LoraConfig`, or None for full finetuning.
        examples_per_rewrite: rows that every rewrite of an instruction is scored on in one update.
        instructions_per_step: distinct instructions in one update; the rollouts are shared out evenly.
        max_steps: PPO updates.
        eval_steps, patience, dev_examples: score the greedy rewrites every `eval_steps` updates on up to
            `dev_examples` dev rows; stop after `patience` evaluations without a better one (0: never stop early).
        save_steps: updates between checkpoints.
        entropy_coef: bonus for entropy, in reward per nat; 0 for none.
        target_kl: if set, `kl_coef` adapts so that the KL per completion approaches it, in nats.
        settings: any field of `trl.PPOConfig`; what is not given comes from `trl_ppo.PPO_DEFAULTS`, then from TRL.
    """

    def __init__(
        self,
        base_model,
        evaluator: Evaluator,
        meta_family: str = "generic",
        log_dir: str | Path = "runs/rewriter-ppo",
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
        entropy_coef: float = 0.0,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        **settings,
    ):
        meta_prompt = load_meta_prompt(meta_family)
        self.run_folder = RunFolder(Path(log_dir))
        args = ppo_config(settings, max_steps, self.run_folder.path)
        self.run_folder.path.mkdir(parents=True, exist_ok=True)
        if isinstance(base_model, tuple):
            (model, tokenizer), name = base_model, "custom"
        else:
            model, tokenizer = load_base(str(base_model), warm_start=warm_start)
            name = str(base_model)
        clear_sampling_defaults(model)
        ends = end_ids(model, tokenizer)
        set_seed(args.seed)  # TRL draws the adapter before it seeds
        with policy_wrapper(PolicyWithValueHead):
            super().__init__(
                args=args,
                processing_class=tokenizer,
                model=model,
                ref_model=None,
                reward_model=torch.nn.Identity(),  # never called: `score` asks the task model
                train_dataset=[{"input_ids": [0]}],  # never read: `rollout` writes its own prompts
                value_model=ValueHead.of(model),
                peft_config=lora,
            )
        # TRL knows one token that ends a completion; the model may have several.
        self.end_ids = ends if args.stop_token == "eos" else tuple(filter(None, [self.stop_token_id]))
        model.generation_config.eos_token_id = list(ends)
        for printer in (ppo_trainer.PrinterCallback, ppo_trainer.DEFAULT_PROGRESS_CALLBACK):
            self.callback_handler.pop_callback(printer)  # `progress` is the caller's one line per update
        self.evaluator = evaluator
        self.mixture = Mixture.of(train_dataset)
        self.reward = reward or TaskReward(evaluator)
        self.examples_per_rewrite = examples_per_rewrite
        self.instructions_per_step = min(instructions_per_step, len(self.mixture.rows), args.batch_size)
        self.save_every = save_steps
        self.warm_start = Path(warm_start) if warm_start is not None else None
        self.entropy_coef = entropy_coef
        self.kl_controller = KLController(args.kl_coef, target=target_kl)
        self.progress = progress
        self.settings = RewriterSettings(
            base_model=name,
            meta_prompt=meta_prompt,
            templates=self.mixture.templates,
            max_new_tokens=args.response_length,
            temperature=args.temperature,
        )
        self.dev = DevStopping(
            dev_dataset, self.reward, every=eval_steps, patience=patience, limit=dev_examples, seed=args.seed
        )
        self.cost = RunCost(evaluator.task_model)
        self.stop_requested = False

    # ---- the loop -------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | Path | None = None) -> dict[str, float]:
        """Run PPO updates until `max_steps`, the dev set's patience, or a stop request; restore the best policy.

        Returns the metrics of the last update. A stop request (`self.stop_requested = True`, as Ctrl-C sets it)
        ends the loop after the running update, with a checkpoint.
        """
        self._begin(resume_from_checkpoint)
        metrics: dict[str, float] = {}
        if self.state.global_step == 0 and self.dev.due(0):
            self._evaluate_on_dev(0)
        for step in range(self.state.global_step + 1, self.args.num_total_batches + 1):
            clock = Clock()
            batch = self.rollout(step)
            clock.lap("rollout")
            batch, graded = self._logprobs_and_score(batch, step, clock)
            clock.lap("score")
            estimates = self.advantages(batch, graded)
            losses = self.update(batch, estimates, step)
            clock.lap("update")
            metrics = self._finish_step(step, batch, graded, estimates, losses, clock.seconds)
            if self.control.should_training_stop:
                break
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        if not self.stop_requested:
            self._restore_best()
        return metrics

    @torch.no_grad()
    def rollout(self, step: int) -> RolloutBatch:
        """Sample rewrites of this update's instructions."""
        args, tokenizer, device = self.args, self.processing_class, self.accelerator.device
        process, count = self.accelerator.process_index, args.local_batch_size
        names = draw_instructions(self.mixture, self.instructions_per_step, seed=args.seed, step=step)
        rows = np.arange(process * count, (process + 1) * count) % len(names)
        tokens = step_rng("tokens", seed=args.seed, step=step, process=process)
        prompt_ids = [query_ids(self.settings.query(name), tokenizer) for name in names]
        prompts = pad_prompts(prompt_ids, rows, tokenizer.pad_token_id, device)
        policy = self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast():
            completions, old = policy.sample_scored(
                prompts,
                max_new_tokens=args.response_length,
                end_ids=self.end_ids,
                pad_token_id=tokenizer.pad_token_id,
                temperature=args.temperature,
                generator=torch.Generator(device).manual_seed(int(tokens.integers(2**62))),
            )
        texts = decode(tokenizer, completions.token_lists(), self.end_ids)
        rewrites = [extract_rewrite(text) for text in texts]
        return RolloutBatch([names[r] for r in rows], texts, rewrites, prompts, completions, old)

    def score(self, batch: RolloutBatch, step: int) -> list[Graded]:
        """What each rewrite earns. Rewrites of one instruction are graded on the same examples, each text once."""
        count, seed, rows = self.examples_per_rewrite, self.args.seed, self.mixture.rows

        def examples(instruction: str) -> list[RewriteExample]:
            return draw_examples(rows[instruction], count, seed=seed, step=step, instruction=instruction)

        return grade(self.reward, batch.instructions, batch.rewrites, examples, step=step)

    @torch.no_grad()
    def logprobs(self, batch: RolloutBatch) -> RolloutBatch:
        """`batch` with its tokens' log-probabilities under policy and reference, and their values."""
        old = self._forward(batch.prompts, batch.completions) if batch.old is None else batch.old
        if self.is_peft_model:
            ref = self._forward(batch.prompts, batch.completions, use_adapter=False)
        else:
            ref_model = PolicyWithValueHead(self.ref_model, self._unwrapped().value_model)
            ref = ref_model(batch.prompts, batch.completions, temperature=self.args.temperature)
        return batch._replace(old=old, ref_logprobs=ref.logprobs)

    @torch.no_grad()
    def advantages(self, batch: RolloutBatch, graded: Sequence[Graded]) -> Estimates:
        """Per-token rewards (minus the KL penalty, plus the reward at the end), then GAE and whitening.

        With `entropy_coef` c every token earns -c log p(token) as well, whose mean is c times the policy's entropy
        there (maximum-entropy RL: Haarnoja et al., arXiv 1801.01290, equation 1).

        As TRL: the reward sits one position after the end-of-sequence token where there is room, and the value of
        the state there is trained too. GAE: delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum of (gamma lambda)^l
        delta_{t+l} (Schulman et al., arXiv 1506.02438, equation 16).
        """
        args, mask = self.args, batch.completions.mask
        count, width = mask.shape
        lengths = mask.sum(1)
        end = torch.where(lengths < width, lengths, lengths - 1)
        value_mask = torch.arange(width, device=mask.device) <= lengths[:, None]
        values = batch.old.values.masked_fill(~value_mask, 0.0)

        log_ratio = batch.ref_logprobs - batch.old.logprobs
        kl = -log_ratio if args.kl_estimator == "k1" else log_ratio.exp() - 1 - log_ratio
        rewards = -self.kl_controller.coefficient * kl - self.entropy_coef * batch.old.logprobs
        scores = torch.tensor([g.reward.total for g in graded], device=mask.device, dtype=rewards.dtype)
        if args.missing_eos_penalty is not None:
            ends = torch.tensor(self.end_ids, device=mask.device)
            ended = (torch.isin(batch.completions.ids, ends) & mask).any(1)
            scores = torch.where(ended, scores, scores - args.missing_eos_penalty)
        rewards[torch.arange(count), end] += scores
        if args.whiten_rewards:
            rewards = ppo_trainer.masked_whiten(rewards, value_mask, shift_mean=False).masked_fill(~value_mask, 0.0)

        advantages = torch.zeros_like(values)
        running = torch.zeros(count, device=mask.device)
        for t in reversed(range(width)):
            next_values = values[:, t + 1] if t + 1 < width else 0.0
            delta = rewards[:, t] + args.gamma * next_values - values[:, t]
            running = delta + args.gamma * args.lam * running
            advantages[:, t] = running
        returns = advantages + values
        names = list(self.mixture.rows)
        tasks = torch.tensor([names.index(name) for name in batch.instructions], device=mask.device)
        whitened = self._whiten(advantages, mask, tasks, len(names)).masked_fill(~mask, 0.0)
        return Estimates(whitened, returns, value_mask, kl.sum(1))

    def update(self, batch: RolloutBatch, estimates: Estimates, step: int) -> dict[str, float]:
        """Epochs of clipped PPO on the batch (Schulman et al., arXiv 1707.06347, equation 7); mean losses."""
        args = self.args
        rng = step_rng("minibatches", seed=args.seed, step=step, process=self.accelerator.process_index)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        history: list[dict[str, float]] = []
        for _ in range(args.num_ppo_epochs):
            order = rng.permutation(args.local_batch_size)
            for mini in np.split(order, args.num_mini_batches):
                token_count = batch.completions.mask[mini].sum()
                value_count = estimates.value_mask[mini].sum()
                for at in range(0, len(mini), args.per_device_train_batch_size):
                    rows = mini[at : at + args.per_device_train_batch_size]
                    loss, stats = self._loss(batch, estimates, rows, token_count, value_count)
                    # accelerate divides by its accumulation steps; the sums above are over the mini-batch already
                    self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)
                    history.append(stats)
                if args.max_grad_norm:
                    self.accelerator.clip_grad_norm_(parameters, args.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        updates = args.num_ppo_epochs * args.num_mini_batches
        return {name: sum(stats[name] for stats in history) / updates for name in history[0]}

    def _loss(self, batch, estimates, rows, token_count, value_count) -> tuple[torch.Tensor, dict[str, float]]:
        """This micro-batch's share of its mini-batch's loss."""
        args = self.args
        completions = Completions(batch.completions.ids[rows], batch.completions.mask[rows])
        prompts = batch.prompts._replace(rows=batch.prompts.rows[rows])
        mask, value_mask = completions.mask, estimates.value_mask[rows]
        advantages, returns = estimates.advantages[rows], estimates.returns[rows]
        old_values = batch.old.values[rows].masked_fill(~value_mask, 0.0)

        new = self._forward(prompts, completions)
        ratio = (new.logprobs - batch.old.logprobs[rows]).exp()
        clipped = ratio.clamp(1 - args.cliprange, 1 + args.cliprange)
        policy_losses = torch.maximum(-advantages * ratio, -advantages * clipped)
        policy_loss = policy_losses[mask].sum() / token_count

        values = new.values.masked_fill(~value_mask, 0.0)
        near_old = old_values + (values - old_values).clamp(-args.cliprange_value, args.cliprange_value)
        value_losses = torch.maximum((values - returns).square(), (near_old - returns).square())
        value_loss = 0.5 * value_losses[value_mask].sum() / value_count

        with torch.no_grad():
            log_ratio = (new.logprobs - batch.old.logprobs[rows])[mask]
            stats = {
                "loss/policy": policy_loss.item(),
                "loss/value": value_loss.item(),
                "ppo/clip_fraction": ((ratio - 1).abs() > args.cliprange)[mask].sum().item() / token_count.item(),
                "ppo/approx_kl": 0.5 * log_ratio.square().sum().item() / token_count.item(),
                "ppo/ratio": ratio[mask].sum().item() / token_count.item(),
            }
        return policy_loss + args.vf_coef * value_loss, stats

    # ---- parts of the loop ----------------------------------------------------------------------------------------

    def _logprobs_and_score(self, batch: RolloutBatch, step: int, clock: Clock) -> tuple[RolloutBatch, list[Graded]]:
        """`logprobs` and `score`; at the same time where the task model runs elsewhere.

        With several processes each of the two may talk to the others, so there they take turns. If the task model
        fails, what was trained so far is saved before the error goes on; if it fails another process than the main
        one, the launcher ends them all, and the last regular checkpoint counts.
        """
        beside = answers_elsewhere(self.evaluator.task_model) and self.accelerator.num_processes == 1
        try:
            if beside:
                with ThreadPoolExecutor(1) as thread:
                    passes = thread.submit(self.logprobs, batch)
                    graded = self.score(batch, step)
                return passes.result(), graded
            batch = self.logprobs(batch)
            clock.lap("rollout")
            return batch, self.score(batch, step)
        except (TaskModelError, BudgetExceededError):
            if self.state.global_step > 0:
                self.save_checkpoint()  # sampling has changed no weight since the last update
            raise

    def _forward(self, prompts: Prompts, completions: Completions, *, use_adapter: bool = True) -> TokenStats:
        return self.model(prompts, completions, temperature=self.args.temperature, use_adapter=use_adapter)

    def _whiten(self, values: torch.Tensor, mask: torch.Tensor, tasks: torch.Tensor, count: int) -> torch.Tensor:
        """Mean 0, variance 1 over all processes' sampled tokens of each instruction; `tasks` (B,) numbers them.

        Per instruction, because tasks differ in how high and how widely their rewards lie: whitened together, the
        easy task's rewrites would all look good. With one instruction this is TRL's whitening.
        """
        which = tasks[:, None].expand_as(mask)[mask]
        picked = values[mask].double()
        sums = torch.zeros(3, count, dtype=torch.float64, device=mask.device)
        sums.index_add_(1, which, torch.stack([picked, picked.square(), torch.ones_like(picked)]))
        total, squares, tokens = self.accelerator.reduce(sums, "sum")
        mean = total / tokens
        variance = (squares / tokens - mean.square()) * tokens / (tokens - 1).clamp(min=1)
        mean, variance = mean[tasks, None].to(values.dtype), variance[tasks, None].to(values.dtype)
        return (values - mean) * torch.rsqrt(variance + 1e-8)

    def _finish_step(self, step, batch, graded, estimates, losses, seconds) -> dict[str, float]:
        """Log, evaluate on dev, save; decide whether to go on."""
        args = self.args
        self.kl_controller.update(self.accelerator.reduce(estimates.kl.mean(), "mean").item())
        self.state.global_step = step
        self.state.episode += args.batch_size
        self.state.epoch = step / args.num_total_batches
        kl = estimates.kl.tolist()
        rows = rollout_rows(step, batch.instructions, batch.texts, batch.rewrites, graded, kl)
        rows = gather_object(rows)
        entropy = batch.old.entropy.sum() / batch.completions.mask.sum()
        metrics = summarise(rows) | {
            "kl/coefficient": self.kl_controller.coefficient,
            "entropy/mean": entropy.item(),
            "completion/tokens": batch.completions.mask.sum(1).float().mean().item(),
            "lr": self.lr_scheduler.get_last_lr()[0],
            **losses,
            **{f"time/{name}": value for name, value in seconds.items()},
        }
        self.lr_scheduler.step()
        self.cost.collect()
        started = time.perf_counter()
        if self.dev.due(step, last=step == args.num_total_batches):
            metrics["dev/score"] = self._evaluate_on_dev(step)
            metrics["time/dev"] = time.perf_counter() - started
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.metrics, [{"step": step, **metrics}])
            self.run_folder.append(self.run_folder.rollouts, rows)
        self.control = self.callback_handler.on_step_end(args, self.state, self.control)
        self.control = self.callback_handler.on_log(args, self.state, self.control, metrics)
        if self.progress is not None:
            self.progress(step, metrics)
        stop = processes.any_of(self.stop_requested)
        if stop:
            self.stop_requested = True  # asked of another process, maybe
        if stop or self.dev.exhausted:
            self.control.should_training_stop = True
        if stop or step % self.save_every == 0 or step == args.num_total_batches:
            self.save_checkpoint()
        return metrics

    def _evaluate_on_dev(self, step: int) -> float:
        """Greedy rewrites of all instructions on dev; remembers the policy if it is the best so far."""
        result = self.dev.evaluate(step, self.rewriter().greedy)
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.rewrites, result.rows)
        if result.is_best:
            self.dev.best_state = checkpoint.trainable_state(self._unwrapped())
        return result.score

    @property
    def updates(self) -> int:
        """Updates done."""
        return self.state.global_step

    def rewriter(self) -> Rewriter:
        """The policy as it is now, for writing rewrites."""
        return Rewriter(self._unwrapped(), self.processing_class, self.settings)

    def _unwrapped(self) -> PolicyWithValueHead:
        return self.accelerator.unwrap_model(self.model)

    # ---- begin, save, resume --------------------------------------------------------------------------------------

    def _begin(self, resume_from: str | Path | None) -> None:
        self.state.max_steps = self.args.num_total_batches
        self.state.num_train_epochs = 1
        self.state.episode = 0
        if resume_from is not None:
            checkpoint.load(self, Path(resume_from))
            if self.accelerator.is_main_process:
                self.run_folder.truncate_all(after_step=self.state.global_step)
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)

    def save_checkpoint(self) -> None:
        """Write everything that the next update depends on to the run folder's `checkpoints/`."""
        if self.accelerator.is_main_process:
            checkpoint.save(self)

    def _restore_best(self) -> None:
        if self.dev.best_state is not None:
            checkpoint.load_trainable_state(self._unwrapped(), self.dev.best_state)

    def save_rewriter(self) -> Path:
        """Write the policy as it is now to the run folder's `rewriter/`."""
        save_rewriter(
            self.run_folder.rewriter,
            self._unwrapped().policy,
            self.settings,
            warm_start=self.warm_start,
            tokenizer=self.processing_class,
        )
        return self.run_folder.rewriter
