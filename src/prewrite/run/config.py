"""Settings of a training run: one flat dataclass, its help texts, and its checks.

The command line and YAML files are both read into it (`cli/options.py`), and the checks run on either. Names are TRL's
where TRL has the setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from prewrite.errors import ConfigError
from prewrite.scoring.guards import DEFAULT_GUARDS, GUARDS
from prewrite.scoring.metrics import get_metric
from prewrite.scoring.rewards import MIN_FIDELITY, REWARD_MODEL_FILE, REWARD_MODES, check_penalties, check_task_part
from prewrite.scoring.templates import TASK_TEMPLATE, get_task_template
from prewrite.train.algorithms import ALGORITHMS
from prewrite.types import DECODINGS, TASKS

STRATEGIES = ("I", "S")


def option(default: Any, help: str, *, alias: str | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A setting with its one help text; `alias` is a second flag for it."""
    metadata = {"help": help, "alias": alias, "choices": choices}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TaskConfig:
    """The data, and the task model that answers it; shared by all commands."""

    dataset: list[str] = option(
        [],
        "JSONL, Parquet or CSV file, folder of train/dev/test files, hf:OWNER/NAME, or 'demo'; "
        "repeat it to train one rewriter on several",
        alias="data",
    )
    dev_dataset: str | None = option(None, "dev rows; cut from the dataset where absent")
    test_dataset: str | None = option(None, "test rows; cut from the dataset where absent")
    hold_out_test: bool = option(
        True, "keep test rows; --no_hold_out_test gives them to train and dev, and estimates the gain from dev"
    )
    column_map: dict[str, str] = option({}, "our field to your column, e.g. input=text output=label")
    instruction: str | None = option(None, "initial instruction for rows that have none")
    task: str | None = option(None, "kind of task for rows that have none", choices=TASKS)
    skip_bad_rows: bool = option(False, "leave bad rows out and count them, instead of stopping at the first")

    task_model: str = option(
        "embedded", "embedded, hf:PATH_OR_ID, ollama:MODEL, openai:MODEL@URL, openvino:FILE, vllm:ID"
    )
    task_backend: str | None = option(None, "older form: the backend of a --task_model given without one")
    task_model_options: dict[str, str] = option({}, "options of the backend, e.g. dtype=float32 chat=true")
    task_template: str = option(
        TASK_TEMPLATE, "task prompt with the slots {instruction} and {input}, or a template's name"
    )
    decoding: str = option("auto", "how an answer is read", choices=("auto", *DECODINGS))
    metric: str = option("auto", "what grades an answer; auto picks by the kind of task; your own: file.py:function")
    cache: bool = option(True, "keep the answers of task models on disk and reuse them")
    max_task_calls: int | None = option(None, "stop before more task-model calls than this")
    max_task_tokens: int | None = option(None, "stop before more task-model tokens than this")
    max_usd: float | None = option(None, "stop before a higher cost than this; needs --prices")
    max_minutes: float | None = option(None, "stop asking the task model after so many minutes")
    prices: str | None = option(None, "YAML price table: MODEL: {input: USD, output: USD} per million tokens")
    fidelity_model: str = option(
        "embedded", "who judges how much of the instruction a rewrite tells: embedded, a folder, a hub id, or none"
    )
    min_fidelity: float = option(MIN_FIDELITY, "below this fidelity a rewrite is penalised and not chosen; 0: never")
    seed: int = option(0, "seed of splits, sampling and intervals")

    def __post_init__(self) -> None:
        for item in fields(self):
            choices = item.metadata.get("choices")
            value = getattr(self, item.name)
            if choices and value is not None and value not in choices:
                raise ConfigError(f"{item.name} {value!r} is unknown; choose one of {', '.join(choices)}")
        check_penalties(min_fidelity=self.min_fidelity)
        if self.metric != "auto":
            get_metric(self.metric)
        self.task_template = get_task_template(self.task_template)


@dataclass
class TrainConfig(TaskConfig):
    """A training run."""

    output_dir: str = option("runs/rewriter-ppo", "the run folder")
    base_model: str = option("embedded", "the rewriter before training: folder, hub id or embedded", alias="rewriter")
    algorithm: str = option(
        "ppo", "ppo needs TRL 0.25; grpo and rloo run on any TRL since then", choices=tuple(ALGORITHMS)
    )
    meta_family: str = option(
        "generic", "meta prompt: generic, reasoning, few_shot, or a text file with {instruction}"
    )
    warm_start: str = option(
        "auto", "adapter folder to start from; auto: below 1B parameters the one shipped or made on first use; none"
    )

    reward_mode: str = option("auto", "the task part of the reward", choices=REWARD_MODES)
    reward_model: str | None = option(
        None, "folder of a learned reward model (prewrite train-reward), for reward_mode model"
    )
    real_every: int = option(4, "with a reward model: updates from one that the task model grades to the next")
    guards: list[str] = option(list(DEFAULT_GUARDS), f"penalties; any of {', '.join(GUARDS)}, or none")
    guard_weight: float = option(0.5, "what a fully violated guard takes off the reward")

    max_steps: int = option(30, "updates")
    rewrites_per_step: int = option(16, "rewrites sampled per update", alias="num_generations")
    examples_per_rewrite: int = option(16, "examples that each rewrite of an instruction is scored on per update")
    instructions_per_step: int = option(1, "instructions per update; the rewrites are shared out among them")
    mixture_temperature: float = option(
        2.0, "several data sets: one of n rows is drawn with weight n^(1/temperature); 1: by size, high: alike"
    )
    phrasings: str | None = option(
        None,
        "YAML file {instruction: [other wordings]}; they are drawn in its place at times, so that the rewriter "
        "learns from weak wordings too",
    )
    micro_batch_size: int = option(0, "rewrites per backward pass, 0: all at once; lower it to save memory")
    num_ppo_epochs: int = option(2, "passes over each batch of rewrites")
    resample_ties: bool = option(
        True,
        "grpo and rloo: where all rewrites of an instruction earn the same, score them once more on other examples",
    )
    response_length: int = option(64, "longest rewrite, in tokens")
    learning_rate: float = option(2e-4, "learning rate; 5e-6 is a usual start with --no_lora")
    kl_coef: float = option(0.02, "weight of the KL penalty against the reference model, per token")
    target_kl: float | None = option(None, "adapt kl_coef towards this KL per completion, in nats")
    entropy_coef: float = option(0.0, "ppo: bonus per nat of the rewriter's entropy; 0: none")
    temperature: float | None = option(
        None, "the rewriter's sampling temperature in training and search; by default 1, below 1B parameters 0.7"
    )
    lora: bool = option(True, "train a LoRA adapter; --no_lora trains all weights")
    lora_rank: int = option(16, "rank of the adapter")
    trl_overrides: dict[str, Any] = option({}, "other fields of the TRL config, in YAML only")

    eval_steps: int = option(5, "updates between dev evaluations of the greedy rewrite")
    patience: int = option(0, "stop after so many dev evaluations without a better one; 0: never")
    dev_examples: int = option(100, "dev rows per dev evaluation")
    save_steps: int = option(10, "updates between checkpoints")

    strategy: str = option("I", "the final rewrite: I greedy, S best of sampled ones on dev", choices=STRATEGIES)
    num_candidates: int = option(
        10, "sampled rewrites, and rewrites remembered from training, that strategy S chooses from"
    )
    race: bool = option(True, "strategy S drops hopeless candidates early; --no_race scores all on all dev rows")
    practical_delta: float = option(
        0.01, "the race ends when all left are within this of each other; a share, 0.01 is one point, 0 goes on"
    )
    race_items: int = option(0, "most dev rows that the choice may use; 0: all")
    test_examples: int = option(0, "most test rows of an instruction, drawn by the seed before any is asked; 0: all")
    baselines: bool = option(False, "also test the untrained rewriter and random exemplars")

    resume: bool = option(False, "go on from the newest checkpoint in output_dir")
    overwrite: bool = option(False, "replace the run in output_dir")
    report_to: str = option("none", "tensorboard or none", choices=("none", "tensorboard"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guards = [name for name in self.guards if name != "none"]
        check_penalties(guards=self.guards, guard_weight=self.guard_weight)
        positive = (
            "max_steps", "rewrites_per_step", "examples_per_rewrite", "instructions_per_step", "num_ppo_epochs",
            "response_length", "learning_rate", "lora_rank", "eval_steps", "dev_examples", "save_steps", "temperature",
            "mixture_temperature",
        )  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
        at_least_0 = (
            "kl_coef", "entropy_coef", "patience", "micro_batch_size", "num_candidates", "race_items",
            "test_examples",
        )  # fmt: skip
        for name in at_least_0:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.micro_batch_size and self.rewrites_per_step % self.micro_batch_size:
            raise ConfigError(
                f"micro_batch_size {self.micro_batch_size} does not divide rewrites_per_step "
                f"{self.rewrites_per_step}; choose a divisor"
            )
        if self.instructions_per_step > 1 and self.rewrites_per_step < 2 * self.instructions_per_step:
            raise ConfigError(
                f"rewrites_per_step {self.rewrites_per_step} leaves less than two rewrites for each of "
                f"{self.instructions_per_step} instructions_per_step, and one alone has nothing to be compared with"
            )
        if self.entropy_coef and "entropy_coef" not in ALGORITHMS[self.algorithm].own_settings:
            raise ConfigError(f"entropy_coef is ppo's; {self.algorithm} has no such bonus, leave it at 0")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite contradict each other; give one of them")
        if not self.hold_out_test and self.strategy != "S":
            raise ConfigError("hold_out_test off needs strategy S: its choice on dev is what can be corrected for")
        if not self.hold_out_test and self.baselines:
            raise ConfigError("baselines need test rows; leave hold_out_test on")
        if not self.hold_out_test and self.test_dataset:
            raise ConfigError("hold_out_test off and test_dataset contradict each other; give one of them")
        check_task_part(self.reward_mode, reward_model=self.reward_model is not None, real_every=self.real_every)
        if self.reward_model is not None and not (Path(self.reward_model) / REWARD_MODEL_FILE).is_file():
            raise ConfigError(
                f"reward_model {self.reward_model!r} is no reward model: it has no {REWARD_MODEL_FILE}; "
                "make one with `prewrite train-reward`"
            )
        if self.warm_start not in ("auto", "none") and not Path(self.warm_start).is_dir():
            raise ConfigError(f"warm_start {self.warm_start!r} is neither auto, none, nor a folder with an adapter")


def field_type(annotation: str) -> tuple[str, bool]:
    """(type name, may be None) of an annotation of this file, e.g. `"int | None"` -> `("int", True)`."""
    name, _, rest = annotation.partition(" | ")
    return name, rest == "None"
