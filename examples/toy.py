"""PPO on a toy: a random two-layer model learns, in seconds and without a download, that the word "step" pays.

    python examples/toy.py

The task model is a function: it answers right exactly when the rewrite contains "step". Everything else is the real
trainer. Prints the mean reward of each update.
"""

from __future__ import annotations

import tempfile

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prewrite.data import PRewriteDataset
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

WORDS = [
    "<pad>",
    "<eos>",
    "<unk>",
    "solve",
    "the",
    "task",
    "step",
    "by",
    "think",
    "answer",
    "now",
    "please",
    "carefully",
]
INSTRUCTION = "solve the task"


def toy_model(seed: int = 0, *, layers: int = 2):
    """A random word-level model; (model, tokenizer)."""
    torch.manual_seed(seed)
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def toy_evaluator() -> Evaluator:
    """Right exactly when the rewrite contains "step"."""
    return Evaluator(ScriptedTaskModel(lambda prompt: "yes" if "step" in prompt.split() else "no"))


def toy_rows(count: int = 8) -> PRewriteDataset:
    """`count` rows whose answer is "yes"."""
    return PRewriteDataset.from_examples(
        [RewriteExample(INSTRUCTION, f"question {number}", "yes", task="qa") for number in range(count)]
    )


def toy_trainer(log_dir: str, *, seed: int = 0, **settings):
    """The real trainer on the toy. Guards are off: a 13-word model cannot write English."""
    from prewrite.train.ppo import PRewritePPOTrainer  # here, since the parts above also run on a TRL without PPO

    evaluator = toy_evaluator()
    defaults = {
        "train_dataset": toy_rows(), "reward": TaskReward(evaluator, guards=()), "max_steps": 30, "seed": seed,
        "per_device_train_batch_size": 32, "num_ppo_epochs": 4, "examples_per_rewrite": 2, "response_length": 6,
        "learning_rate": 3e-3, "kl_coef": 0.0,
    }  # fmt: skip
    return PRewritePPOTrainer(toy_model(seed), evaluator, log_dir=log_dir, **(defaults | settings))


def main() -> None:
    """Train once and print."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = toy_trainer(
            folder, progress=lambda step, metrics: print(f"update {step:2d}  reward {metrics['reward/mean']:.2f}")
        )
        trainer.train()
        print("greedy rewrite:", trainer.rewriter().greedy(INSTRUCTION))


if __name__ == "__main__":
    main()
