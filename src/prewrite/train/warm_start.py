"""A short supervised phase on (instruction, good rewrite) pairs, so that a small rewriter starts from sane English.

The warm-started model is also the KL reference of the RL phase that follows: the penalty then keeps the rewriter near
readable rewrites, not near whatever a 135M model says to a meta prompt. For the embedded model the result ships with
the package (`starter/`); for another small model it is made before its first training, and kept in the user's cache.
`prewrite warm-start` makes one by command.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prewrite.files import cache_dir, made_once, whole_folder
from prewrite.lm.embedded import resolve_model
from prewrite.lm.identity import folder_digest
from prewrite.lm.loading import parameter_count, save_adapter
from prewrite.lm.packing import Completions, pad_prompts
from prewrite.rewriter.meta_prompts import build_meta_prompt
from prewrite.rewriter.policy import PolicyWithValueHead, ValueHead
from prewrite.rewriter.rewriter import query_ids
from prewrite.rewriter.starter import SMALL, load_base, starter_adapter
from prewrite.train import processes

logger = logging.getLogger(__name__)

AUTO_ABOVE = 30e6
"""Parameters below which a rewriter is a toy that a few hundred pairs cannot teach any English; from `SMALL` on one
writes sane English already."""


class Pair(NamedTuple):
    """An instruction as users dash it off, and a rewrite worth imitating."""

    instruction: str
    rewrite: str


def adapter_for(setting: str, base_model: str, meta_family: str = "generic") -> Path | None:
    """The adapter that `--warm_start` means: a folder, or none, or for `auto` what suits the base model.

    `auto` is the adapter that ships for the embedded model, and for another one of 30M to 1B parameters one that is
    made on its first use (minutes on a CPU, with a progress bar) and kept in `cache_dir()`.
    """
    if setting == "none":
        return None
    if setting != "auto":
        return Path(setting)
    if shipped := starter_adapter(base_model):
        return shipped
    if not AUTO_ABOVE <= parameter_count(base_model) < SMALL:
        return None
    folder = cache_dir() / "warm_start" / _key(base_model, meta_family)
    if not folder.is_dir():
        logger.warning("Making a warm start for %s (once; --warm_start none goes without) ...", base_model)
    with processes.main_first():
        return made_once(folder, lambda temporary: make_adapter(base_model, temporary, meta_family=meta_family))


def make_adapter(
    base_model: str, folder: Path, *, meta_family: str = "generic", epochs: int = 3, seed: int = 0
) -> dict[str, float]:
    """Warm-start `base_model` on the project's corpus and write the adapter; returns the losses of `warm_start`."""
    model, tokenizer = load_base(base_model)
    adapter, losses = warm_start(model, tokenizer, load_pairs(), meta_family=meta_family, epochs=epochs, seed=seed)
    save_half(adapter, folder, base_model=base_model)
    return losses


def _key(base_model: str, meta_family: str) -> str:
    """Names what an adapter depends on: the base model's files, the meta prompt and the corpus."""
    parts = [folder_digest(Path(resolve_model(base_model))), build_meta_prompt("", meta_family), _corpus()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _corpus() -> str:
    return files("prewrite.train").joinpath("warm_start.jsonl").read_text(encoding="utf-8")


def load_pairs() -> list[Pair]:
    """The corpus written for this project; see docs/warm_start_corpus.md."""
    text = _corpus()
    return [Pair(row["instruction"], row["rewrite"]) for row in map(json.loads, text.splitlines())]


def warm_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    meta_family: str = "generic",
    epochs: int = 3,
    learning_rate: float = 1e-3,
    instructions_per_batch: int = 8,
    rank: int = 8,
    held_out: float = 0.1,
    seed: int = 0,
) -> tuple[PeftModel, dict[str, float]]:
    """Train a LoRA adapter on `pairs`; returns the model and losses in nats per token.

    The adapter is on queries and values, or on all linear layers where a model has no layers of those names.

    A share `held_out` of the instructions is never trained on: `held_out/before` and `held_out/after` are their
    losses, `train/last` is the mean loss of the last epoch.
    """
    torch.manual_seed(seed)
    named = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = ["q_proj", "v_proj"] if {"q_proj", "v_proj"} <= named else "all-linear"
    peft_model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    policy = PolicyWithValueHead(peft_model, ValueHead.of(model))
    parameters = [p for p in peft_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)

    rng = np.random.default_rng(seed)
    instructions = list(dict.fromkeys(pair.instruction for pair in pairs))
    rng.shuffle(instructions)
    held = set(instructions[: math.ceil(held_out * len(instructions))])
    train = [name for name in instructions if name not in held]
    rewrites: dict[str, list[str]] = {}
    for pair in pairs:
        rewrites.setdefault(pair.instruction, []).append(pair.rewrite)

    def loss_of(names: Sequence[str]) -> torch.Tensor:
        prompts, rows, texts = [], [], []
        for row, name in enumerate(names):
            prompts.append(query_ids(build_meta_prompt(name, meta_family), tokenizer))
            rows += [row] * len(rewrites[name])
            texts += rewrites[name]
        completions = _completions(texts, tokenizer, model.device)
        stats = policy(pad_prompts(prompts, rows, tokenizer.pad_token_id, model.device), completions)
        return -stats.logprobs.sum() / completions.mask.sum()

    def held_out_loss() -> float:
        with torch.no_grad():
            losses = [loss_of(names).item() for names in _batches(sorted(held), instructions_per_batch)]
        return float(np.mean(losses))

    losses = {"held_out/before": held_out_loss()}
    steps = epochs * math.ceil(len(train) / instructions_per_batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    with tqdm(total=steps, desc="warm start", unit="step") as bar:
        for _ in range(epochs):
            rng.shuffle(train)
            epoch = []
            for names in _batches(train, instructions_per_batch):
                loss = loss_of(names)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                epoch.append(loss.item())
                bar.update()
                bar.set_postfix(loss=f"{epoch[-1]:.2f}")
            losses["train/last"] = float(np.mean(epoch))
    losses["held_out/after"] = held_out_loss()
    return peft_model, losses


def _completions(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, device: torch.device) -> Completions:
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=device)
    return Completions(ids, mask)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def save_half(model: PeftModel, folder: Path, *, base_model: str) -> None:
    """Write the adapter in half precision; the folder appears whole or not at all."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.half()
    with whole_folder(folder) as written:
        save_adapter(model, written, base_model=base_model)
