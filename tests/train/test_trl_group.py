"""GRPO and RLOO with prompts read once compute what TRL computes when it reads them for every rewrite."""

import json

import pytest
import torch
from peft import LoraConfig
from toy import toy_evaluator, toy_model, toy_rows

from prewrite.data import PRewriteDataset
from prewrite.scoring.rewards import TaskReward
from prewrite.train.algorithms import ALGORITHMS
from prewrite.train.trl_group import SharedPrompts, distinct
from prewrite.types import RewriteExample

pytestmark = pytest.mark.usefixtures("one_thread")
both = pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
lora_or_not = pytest.mark.parametrize("lora", [True, False])


def group_trainer(algorithm, log_dir, *, lora=True, **settings):
    evaluator = toy_evaluator()
    defaults = {
        "train_dataset": toy_rows(), "reward": TaskReward(evaluator, guards=()), "max_steps": 2, "seed": 0,
        "per_device_train_batch_size": 8, "num_iterations": 2, "examples_per_rewrite": 2, "beta": 0.05,
        "max_completion_length": 6, "learning_rate": 1e-2, "temperature": 0.8,
        "lora": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if lora else None,
    }  # fmt: skip
    return ALGORITHMS[algorithm].trainer_class()(toy_model(0), evaluator, log_dir=log_dir, **(defaults | settings))


def rows_of_tokens(device="cpu"):
    """Two prompts of different lengths, three completions that end at different places."""
    ids = torch.tensor([[0, 0, 3, 4, 5, 6, 1, 0], [3, 4, 8, 10, 7, 6, 5, 1], [0, 0, 3, 4, 9, 12, 6, 1]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0], [1] * 8, [0, 0, 1, 1, 1, 1, 1, 1]])
    return ids.to(device), mask.to(device), 4


def gradients_of(trainer, logprobs, mask):
    trainer.model.zero_grad()
    (logprobs * mask * torch.arange(1.0, 1 + mask.numel(), device=mask.device).view_as(mask)).sum().backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@both
@lora_or_not
def test_log_probabilities_entropies_and_gradients_are_those_of_trl(tmp_path, algorithm, lora):
    trainer = group_trainer(algorithm, tmp_path, lora=lora)
    ids, mask, kept = rows_of_tokens(trainer.accelerator.device)
    shared = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, kept, compute_entropy=True)
    theirs = super(SharedPrompts, trainer)._get_per_token_logps_and_entropies(
        trainer.model, ids, mask, kept, compute_entropy=True
    )
    assert len(shared) == len(theirs)
    real = mask[:, -kept:].bool()
    for ours, stock in zip(shared[:2], theirs[:2], strict=True):
        torch.testing.assert_close(ours[real], stock[real], rtol=1e-4, atol=1e-5)
    left, right = (gradients_of(trainer, found[0], real) for found in (shared, theirs))
    assert left.keys() == right.keys() != set()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-5)


@both
@lora_or_not
def test_a_run_learns_the_parameters_of_a_run_on_trls_own_passes(tmp_path, monkeypatch, algorithm, lora):
    def parameters(name):
        trainer = group_trainer(algorithm, tmp_path / name, lora=lora)
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
        return before, {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}

    before, shared = parameters("shared")
    monkeypatch.delattr(SharedPrompts, "_get_per_token_logps_and_entropies")
    _, stock = parameters("stock")
    moved = sum(float((shared[name] - before[name]).abs().sum()) for name in shared)
    apart = sum(float((shared[name] - stock[name]).abs().sum()) for name in shared)
    assert moved > 0
    assert apart < 0.02 * moved


@both
def test_the_likeliest_tokens_are_those_that_transformers_generates(tmp_path, monkeypatch, algorithm):
    def texts(name):
        names = ["solve the task", "answer now", "think carefully please"]
        examples = [RewriteExample(name, "q", "yes", task="qa") for name in names for _ in range(3)]
        trainer = group_trainer(
            algorithm, tmp_path / name, train_dataset=PRewriteDataset.from_examples(examples),
            instructions_per_step=3, per_device_train_batch_size=6, temperature=1e-4, max_steps=1,
        )  # fmt: skip
        trainer.train()
        lines = (tmp_path / name / "rollouts.jsonl").read_text().splitlines()
        return [(row["instruction"], row["completion"]) for row in map(json.loads, lines)]

    shared = texts("shared")
    monkeypatch.delattr(SharedPrompts, "_generate_single_turn")
    assert shared == texts("stock")
    assert len(set(shared)) == 3


@both
@pytest.mark.parametrize("setting", [{"top_k": 3}, {"gradient_checkpointing": True}])
def test_transformers_samples_where_prompts_cannot_be_shared(tmp_path, monkeypatch, algorithm, setting):
    trainer = group_trainer(algorithm, tmp_path, max_steps=1, **setting)
    policy, calls = trainer.accelerator.unwrap_model(trainer.model), []
    generate = policy.generate
    monkeypatch.setattr(policy, "generate", lambda *a, **kw: (calls.append(1), generate(*a, **kw))[1])
    trainer.train()
    assert calls == [1]
    assert trainer.updates == 1


@both
def test_a_loss_of_routers_is_left_to_trl(tmp_path, algorithm):
    trainer = group_trainer(algorithm, tmp_path)
    assert trainer.shares_prompts
    trainer.aux_loss_enabled = True  # as newer TRL sets it for mixtures of experts
    assert not trainer.shares_prompts


def test_equal_tokens_under_different_masks_are_different_prompts():
    ids = torch.tensor([[0, 3, 4], [0, 3, 4], [0, 3, 4]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1]])
    prompts = distinct(ids, mask)
    assert prompts.ids.shape == (2, 3)
    assert torch.equal(prompts.ids[prompts.rows], ids)
    assert torch.equal(prompts.mask[prompts.rows], mask)
