"""A learned reward model: what a rewrite would earn, estimated by a small model in place of task-model calls.

A language model with one output r reads `instruction, blank line, rewrite`. TRL's RewardTrainer fits it to pairs of
rewrites that a run's task model has graded on the same examples. The loss is Bradley and Terry's, as in InstructGPT
(arXiv 2203.02155, equation 1):

    loss = -log sigmoid(r(better) - r(worse))

It fixes r up to a scale and a constant per instruction. A straight line by least squares on the last updates, which no
pair comes from, turns r into an estimate of the task part of the reward; the same updates say how far to trust it.
docs/algorithms.md tells how to use it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from torch import nn
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl import RewardConfig, RewardTrainer

from prewrite.errors import ConfigError, RunFolderError
from prewrite.files import whole_folder
from prewrite.lm.embedded import resolve_model
from prewrite.lm.loading import load_adapter, load_tokenizer, loading, pick_device, save_adapter
from prewrite.run_folder import RunFolder
from prewrite.scoring.reward_modes import MODES
from prewrite.scoring.rewards import REWARD_MODEL_FILE
from prewrite.text import Each, Maybe
from prewrite.train.reward_data import (
    Group,
    Preference,
    figures,
    fit_scale,
    pairwise_accuracy,
    preferences,
    read_groups,
    smallest_gap,
    split_updates,
)

LEAST_PAIRS, LEAST_HELD_OUT_PAIRS = 20, 5
BATCH = 32  # texts per forward pass


@dataclass(frozen=True)
class RewardModelSettings:
    """What `reward_model.json` holds."""

    base_model: str
    reward_mode: str
    """The mode whose task part is estimated."""
    task_model: str
    """Whose grades it learned from."""
    slope: float
    intercepts: Mapping[str, float]
    """By instruction: estimate = slope * r + intercept."""
    intercept: float
    """Of an instruction that the held-out updates did not have."""
    held_out: Mapping[str, float]
    """`reward_data.figures` of the held-out updates, and `train_pairs`."""


SETTINGS = {
    "base_model": str,
    "reward_mode": str,
    "task_model": str,
    "slope": float,
    "intercepts": Each(float),
    "intercept": float,
    "held_out": Each(float),
}
"""Shape of `reward_model.json`."""


class LearnedReward:
    """Estimates of the task part of the reward; a `rewards.RewardModel`.

    An estimate depends on the rewrite and the instruction alone, never on what was asked before.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, settings: RewardModelSettings):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings

    def __call__(self, rewrites: Sequence[str], instruction: str) -> list[float]:
        """One estimate per rewrite, in order."""
        intercept = self.settings.intercepts.get(instruction, self.settings.intercept)
        outputs = outputs_of(self.model, self.tokenizer, rewrites, instruction)
        return (self.settings.slope * outputs + intercept).tolist()

    def save(self, folder: str | Path) -> None:
        """Write a reward model folder; it appears whole or not at all."""
        with whole_folder(Path(folder)) as written:
            save_adapter(self.model, written / "adapter", base_model=self.settings.base_model)
            RunFolder.write_json(written / REWARD_MODEL_FILE, asdict(self.settings))

    @classmethod
    def load(cls, folder: str | Path) -> LearnedReward:
        """A saved reward model. Raises `RunFolderError` if `folder` holds none."""
        settings = read_settings(folder)
        adapter = Path(folder) / "adapter"
        if not (adapter / "adapter_model.safetensors").is_file():
            raise RunFolderError(f"{str(folder)!r} has no adapter/adapter_model.safetensors; train it again")
        model, tokenizer = load_untrained(settings.base_model)
        return cls(load_adapter(model, adapter), tokenizer, settings)


def read_settings(folder: str | Path) -> RewardModelSettings:
    """The settings of a saved reward model. Raises `RunFolderError` if `folder` holds none."""
    file = Path(folder) / REWARD_MODEL_FILE
    if not os.path.isfile(file):
        raise RunFolderError(
            f"{str(folder)!r} is no reward model: it has no {REWARD_MODEL_FILE}; make one with `prewrite train-reward`"
        )
    try:
        settings = RewardModelSettings(**RunFolder.read_json(file, SETTINGS))
    except TypeError as error:
        raise RunFolderError(f"{file} was changed or is of another version ({error})") from None
    if settings.reward_mode not in MODES:
        raise RunFolderError(f"{file}: reward_mode is {settings.reward_mode!r}; it must be one of {', '.join(MODES)}")
    return settings


def load_untrained(base_model: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer): `base_model` with one output, not yet trained, in place of the vocabulary."""
    folder = resolve_model(base_model)
    tokenizer = load_tokenizer(folder)
    tokenizer.padding_side = "right"
    with loading(folder):
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(pick_device()), tokenizer


def text_of(instruction: str, rewrite: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the model reads. TRL ends a text by this token too, where it does not stand there yet."""
    return f"{instruction}\n\n{rewrite}{tokenizer.eos_token}"


@torch.inference_mode()
def outputs_of(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rewrites: Sequence[str], instruction: str
) -> NDArray[np.float64]:
    """r of each rewrite; (rewrite,)."""
    found: list[float] = []
    for at in range(0, len(rewrites), BATCH):
        texts = [text_of(instruction, rewrite, tokenizer) for rewrite in rewrites[at : at + BATCH]]
        batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        found += output.logits[:, 0].tolist()
    return np.array(found)


# ---- training -----------------------------------------------------------------------------------------------------


def train_reward_model(
    runs: Sequence[str | Path],
    *,
    base_model: str = "embedded",
    epochs: int = 2,
    pairs_per_update: int = 16,
    learning_rate: float = 2e-4,
    lora_rank: int = 8,
    seed: int = 0,
) -> LearnedReward:
    """Train on the rollouts of `runs`; fit the scale and measure on their last updates.

    Raises:
        RunFolderError: too few rollouts, or what was learned orders held-out rewrites no better than chance.
        ConfigError: the runs were graded in different ways.
    """
    groups, reward_mode, task_model = read_runs(runs)
    early, held_out = split_updates(groups)
    gap = smallest_gap(early)
    rng = np.random.default_rng(seed)
    pairs: list[Preference] = []
    for group in early:
        found = preferences(group, gap)
        pairs += [found[int(index)] for index in rng.permutation(len(found))[:pairs_per_update]]
    checks = sum(len(preferences(group, gap)) for group in held_out)
    named = ", ".join(map(str, runs))
    if len(pairs) < LEAST_PAIRS or checks < LEAST_HELD_OUT_PAIRS:
        raise RunFolderError(
            f"{named}: too few rollouts; they give {len(pairs)} pairs of rewrites to train on and {checks} to check "
            f"with, and {LEAST_PAIRS} and {LEAST_HELD_OUT_PAIRS} are needed; give longer runs, or more of them"
        )
    set_seed(seed)  # the new output is drawn when the model is loaded
    model, tokenizer = load_untrained(base_model)
    lora = LoraConfig(task_type="SEQ_CLS", r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
    model = _fit(model, tokenizer, pairs, lora, epochs=epochs, learning_rate=learning_rate, seed=seed)

    outputs = [outputs_of(model, tokenizer, list(group.grades), group.instruction) for group in held_out]
    slope, intercepts, intercept = fit_scale(held_out, outputs)
    if slope <= 0:
        raise RunFolderError(
            f"what was learned from {named} does not order held-out rewrites "
            f"({pairwise_accuracy(held_out, outputs, gap):.0%} of {checks} pairs rightly, and the better ones are not "
            "estimated higher); give longer runs, or more of them"
        )
    estimates = [
        slope * output + intercepts[group.instruction] for group, output in zip(held_out, outputs, strict=True)
    ]
    known = {(group.instruction, rewrite) for group in early for rewrite in group.grades}
    measured = {"train_pairs": len(pairs), **figures(held_out, estimates, gap=gap, known=known)}
    settings = RewardModelSettings(base_model, reward_mode, task_model, slope, intercepts, intercept, measured)
    return LearnedReward(model, tokenizer, settings)


def read_runs(runs: Sequence[str | Path]) -> tuple[list[Group], str, str]:
    """The graded groups of `runs`, the reward mode that they were graded in, and the task model that graded them.

    Raises `RunFolderError` for a run without scored rollouts, `ConfigError` for runs graded in different ways.
    """
    groups: list[Group] = []
    graded_by: dict[tuple[str, str], str] = {}
    for path in dict.fromkeys(map(str, runs)):
        run = RunFolder.open(path)
        shape = {"config": Maybe({"reward_mode": Maybe(str), "task_model": Maybe(str), "reward_model": Maybe(str)})}
        config = RunFolder.read_json(run.config, shape).get("config") or {}
        mode = config.get("reward_mode", "auto")
        if mode == "model":  # its task model graded in the mode that its reward model estimates
            mode = read_settings(config.get("reward_model") or "").reward_mode
        graded_by.setdefault((mode, config.get("task_model", "hf:embedded")), path)
        groups += read_groups(run)
    if len(graded_by) > 1:
        shown = "; ".join(f"{path}: {mode} by {model}" for (mode, model), path in graded_by.items())
        raise ConfigError(f"the runs were graded in different ways ({shown}); train one reward model for each")
    return groups, *next(iter(graded_by))


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Preference],
    lora: LoraConfig,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> nn.Module:
    """`model` with an adapter trained on `pairs` by TRL. It gets texts: tokens go by other names in newer releases."""
    rows = [
        {
            "chosen": text_of(pair.instruction, pair.better, tokenizer),
            "rejected": text_of(pair.instruction, pair.worse, tokenizer),
        }
        for pair in pairs
    ]
    with tempfile.TemporaryDirectory(prefix="prewrite-reward-") as folder, _no_bars_of_datasets():
        config = RewardConfig(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            learning_rate=learning_rate,
            max_length=None,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = RewardTrainer(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[_Progress()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model).eval()


@contextmanager
def _no_bars_of_datasets() -> Iterator[None]:
    """While TRL tokenises, which takes no time worth a bar."""
    before = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


class _Progress(TrainerCallback):
    """One bar with the time left."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, desc="reward model", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()
