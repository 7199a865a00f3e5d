"""What all trainers of a rewriter share: arguments, dev stopping, stop requests, the run folder, the rewriter.

An algorithm's trainer has two base classes, `RewriterTrainer` and then TRL's trainer. It brings TRL's settings
(`trl_config`), the call of TRL's constructor (`start_trl`) and the training itself (`run_updates`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from accelerate import Accelerator
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from prewrite.data import InMemory, PRewriteDataset
from prewrite.errors import ConfigError, TrainingError
from prewrite.lm.tokens import end_ids, give_pad_token
from prewrite.rewriter.meta_prompts import load_meta_prompt
from prewrite.rewriter.policy import PolicyWithValueHead
from prewrite.rewriter.rewriter import Rewriter, RewriterSettings, save_rewriter
from prewrite.rewriter.starter import default_temperature, load_base
from prewrite.run_folder import RunFolder, check_there
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.fidelity import open_judge
from prewrite.scoring.rewards import TaskReward, guards_of
from prewrite.train import checkpoint, processes
from prewrite.train.clock import Clock
from prewrite.train.cost import RunCost
from prewrite.train.dev_stopping import DevStopping
from prewrite.train.grading import Grader
from prewrite.train.health import Health
from prewrite.train.kl import KLController
from prewrite.train.mixture import Mixture, TrainRows, some_inputs
from prewrite.train.warm_start import adapter_for


class NextStep(NamedTuple):
    """What follows an update, the same on every process."""

    stop: bool
    """Training ends here."""
    save: bool
    """A checkpoint is due."""


class RewriterTrainer:
    """Trains `base_model` to rewrite the instructions of `train_dataset` so that the task model scores better.

    Args:
        base_model: folder, hub id or `embedded`; or a loaded (model, tokenizer) pair, which is taken as it is: without
            a warm start, LoRA and a judge of fidelity unless they are given.
        evaluator: scores rewrites with the frozen task model.
        meta_family: the meta prompt, see `meta_prompts`.
        log_dir: the run folder; metrics, rollouts and checkpoints go there.
        train_dataset: rows, as `PRewriteDataset` takes them, or a `Mixture` of instructions and their rows; each
            update draws its examples from them. They may be given to `train` instead.
        dev_dataset: rows that decide which policy is kept and when to stop.
        reward: what a rewrite earns; by default the evaluator's metric less the default guards and low fidelity.
        fidelity_model: judge of fidelity of the default reward: a folder, a hub id or `embedded`; None for none,
            `auto` as on the command line: `embedded`.
        warm_start: folder of an adapter that is merged into the base model first and becomes the KL reference; None
            for none, `auto` as on the command line: below 1B parameters the one shipped or made on first use.
        lora: a `peft.LoraConfig`, or None for full finetuning; `auto` as on the command line: rank 16. Its dropout
            stays off, see docs/decisions.md.
        examples_per_rewrite: rows that every rewrite of an instruction is scored on in one update.
        instructions_per_step: distinct instructions in one update; the rollouts are shared out evenly.
        max_steps: updates.
        eval_steps, patience, dev_examples: score the greedy rewrites every `eval_steps` updates on up to
            `dev_examples` dev rows; stop after `patience` evaluations without a better one (0: never stop early).
        save_steps, save_total_limit: updates between checkpoints, and how many of the newest are kept.
        target_kl: if set, the KL coefficient adapts so that the KL per completion approaches it, in nats.
        progress: called after every update with its number and metrics.
        trl_settings: fields of TRL's config for the algorithm. The default of `temperature` is the command line's: 1,
            and 0.7 below 1B parameters.

    Raises `ConfigError` for settings that are unknown or cannot work, before anything is written.
    """

    trl_names: Mapping[str, str] = {}
    """What TRL calls our settings `response_length` and `kl_coef`, where that is something else."""

    # TRL's constructor sets these.
    accelerator: Accelerator
    model: nn.Module
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        base_model: str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        evaluator: Evaluator,
        meta_family: str = "generic",
        log_dir: str | Path = "runs/rewriter",
        *,
        train_dataset: TrainRows | None = None,
        dev_dataset: InMemory | PRewriteDataset | None = None,
        reward: TaskReward | None = None,
        fidelity_model: str | None = "auto",
        warm_start: str | Path | None = "auto",
        lora: LoraConfig | Literal["auto"] | None = "auto",
        examples_per_rewrite: int = 16,
        instructions_per_step: int = 1,
        max_steps: int = 30,
        eval_steps: int = 5,
        patience: int = 0,
        dev_examples: int = 100,
        save_steps: int = 10,
        save_total_limit: int = 2,
        target_kl: float | None = None,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        **trl_settings: Any,
    ):
        meta_prompt = load_meta_prompt(meta_family)
        self.run_folder = RunFolder(Path(log_dir))
        self.instructions_per_step = instructions_per_step
        self.max_updates = max_steps
        self.save_every, self.save_total_limit = save_steps, save_total_limit
        self.progress = progress
        self.cost = RunCost(evaluator.task_model)
        self.stop_requested = False
        self.health = Health()
        dev_rows = None if dev_dataset is None else PRewriteDataset.of(dev_dataset)
        loaded = isinstance(base_model, tuple)
        if not loaded:
            trl_settings = {"temperature": default_temperature(str(base_model)), **trl_settings}

        def start(rows: TrainRows) -> None:
            """All that depends on the rows, and what is slow."""
            self.mixture = Mixture.of(rows)
            groups = self.instructions_per_step = min(instructions_per_step, len(self.mixture.rows))
            args = self.trl_config(trl_settings, updates=max_steps, groups=groups, folder=self.run_folder.path)
            self.kl_controller = KLController(self._setting(args, "kl_coef"), target=target_kl)
            self.run_folder.path.mkdir(parents=True, exist_ok=True)
            if isinstance(base_model, tuple):
                (model, tokenizer), name = base_model, "custom"
                give_pad_token(tokenizer)
                adapter = None if warm_start in (None, "auto") else Path(str(warm_start))
            else:
                name = str(base_model)
                adapter = adapter_for(str(warm_start or "none"), name, meta_family)
                model, tokenizer = load_base(name, warm_start=adapter)
            clear_sampling_defaults(model)
            self.end_ids = end_ids(model, tokenizer)
            model.generation_config.eos_token_id = list(self.end_ids)
            self.warm_start = adapter
            judge = fidelity_model if fidelity_model != "auto" else None if loaded else "embedded"
            self.reward = reward or default_reward(evaluator, self.mixture, judge)
            self.settings = RewriterSettings(
                base_model=name,
                meta_prompt=meta_prompt,
                templates=self.mixture.templates,
                max_new_tokens=self._setting(args, "response_length"),
                temperature=args.temperature,
            )
            self.grade = Grader(self.reward, self.mixture.rows, count=examples_per_rewrite, seed=args.seed)
            self.dev = DevStopping(
                dev_rows, self.reward, every=eval_steps, patience=patience, limit=dev_examples, seed=args.seed
            )
            set_seed(args.seed)  # TRL 0.25 draws the adapter before it seeds
            if lora == "auto":
                self.start_trl(model, tokenizer, args, None if loaded else default_lora())
            else:
                self.start_trl(model, tokenizer, args, lora)

        self._start: Callable[[TrainRows], None] | None = start
        if train_dataset is not None:
            self.take_rows(train_dataset)

    def take_rows(self, train_dataset: TrainRows | None) -> None:
        """Load the model and prepare for training on these rows. Raises `ConfigError` for none, and for others."""
        if self._start is None:
            if train_dataset is not None:
                raise ConfigError("train_dataset is given to the trainer and to train(); give it once")
        elif train_dataset is None:
            raise ConfigError(
                f"there is nothing to train on; write trainer.train(rows), or {type(self).__name__}(..., "
                "train_dataset=rows), where rows are a PRewriteDataset, such as PRewriteDataset('train.jsonl')"
            )
        else:
            start, self._start = self._start, None
            start(train_dataset)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any], *, groups: int) -> None:
        """Raise `ConfigError` for plain arguments that TRL does not know or take; nothing is loaded or written.

        `groups` is how many instructions an update has.
        """
        own = {*inspect.signature(RewriterTrainer).parameters, *inspect.signature(cls).parameters}
        given = {name: value for name, value in settings.items() if name not in own}
        cls.trl_config(given, updates=settings["max_steps"], groups=groups, folder=Path("runs"))

    def _setting(self, args: Any, name: str) -> Any:
        return getattr(args, self.trl_names.get(name, name))

    # ---- what an algorithm brings ---------------------------------------------------------------------------------

    @classmethod
    def trl_config(cls, given: Mapping[str, Any], *, updates: int, groups: int, folder: Path) -> Any:
        """TRL's config from its fields `given` and our defaults. Raises `ConfigError` for what it does not take."""
        raise NotImplementedError

    def start_trl(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: Any, lora: LoraConfig | None
    ) -> None:
        """Call TRL's constructor."""
        raise NotImplementedError

    @property
    def policy(self) -> PolicyWithValueHead:
        """The policy as it is now."""
        raise NotImplementedError

    @property
    def updates(self) -> int:
        """Updates done."""
        raise NotImplementedError

    @property
    def kept_step(self) -> int:
        """The update whose policy is the rewriter: the best on dev rows, where there are any, else the last."""
        return self.updates if self.dev.best_state is None else self.dev.best_step

    def run_updates(self, resume_from_checkpoint: str | Path | None) -> dict[str, float]:
        """Run updates until `max_steps`, the dev set's patience, or a stop request; restore the best policy."""
        raise NotImplementedError

    def train(
        self, train_dataset: TrainRows | None = None, *, resume_from_checkpoint: str | Path | None = None
    ) -> dict[str, float]:
        """Train until `max_steps`, the dev set's patience, or a stop request, and save the rewriter.

        The rewriter, in the run folder's `rewriter/`, is the best on dev rows where there are any, else the last one.
        A stop request (`self.stop_requested = True`, as Ctrl-C sets it) ends training after the running update, with
        a checkpoint in place of a rewriter. Returns the metrics of the last update. Raises `ConfigError` where the
        trainer has no rows and `train_dataset` gives none.
        """
        self.take_rows(train_dataset)
        metrics = self.run_updates(resume_from_checkpoint)
        if self.accelerator.is_main_process and not self.stop_requested:
            self.save_rewriter()
        return metrics

    # ---- after every update ---------------------------------------------------------------------------------------

    def score_dev(self, clock: Clock) -> dict[str, float]:
        """The dev score after this update, as a metric, where one is due."""
        if not self.dev.due(self.updates, last=self.updates == self.max_updates):
            return {}
        score = self.evaluate_on_dev(self.updates)
        clock.lap("dev")
        return {"dev/score": score}

    def evaluate_on_dev(self, step: int) -> float:
        """Greedy rewrites of all instructions on dev; remembers the policy if it is the best so far.

        `step` 0, before training, gets a line of `metrics.jsonl` of its own; else the score is one of the update's.
        """
        result = self.dev.evaluate(step, self.rewriter().greedy)
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.rewrites, result.rows)
            if step == 0:
                self.run_folder.append(self.run_folder.metrics, [{"step": 0, "dev/score": result.score}])
        if result.is_best:
            self.dev.best_state = checkpoint.trainable_state(self._unwrapped())
        return result.score

    def log_update(self, metrics: dict[str, float], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Write the run folder's lines of this update, and tell `progress`."""
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.metrics, [{"step": self.updates, **metrics}])
            self.run_folder.append(self.run_folder.rollouts, rollouts)
        if self.progress is not None:
            self.progress(self.updates, metrics)

    def end_without_hope(self, rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Save and raise `TrainingError` where the updates teach nothing; after every update, with its rollouts."""
        if (why := self.health.why_end(self.updates, rollouts)) is not None:
            self.save_now()
            raise TrainingError(why)

    def save_now(self) -> None:
        """Write a checkpoint, whether or not one is due."""
        raise NotImplementedError

    def next_step(self) -> NextStep:
        """Whether training ends after this update, and whether it is saved. A collective call.

        Training ends where a stop was requested, of any process, or dev has not improved for too long.
        """
        self.stop_requested = processes.any_of(self.stop_requested)
        last = self.updates == self.max_updates
        stop = self.stop_requested or self.dev.exhausted
        return NextStep(stop, stop or last or self.updates % self.save_every == 0)

    def return_to(self, step: int) -> None:
        """Leave in the run folder what was there after update `step`, whose checkpoint is loaded."""
        if self.accelerator.is_main_process:
            self.run_folder.truncate_all(after_step=step)
            checkpoint.remove_older(self.run_folder, step, keep=self.save_total_limit)

    def restore_best(self) -> None:
        """Put the best policy on dev back. After a stop request the policy stays as it is: the run will go on."""
        if not self.stop_requested and self.dev.best_state is not None:
            checkpoint.load_trainable_state(self._unwrapped(), self.dev.best_state)

    # ---- the rewriter ---------------------------------------------------------------------------------------------

    def rewriter(self) -> Rewriter:
        """The policy as it is now, for writing rewrites."""
        return Rewriter(self.policy, self.processing_class, self.settings)

    def save_rewriter(self) -> Path:
        """Write the policy as it is now to the run folder's `rewriter/`."""
        check_there(self.run_folder.path)
        folder = self.run_folder.rewriter
        model, tokenizer = self.policy.policy, self.processing_class
        save_rewriter(folder, model, self.settings, warm_start=self.warm_start, tokenizer=tokenizer)
        return folder

    def _unwrapped(self) -> nn.Module:
        """What is trained, without accelerate's wrapper."""
        model: nn.Module = self.accelerator.unwrap_model(self.model)
        return model


def default_lora(rank: int = 16) -> LoraConfig:
    """The adapter that is trained where nothing else is said."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def default_reward(evaluator: Evaluator, mixture: Mixture, judge: str | None) -> TaskReward:
    """The evaluator's metric, the default guards, which know the inputs of the train rows, and fidelity by `judge`."""
    each = list(mixture.rows.values())
    guards = guards_of(evaluator, [rows[0] for rows in each])
    fidelity = open_judge(judge, evaluator.task_model) if judge is not None else None
    return TaskReward(evaluator, guards=guards, fidelity=fidelity, forbidden_texts=some_inputs(each))


def clear_sampling_defaults(model: PreTrainedModel) -> None:
    """A model's own top-p or repetition penalty must not leak into generation: log-probs are of the plain softmax."""
    config = model.generation_config
    for name in ("top_p", "top_k", "typical_p", "repetition_penalty", "temperature", "do_sample", "min_p"):
        if hasattr(config, name):
            setattr(config, name, None)
