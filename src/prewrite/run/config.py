"""The settings of the commands: flat dataclasses of options, and the rules between them.

A setting is one field here, whose metadata are its help text, bounds and choices (`option.py`), and one line in
`build.py`, which hands it to the part that it sets. Flags, YAML, checks and help follow from the field. Names are
TRL's where TRL has the setting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from prewrite.errors import ConfigError
from prewrite.run.option import option, options_of
from prewrite.scoring.constraints import Constraints
from prewrite.scoring.guards import DEFAULT_GUARDS, GUARDS
from prewrite.scoring.metrics import get_metric
from prewrite.scoring.prompt import PARTS
from prewrite.scoring.rewards import MIN_FIDELITY, REWARD_MODEL_FILE, REWARD_MODES, check_penalties, check_task_part
from prewrite.scoring.templates import TASK_TEMPLATE, get_task_template
from prewrite.task_models.registry import names_server, parse_task_model
from prewrite.train.algorithms import ALGORITHMS
from prewrite.train.kl import check_kl
from prewrite.types import DECODINGS, TASKS

STRATEGIES = ("I", "S")
WORDING_CALLS = 2500
"""From so many task-model calls on, a search asks for other wordings unless it is told not to. With fewer they are
missed elsewhere: at 1,000, wordings cost 1 to 2 points on average; at 2,700, nothing (docs/learning.md)."""
TRACKER_NAMES = ("tensorboard", "trackio", "wandb", "mlflow")
SEEDS = 2**32
"""So many there are: NumPy's global generator takes no others."""


@dataclass
class Settings:
    """Values that are read and checked by their fields."""

    def __post_init__(self) -> None:
        for each in options_of(type(self)):
            setattr(self, each.name, each.read(getattr(self, each.name), where=each.name))


@dataclass
class DataConfig(Settings):
    """The rows."""

    group: ClassVar = "data"

    dataset: list[str] = option(
        [],
        "JSONL, Parquet or CSV file, folder of train/dev/test files, hf:OWNER/NAME, or demo, the built-in data; "
        "repeat it to train one rewriter on several",
        common=True,
        alias="data",
        may_change=True,
    )
    dev_dataset: str | None = option(None, "dev rows; cut from the dataset where absent", may_change=True)
    test_dataset: str | None = option(None, "test rows; cut from the dataset where absent", may_change=True)
    hold_out_test: bool = option(
        True, "keep test rows; without them train and dev get all rows, and the gain is estimated from dev"
    )
    column_map: dict[str, str] = option({}, "our field to your column or a place in it, e.g. output=answers.text")
    instruction: str | None = option(None, "initial instruction for rows that have none", common=True)
    task: str | None = option(None, "kind of task for rows that have none", choices=TASKS)
    skip_bad_rows: bool = option(False, "leave bad rows out and count them, instead of stopping at the first")
    seed: int = option(0, "seed of splits, sampling and intervals", common=True, at_least=0, below=SEEDS)


@dataclass
class TaskConfig(DataConfig):
    """The data, and the task model that answers it; what all commands share."""

    group: ClassVar = "task model"

    task_model: str = option(
        "embedded",
        "embedded, hf:PATH_OR_ID, ollama:MODEL, openai:MODEL@URL, openvino:FILE, vllm:ID",
        common=True,
        may_change=True,
    )
    task_model_options: dict[str, str] = option(
        {}, "options of the backend, e.g. dtype=float32 chat=true", may_change=True
    )
    task_template: str = option(
        TASK_TEMPLATE, "task prompt with the slots {instruction} and {input}, or a template's name"
    )
    decoding: str = option("auto", "how an answer is read", choices=("auto", *DECODINGS))
    skip_refused_rows: int = option(
        0,
        "how many rows that the task model gives no answer to (content filter, too long) are left out, for every "
        "instruction alike, before the run stops",
        at_least=0,
        may_change=True,
    )
    metric: str = option(
        "auto", "what grades an answer; auto picks by the kind of task; your own: file.py:function, whose code is run"
    )
    cache: bool = option(True, "keep the answers of task models on disk and reuse them", may_change=True)
    max_task_calls: int | None = option(
        None, "stop before more task-model calls than this", at_least=0, may_change=True
    )
    max_task_tokens: int | None = option(
        None, "stop before more task-model tokens than this", at_least=0, may_change=True
    )
    max_usd: float | None = option(
        None, "stop before a higher cost than this; needs --prices", at_least=0, may_change=True
    )
    max_minutes: float | None = option(
        None, "stop asking the task model after so many minutes", at_least=0, may_change=True
    )
    prices: str | None = option(
        None, "YAML price table: MODEL: {input: USD, output: USD} per million tokens", may_change=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.task_model = str(parse_task_model(self.task_model))
        self.task_template = get_task_template(self.task_template)
        if self.metric != "auto":
            get_metric(self.metric)
        if self.max_usd is not None and self.prices is None:
            raise ConfigError("max_usd needs the price of the task model; give --prices FILE")


@dataclass
class ReadableConfig(TaskConfig):
    """What keeps a rewrite readable and on its task."""

    group: ClassVar = "choice"

    guards: list[str] = option(
        list(DEFAULT_GUARDS),
        f"penalties in training, and what is never chosen; any of {', '.join(GUARDS)}, or none",
    )
    fidelity_model: str = option(
        "embedded", "who judges how much of the instruction a rewrite tells: embedded, a folder, a hub id, or none"
    )
    min_fidelity: float = option(MIN_FIDELITY, "below this fidelity a rewrite is penalised and not chosen; 0: never")
    keep: list[str] = option(
        [], "texts that every wording must hold, to the letter; others are penalised and never chosen"
    )
    forbid: list[str] = option(
        [], "texts that no prompt may hold: whole words in any case, in wording, answer line and exemplars"
    )
    max_prompt_tokens: int | None = option(
        None,
        "longest prompt, without its input, in tokens of the task model where its tokenizer is here; longer ones are "
        "penalised and never chosen",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guards = [name for name in self.guards if name != "none"]
        check_penalties(guards=self.guards, min_fidelity=self.min_fidelity)
        Constraints(tuple(self.keep), tuple(self.forbid))  # its own rules


@dataclass
class PromptConfig:
    """What of the prompt is searched, and how much that may cost."""

    group: ClassVar = "choice"

    parts: list[str] = option(
        list(PARTS),
        f"what of the prompt may change; any of {', '.join(PARTS)}; instruction alone is the paper's method, "
        "and the default where no test rows are held out",
        common=True,
        choices=PARTS,
        may_change=True,
    )
    search_calls: int = option(
        1200,
        "most task-model calls of the search for a prompt on dev rows; not used with parts instruction",
        common=True,
        above=0,
        may_change=True,
    )


@dataclass
class TrackedConfig:
    """What a run is told to."""

    group: ClassVar = "output"

    report_to: str = option(
        "none",
        "tracker that gets the curves and rewrites of a training, and every result",
        choices=("none", *TRACKER_NAMES),
        may_change=True,
    )


@dataclass
class SearchConfig(PromptConfig, ReadableConfig, TrackedConfig):
    """A search of the whole prompt, without training."""

    group: ClassVar = "choice"

    rewriter: str = option(
        "auto",
        "who writes other wordings: embedded (untrained), a run folder, openai:MODEL@URL, ollama:MODEL, or none; "
        f"auto: embedded from {WORDING_CALLS:,} calls on and where only the wording may change, else none",
        common=True,
        alias="proposer",
    )
    num_candidates: int = option(8, "wordings asked of the rewriter", common=True, at_least=0)
    candidates: str | None = option(
        None, "file of other wordings to try: text with one a line, a DSPy state (.json), a promptfoo config (.yaml)"
    )
    test_examples: int = option(
        0, "most test rows of an instruction, drawn by the seed before any is asked; 0: all", at_least=0
    )
    output_dir: str = option("runs/search", "the run folder", common=True)
    overwrite: bool = option(False, "replace the run in output_dir", common=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rewriter == "auto":
            pays = self.search_calls >= WORDING_CALLS or not {"answer_line", "exemplars"} & set(self.parts)
            self.rewriter = "embedded" if pays else "none"
        if names_server(self.rewriter):
            self.rewriter = str(parse_task_model(self.rewriter))
        if not self.hold_out_test:
            raise ConfigError("a search needs test rows to measure what it found; leave hold_out_test on")
        if self.candidates is not None and not os.path.isfile(self.candidates):
            raise ConfigError(f"candidates {self.candidates!r}: no such file; give a text file, one wording a line")

    @property
    def tries_wordings(self) -> bool:
        """Whether other wordings may take part; without any nothing needs a judge of fidelity."""
        asked = self.rewriter != "none" and self.num_candidates > 0
        return "instruction" in self.parts and (asked or self.candidates is not None)


@dataclass
class ChoiceConfig(ReadableConfig):
    """How a rewrite is chosen."""

    group: ClassVar = "choice"

    strategy: str = option(
        "I",
        "I: the greedy rewrite; S: sampled ones too, the best on dev rows",
        common=True,
        choices=STRATEGIES,
        may_change=True,
    )
    num_candidates: int = option(
        10,
        "sampled rewrites, and rewrites remembered from training, that strategy S adds to the greedy one",
        common=True,
        at_least=1,
        may_change=True,
    )
    race: bool = option(
        True, "strategy S drops hopeless candidates early; without it all are scored on all dev rows", may_change=True
    )
    practical_delta: float = option(
        0.01,
        "the race ends when all left are within this of each other; 0.01 is one point, 0 goes on to the end",
        at_least=0,
        below=1,
        may_change=True,
    )
    race_items: int = option(0, "most dev rows that the choice may use; 0: all", at_least=0, may_change=True)


@dataclass
class RewriterConfig:
    """What writes the rewrites."""

    group: ClassVar = "rewriter"

    base_model: str = option(
        "embedded", "the rewriter before training: folder, hub id or embedded", common=True, alias="rewriter"
    )
    meta_family: str = option(
        "generic", "meta prompt: generic, reasoning, few_shot, or a text file with {instruction}"
    )
    warm_start: str = option(
        "auto", "adapter folder to start from; auto: below 1B parameters the one shipped or made on first use; none"
    )
    lora: bool = option(True, "train a LoRA adapter; without it all weights are trained")
    lora_rank: int = option(16, "rank of the adapter", above=0)
    response_length: int = option(64, "longest rewrite, in tokens", above=0)
    temperature: float | None = option(
        None,
        "the rewriter's sampling temperature in training and search; by default 1, below 1B parameters 0.7",
        above=0,
    )


@dataclass
class TrainingConfig:
    """How the rewriter learns."""

    group: ClassVar = "training"

    algorithm: str = option(
        "ppo", "ppo needs TRL 0.25; grpo and rloo run on any TRL since then", common=True, choices=tuple(ALGORITHMS)
    )
    reward_mode: str = option("auto", "the task part of the reward", choices=REWARD_MODES)
    reward_model: str | None = option(
        None, "folder of a learned reward model (prewrite train-reward), for reward_mode model"
    )
    real_every: int = option(4, "with a reward model: updates from one that the task model grades to the next")
    guard_weight: float = option(0.5, "what a fully violated guard takes off the reward")
    max_steps: int = option(30, "updates", common=True, above=0, below=10**7, may_change=True)
    rewrites_per_step: int = option(16, "rewrites sampled per update", alias="num_generations", at_least=2)
    examples_per_rewrite: int = option(
        16, "examples that each rewrite of an instruction is scored on per update", above=0
    )
    instructions_per_step: int = option(1, "instructions per update; the rewrites are shared out among them", above=0)
    mixture_temperature: float = option(
        2.0,
        "several data sets: one of n rows is drawn with weight n^(1/temperature); 1: by size, high: alike",
        above=0,
    )
    phrasings: str | None = option(
        None,
        "YAML file {instruction: [other wordings]}; they are drawn in its place at times, so that the rewriter "
        "learns from weak wordings too",
    )
    micro_batch_size: int = option(
        0, "rewrites per backward pass, 0: all at once; lower it to save memory", at_least=0, may_change=True
    )
    num_ppo_epochs: int = option(2, "passes over each batch of rewrites", above=0)
    resample_ties: bool = option(
        True,
        "with grpo and rloo, rewrites of an instruction that all earn the same are scored once more on other examples",
    )
    learning_rate: float = option(2e-4, "learning rate; 5e-6 is a usual start with --no-lora", common=True, above=0)
    kl_coef: float = option(0.02, "weight of the KL penalty against the reference model, per token", at_least=0)
    target_kl: float | None = option(None, "adapt kl_coef towards this KL per completion, in nats", above=0)
    entropy_coef: float = option(0.0, "ppo: bonus per nat of the rewriter's entropy; 0: none", at_least=0)
    trl_overrides: dict[str, Any] = option({}, "other fields of the TRL config, in YAML only")
    eval_steps: int = option(5, "updates between dev evaluations of the greedy rewrite", above=0, may_change=True)
    patience: int = option(
        0, "stop after so many dev evaluations without a better one; 0: never", at_least=0, may_change=True
    )
    dev_examples: int = option(100, "dev rows per dev evaluation", above=0)


@dataclass
class OutputConfig(TrackedConfig):
    """What a run tests, keeps and shows."""

    group: ClassVar = "output"

    test_examples: int = option(
        0,
        "most test rows of an instruction, drawn by the seed before any is asked; 0: all",
        at_least=0,
        may_change=True,
    )
    baselines: bool = option(
        False,
        "also test random exemplars, and the same search by the rewriter before training",
        common=True,
        may_change=True,
    )
    output_dir: str = option("runs/rewriter-ppo", "the run folder", common=True, may_change=True)
    save_steps: int = option(10, "updates between checkpoints", above=0, may_change=True)
    save_total_limit: int = option(
        2,
        "checkpoints kept, the newest ones; should one be damaged, the one before it goes on",
        above=0,
        may_change=True,
    )
    resume: bool = option(False, "go on from the newest checkpoint in output_dir", common=True, may_change=True)
    overwrite: bool = option(False, "replace the run in output_dir", common=True, may_change=True)


@dataclass
class TrainConfig(ChoiceConfig, PromptConfig, RewriterConfig, TrainingConfig, OutputConfig):
    """A training run."""

    @property
    def wording_alone(self) -> bool:
        """Whether only the wording of the instruction may change, as in the paper."""
        return self.parts == ["instruction"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_penalties(guard_weight=self.guard_weight)
        check_task_part(self.reward_mode, reward_model=self.reward_model is not None, real_every=self.real_every)
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
        check_kl(self.kl_coef, self.target_kl)
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite contradict each other; give one of them")
        if not self.hold_out_test and self.parts == list(PARTS):
            self.parts = ["instruction"]  # the default; `warn` in train.py says so
        if not self.hold_out_test and not self.wording_alone:
            raise ConfigError(
                "hold_out_test off needs parts instruction: only the choice of a wording on dev rows is corrected for"
            )
        if not self.hold_out_test and self.strategy != "S":
            raise ConfigError("hold_out_test off needs strategy S: its choice on dev is what can be corrected for")
        if not self.hold_out_test and self.baselines:
            raise ConfigError("baselines need test rows; leave hold_out_test on")
        if not self.hold_out_test and self.test_dataset:
            raise ConfigError("hold_out_test off and test_dataset contradict each other; give one of them")
        if self.reward_model is not None and not os.path.isfile(Path(self.reward_model) / REWARD_MODEL_FILE):
            raise ConfigError(
                f"reward_model {self.reward_model!r} is no reward model: it has no {REWARD_MODEL_FILE}; "
                "make one with `prewrite train-reward`"
            )
        if self.warm_start not in ("auto", "none"):
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                if not os.path.isfile(Path(self.warm_start) / name):
                    raise ConfigError(
                        f"warm_start {self.warm_start!r} is no adapter folder: it has no {name}; give auto, none, or "
                        "a folder that `prewrite warm-start` made"
                    )


@dataclass
class WarmStartConfig(Settings):
    """A warm-start adapter that is made by command."""

    group: ClassVar = "training"

    base_model: str = option("embedded", "folder, hub id or embedded", common=True)
    meta_family: str = option("generic", "the meta prompt that it will be used with", common=True)
    epochs: int = option(3, "passes over the pairs", common=True, above=0)
    seed: int = option(0, "seed of order and initial weights", common=True, at_least=0, below=SEEDS)
    output_dir: str | None = option(None, "the adapter's folder; must not exist", common=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_dir is None:
            raise ConfigError("no output_dir: give the folder that the adapter goes to")


@dataclass
class RewardModelConfig(Settings):
    """A reward model that is learned from runs."""

    group: ClassVar = "training"

    runs: list[str] = option(
        [], "run folders with rollouts; several to learn from all of them", common=True, alias="run"
    )
    base_model: str = option("embedded", "folder, hub id or embedded", common=True)
    epochs: int = option(2, "passes over the pairs", common=True, above=0)
    pairs_per_update: int = option(16, "most pairs of rewrites from one update and instruction", common=True, above=0)
    learning_rate: float = option(2e-4, "learning rate", common=True, above=0)
    seed: int = option(0, "seed of pairs, order and initial weights", common=True, at_least=0, below=SEEDS)
    output_dir: str | None = option(None, "the reward model's folder; reward_model in the first run", common=True)
    overwrite: bool = option(False, "replace the reward model in output_dir", common=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise ConfigError("no runs: give the folder of a run that trained")
