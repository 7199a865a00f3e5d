"""PPO for a rewriter: the main path of the package, top to bottom.

    for each update:   rollout  ->  score  ->  advantages  ->  update  ->  finish

Construction, TRL's state and checkpoints are in `trl_ppo.py`, what all algorithms share in `trainer.py`. The loop is
ours: one prompt pass per instruction, one task-model call per update, exact resume. On a fixed batch in fp32 the
losses are TRL's (tests/train/test_ppo_matches_trl.py).

Where it departs from the paper (arXiv 2401.08189): the paper names PPO, a KL penalty and GAE and gives no number; all
hyperparameters here are ours. The KL penalty is in the reward of each token (InstructGPT's form, and TRL's). The KL
reference may be a warm-started model. Training stops on the dev score of the greedy rewrites, with a patience.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray

from prewrite.errors import BudgetExceededError, MetricError, TaskModelError, TrainingError
from prewrite.lm.packing import Completions, Prompts, pad_prompts
from prewrite.lm.tokens import decode
from prewrite.rewriter.meta_prompts import extract_rewrite
from prewrite.rewriter.policy import TokenStats
from prewrite.rewriter.rewriter import query_ids
from prewrite.scoring.rewards import Graded
from prewrite.train.clock import Clock
from prewrite.train.draws import draw_instructions, step_rng
from prewrite.train.health import check_logprobs, finite
from prewrite.train.records import rollout_rows, summarise
from prewrite.train.trl_ppo import TRLPPOTrainer, ppo_trainer
from prewrite.train.whitening import whiten


class RolloutBatch(NamedTuple):
    """What the policy wrote in one update, on this process, and what policy and reference think of its tokens."""

    instructions: list[str]  # (B,), one per row
    texts: list[str]
    rewrites: list[str]
    prompts: Prompts
    completions: Completions
    old: TokenStats
    ref_logprobs: torch.Tensor  # (B, T)


class Estimates(NamedTuple):
    """Targets of the update."""

    advantages: torch.Tensor  # (B, T), whitened
    returns: torch.Tensor  # (B, T)
    value_mask: torch.Tensor  # (B, T), sampled tokens and the state after the last one
    kl: torch.Tensor  # (B,), summed over tokens, in nats


class PRewritePPOTrainer(TRLPPOTrainer):
    """Trains a rewriter by PPO.

    Args:
        *arguments: those of `RewriterTrainer`.
        **settings: those of `RewriterTrainer` by name, and any field of `trl.PPOConfig`. What is not given comes from
            `trl_ppo.PPO_DEFAULTS`, then from TRL.
        entropy_coef: bonus for entropy, in reward per nat; 0 for none.
    """

    def __init__(self, *arguments: Any, entropy_coef: float = 0.0, **settings: Any):
        super().__init__(*arguments, **settings)
        self.entropy_coef = entropy_coef

    def run_updates(self, resume_from_checkpoint: str | Path | None) -> dict[str, float]:
        """Run updates until `max_steps`, the dev set's patience, or a stop request; restore the best policy."""
        self.begin(resume_from_checkpoint)
        metrics: dict[str, float] = {}
        last = self.updates if self.dev.exhausted else self.max_updates  # a resumed run may have ended already
        for step in range(self.updates + 1, last + 1):
            clock = Clock()
            batch = self.rollout(step)
            check_logprobs(step, rewriter=batch.old.logprobs, reference=batch.ref_logprobs)
            clock.lap("rollout")
            graded = self.score(batch, step)
            clock.lap("score")
            estimates = self.advantages(batch, graded)
            losses = self.update(batch, estimates, step)
            clock.lap("update")
            metrics = self.finish(step, batch, graded, estimates, losses, clock)
            if self.control.should_training_stop:
                break
        self.end()
        return metrics

    @torch.no_grad()
    def rollout(self, step: int) -> RolloutBatch:
        """Sample rewrites of this update's instructions, and let policy and reference score their tokens."""
        args, tokenizer, device = self.args, self.processing_class, self.accelerator.device
        process, count = self.accelerator.process_index, args.local_batch_size
        names = draw_instructions(self.mixture, self.instructions_per_step, seed=args.seed, step=step)
        rows = [row % len(names) for row in range(process * count, (process + 1) * count)]
        queries = [query_ids(self.settings.query(name), tokenizer) for name in names]
        prompts = pad_prompts(queries, rows, tokenizer.pad_token_id, device)
        tokens = step_rng("tokens", seed=args.seed, step=step, process=process)
        with self.accelerator.autocast():
            completions, old = self.policy.sample_scored(
                prompts,
                max_new_tokens=args.response_length,
                end_ids=self.end_ids,
                pad_token_id=tokenizer.pad_token_id,
                temperature=args.temperature,
                generator=torch.Generator(device).manual_seed(int(tokens.integers(2**62))),
            )
        old = self.forward(prompts, completions) if old is None else old  # sampling may have computed it
        ref_logprobs = self.reference(prompts, completions).logprobs
        texts = decode(tokenizer, completions.token_lists(), self.end_ids)
        rewrites = [extract_rewrite(text) for text in texts]
        return RolloutBatch([names[row] for row in rows], texts, rewrites, prompts, completions, old, ref_logprobs)

    def score(self, batch: RolloutBatch, step: int) -> list[Graded]:
        """What each rewrite earns. Rewrites of one instruction are graded on the same examples, each text once.

        If the task model or the metric fails, what was trained so far is saved before the error goes on. If that is
        in another process than the main one, the launcher ends them all, and the last regular checkpoint counts.
        """
        try:
            return self.grade(batch.rewrites, batch.instructions, step)
        except (TaskModelError, BudgetExceededError, MetricError, TrainingError):
            if self.updates > 0:
                self.save_checkpoint()  # sampling has changed no weight since the last update
            raise

    @torch.no_grad()
    def advantages(self, batch: RolloutBatch, graded: Sequence[Graded]) -> Estimates:
        """Per-token rewards (minus the KL penalty, plus the reward at the end), then GAE and whitening.

        With `entropy_coef` c every token earns -c log p(token) as well, whose mean is c times the policy's entropy
        there (maximum-entropy RL: Haarnoja et al., arXiv 1801.01290, equation 1).

        As TRL: the reward sits one position after the token that ends a completion where there is room, and the
        value of the state there is trained too. GAE: delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum of
        (gamma lambda)^l delta_{t+l} (Schulman et al., arXiv 1506.02438, equation 16). Advantages are whitened per
        instruction, because tasks differ in how high and how widely their rewards lie: whitened together, the easy
        task's rewrites would all look good.
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
            ends = torch.tensor(self.end_ids, dtype=torch.long, device=mask.device)
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
        groups = torch.tensor([names.index(name) for name in batch.instructions], device=mask.device)
        whitened = whiten(advantages, mask, groups, len(names), self.accelerator)
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
                self.health.drop_bad_gradients(parameters)
                if args.max_grad_norm:
                    self.accelerator.clip_grad_norm_(parameters, args.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        updates = args.num_ppo_epochs * args.num_mini_batches
        means = {name: sum(stats[name] for stats in history) / updates for name in history[0]}
        return finite(means) | self.health.finish_update(step, parameters)

    def _loss(
        self,
        batch: RolloutBatch,
        estimates: Estimates,
        rows: NDArray[np.int64],
        token_count: torch.Tensor,
        value_count: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """This micro-batch's share of its mini-batch's loss."""
        args = self.args
        completions = Completions(batch.completions.ids[rows], batch.completions.mask[rows])
        prompts = batch.prompts._replace(rows=batch.prompts.rows[rows])
        mask, value_mask = completions.mask, estimates.value_mask[rows]
        advantages, returns = estimates.advantages[rows], estimates.returns[rows]
        old_values = batch.old.values[rows].masked_fill(~value_mask, 0.0)

        new = self.forward(prompts, completions)
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

    def finish(
        self,
        step: int,
        batch: RolloutBatch,
        graded: Sequence[Graded],
        estimates: Estimates,
        losses: dict[str, float],
        clock: Clock,
    ) -> dict[str, float]:
        """Log the update, score dev, save, and decide whether training ends here; the update's metrics."""
        self.kl_controller.update(self.accelerator.reduce(estimates.kl.mean(), "mean").item())
        rows = rollout_rows(step, batch.instructions, batch.texts, batch.rewrites, graded, estimates.kl.tolist())
        rows = gather_object(rows)
        mask = batch.completions.mask
        metrics = summarise(rows) | {
            "kl/coefficient": self.kl_controller.coefficient,
            "entropy/mean": (batch.old.entropy.sum() / mask.sum()).item(),
            "completion/tokens": mask.sum(1).float().mean().item(),
            "lr": self.lr_scheduler.get_last_lr()[0],
            **losses,
        }
        self.count_update()
        self.cost.collect()
        metrics |= self.score_dev(clock) | clock.metrics()
        self.log_update(metrics, rows)
        self.tell_callbacks(metrics)
        self.end_without_hope(rows)  # before the save, which holds what it has counted
        stop, save = self.next_step()
        if stop:
            self.control.should_training_stop = True
        if save:
            self.save_checkpoint()
        return metrics
