"""What all trainers of a rewriter share: arguments, dev stopping, stop requests, the run folder, the rewriter.

An algorithm's trainer has two base classes, `RewriterTrainer` and then TRL's trainer. It brings TRL's settings
(`trl_config`), the call of TRL's constructor (`start_trl`) and the training itself (`train`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError, TrainingError
from prewrite.lm.tokens import end_ids
from prewrite.rewriter.meta_prompts import load_meta_prompt
from prewrite.rewriter.policy import PolicyWithValueHead
from prewrite.rewriter.rewriter import Rewriter, RewriterSettings, save_rewriter
from prewrite.rewriter.starter import load_base
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.train import checkpoint, processes
from prewrite.train.clock import Clock
from prewrite.train.cost import RunCost
from prewrite.train.dev_stopping import DevStopping
from prewrite.train.grading import Grader
from prewrite.train.health import Health
from prewrite.train.kl import KLController
from prewrite.train.mixture import Mixture


class NextStep(NamedTuple):
    """What follows an update, the same on every process."""

    stop: bool
    """Training ends here."""
    save: bool
    """A checkpoint is due."""


class RewriterTrainer:
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
        lora: a `peft.LoraConfig`, or None for full finetuning. Its dropout stays off, see docs/decisions.md.
        examples_per_rewrite: rows that every rewrite of an instruction is scored on in one update.
        instructions_per_step: distinct instructions in one update; the rollouts are shared out evenly.
        max_steps: updates.
        eval_steps, patience, dev_examples: score the greedy rewrites every `eval_steps` updates on up to
            `dev_examples` dev rows; stop after `patience` evaluations without a better one (0: never stop early).
        save_steps, save_total_limit: updates between checkpoints, and how many of the newest are kept.
        target_kl: if set, the KL coefficient adapts so that the KL per completion approaches it, in nats.
        progress: called after every update with its number and metrics.
        trl_settings: fields of TRL's config for the algorithm.

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
        save_total_limit: int = 2,
        target_kl: float | None = None,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        **trl_settings: Any,
    ):
        meta_prompt = load_meta_prompt(meta_family)
        self.run_folder = RunFolder(Path(log_dir))
        self.mixture = Mixture.of(train_dataset)
        self.instructions_per_step = min(instructions_per_step, len(self.mixture.rows))
        self.max_updates = max_steps
        groups, folder = self.instructions_per_step, self.run_folder.path
        args = self.trl_config(trl_settings, updates=max_steps, groups=groups, folder=folder)
        self.kl_controller = KLController(self._setting(args, "kl_coef"), target=target_kl)
        self.run_folder.path.mkdir(parents=True, exist_ok=True)
        if isinstance(base_model, tuple):
            (model, tokenizer), name = base_model, "custom"
        else:
            model, tokenizer = load_base(str(base_model), warm_start=warm_start)
            name = str(base_model)
        clear_sampling_defaults(model)
        self.end_ids = end_ids(model, tokenizer)
        model.generation_config.eos_token_id = list(self.end_ids)
        self.warm_start = Path(warm_start) if warm_start is not None else None
        self.reward = reward or TaskReward(evaluator)
        self.settings = RewriterSettings(
            base_model=name,
            meta_prompt=meta_prompt,
            templates=self.mixture.templates,
            max_new_tokens=self._setting(args, "response_length"),
            temperature=args.temperature,
        )
        self.grade = Grader(self.reward, self.mixture.rows, count=examples_per_rewrite, seed=args.seed)
        self.dev = DevStopping(
            dev_dataset, self.reward, every=eval_steps, patience=patience, limit=dev_examples, seed=args.seed
        )
        self.save_every, self.save_total_limit = save_steps, save_total_limit
        self.progress = progress
        self.cost = RunCost(evaluator.task_model)
        self.stop_requested = False
        self.health = Health()
        set_seed(args.seed)  # TRL 0.25 draws the adapter before it seeds
        self.start_trl(model, tokenizer, args, lora)

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

    # ---- after every update ---------------------------------------------------------------------------------------

    def score_dev(self, clock: Clock) -> dict[str, float]:
        """The dev score after this update, as a metric, where one is due."""
        if not self.dev.due(self.updates, last=self.updates == self.max_updates):
            return {}
        score = self.evaluate_on_dev(self.updates)
        clock.lap("dev")
        return {"dev/score": score}

    def evaluate_on_dev(self, step: int) -> float:
        """Greedy rewrites of all instructions on dev; remembers the policy if it is the best so far."""
        result = self.dev.evaluate(step, self.rewriter().greedy)
        if self.accelerator.is_main_process:
            self.run_folder.append(self.run_folder.rewrites, result.rows)
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
        folder = self.run_folder.rewriter
        model, tokenizer = self.policy.policy, self.processing_class
        save_rewriter(folder, model, self.settings, warm_start=self.warm_start, tokenizer=tokenizer)
        return folder

    def _unwrapped(self) -> nn.Module:
        """What is trained, without accelerate's wrapper."""
        model: nn.Module = self.accelerator.unwrap_model(self.model)
        return model


def clear_sampling_defaults(model: PreTrainedModel) -> None:
    """A model's own top-p or repetition penalty must not leak into generation: log-probs are of the plain softmax."""
    config = model.generation_config
    for name in ("top_p", "top_k", "typical_p", "repetition_penalty", "temperature", "do_sample", "min_p"):
        if hasattr(config, name):
            setattr(config, name, None)


@contextmanager
def taken_by_trl() -> Iterator[None]:
    """What TRL raises in here for a value of its config is a `ConfigError` that says where the value stands."""
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"TRL does not take a setting: {' '.join(str(error).split())}; correct trl_overrides"
        ) from None
