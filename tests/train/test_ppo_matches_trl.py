"""On a fixed batch in fp32 our update is stock TRL's: same losses, same KL, same weights after it.

Stock `PPOTrainer.train()` of the installed TRL runs with its rollouts replaced by fixed completions and its reward
model by fixed scores; ours gets the same weights, completions and scores. Both share one trunk for policy and value.
"""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from toy import INSTRUCTION, toy_model, toy_trainer
from transformers.modeling_outputs import BaseModelOutput
from trl import PPOConfig, PPOTrainer
from trl.trainer import ppo_trainer

from prewrite.lm.packing import Completions, pad_prompts
from prewrite.rewriter.meta_prompts import build_meta_prompt
from prewrite.rewriter.policy import ValueHead
from prewrite.rewriter.rewriter import query_ids
from prewrite.scoring.rewards import Graded
from prewrite.train.ppo import RolloutBatch
from prewrite.types import Reward

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 7
# eos is 1, pad is 0: ends early, ends at once, ends on the last place, never ends.
RESPONSES = [[3, 6, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 4, 1], [4, 4, 6, 10, 11, 12, 3]] * 2
SCORES = [0.9, 0.1, 0.4, 0.7, 0.2, 0.8, 0.5, 0.3]
SETTINGS = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_ppo_epochs": 3, "kl_coef": 0.3,
    "response_length": LENGTH, "temperature": 1.0, "learning_rate": 1e-3, "seed": 3, "lr_scheduler_type": "constant",
    "vf_coef": 0.5, "lam": 0.9, "gamma": 0.99,
}  # fmt: skip


class FixedReward(nn.Module):
    """A reward model whose score of row i is SCORES[i], in the shape that TRL reads."""

    base_model_prefix = "backbone"

    def __init__(self):
        super().__init__()
        self.backbone = self._Backbone()

    class _Backbone(nn.Module):
        def forward(self, input_ids, **kwargs):
            scores = torch.tensor(SCORES)[:, None, None].expand(-1, input_ids.shape[1], 1)
            return BaseModelOutput(hidden_states=(scores,))

    def score(self, hidden):
        return hidden


class SharedTrunkValue(nn.Module):
    """TRL's value model on the policy's own trunk, with our head."""

    base_model_prefix = "trunk"

    def __init__(self, policy, head):
        super().__init__()
        self.head = head
        self.__dict__["trunk"] = policy.model

    def score(self, hidden):
        return self.head(hidden)


def nudged_models():
    """Policy, reference and value head that differ, so that KL and values are not 0."""
    model, tokenizer = toy_model(seed=5)
    reference = copy.deepcopy(model)
    head = ValueHead(model.config.hidden_size)
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in [*model.parameters(), *head.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, reference, head, tokenizer


def run_stock(tmp_path, monkeypatch):
    model, reference, head, tokenizer = nudged_models()
    prompt = query_ids(build_meta_prompt(INSTRUCTION), tokenizer)
    logged = []

    def fixed_generation(policy, queries, *args):
        ids = torch.cat([queries, torch.tensor(RESPONSES)], dim=1)
        mask = torch.cat([torch.ones_like(queries), (torch.tensor(RESPONSES) != 0).long()], dim=1)
        with torch.no_grad():
            logits = policy(ids, attention_mask=mask).logits[:, queries.shape[1] - 1 : -1]
        return ids, logits

    monkeypatch.setattr(ppo_trainer, "batch_generation", fixed_generation)
    args = PPOConfig(
        output_dir=str(tmp_path), stop_token="eos", num_sample_generations=0, use_cpu=True, bf16=False,
        report_to="none", total_episodes=8, save_strategy="no", gradient_checkpointing=False, **SETTINGS,
    )  # fmt: skip
    trainer = PPOTrainer(
        args, tokenizer, model, reference, FixedReward(), Dataset.from_dict({"input_ids": [prompt] * 8}),
        SharedTrunkValue(model, head),
    )  # fmt: skip
    monkeypatch.setattr(trainer, "log", lambda metrics, *rest: logged.append(metrics))
    np.random.seed(0)
    trainer.train()
    return model, head, logged[0]


def run_ours(tmp_path):
    model, reference, head, tokenizer = nudged_models()
    trainer = toy_trainer(str(tmp_path), max_steps=1, max_grad_norm=0.0, **{**SETTINGS, "seed": 3})
    policy = trainer.accelerator.unwrap_model(trainer.model)
    policy.policy.load_state_dict(model.state_dict())
    trainer.ref_model.load_state_dict(reference.state_dict())
    policy.value_model.load_state_dict(head.state_dict())

    prompts = pad_prompts([query_ids(build_meta_prompt(INSTRUCTION), tokenizer)], [0] * 8, 0, "cpu")
    ids = torch.tensor(RESPONSES)
    completions = Completions(ids, ids != 0)
    with torch.no_grad():
        old = trainer.model(prompts, completions)
        ref = type(policy)(trainer.ref_model, policy.value_model)(prompts, completions)
    batch = RolloutBatch([INSTRUCTION] * 8, [""] * 8, [""] * 8, prompts, completions, old, ref.logprobs)
    estimates = trainer.advantages(batch, [Graded(Reward(score, {"task": score}), ()) for score in SCORES])
    losses = trainer.update(batch, estimates, step=1)
    return policy.policy, policy.value_model, losses, estimates


def test_losses_kl_and_weights_equal_stock_trl(tmp_path, monkeypatch):
    stock_model, stock_head, stock = run_stock(tmp_path / "stock", monkeypatch)
    model, head, losses, estimates = run_ours(tmp_path / "ours")

    assert losses["loss/policy"] == pytest.approx(stock["loss/policy_avg"], abs=1e-4)
    assert losses["loss/value"] == pytest.approx(stock["loss/value_avg"], abs=1e-4)
    assert estimates.kl.mean().item() == pytest.approx(stock["objective/kl"], abs=1e-4)
    assert abs(stock["objective/kl"]) > 0.01 and stock["loss/value_avg"] > 0.01  # neither is trivially 0
    for (name, ours), (_, theirs) in zip(model.named_parameters(), stock_model.named_parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4), name
    assert torch.allclose(head.score.weight, stock_head.score.weight, atol=1e-4)
