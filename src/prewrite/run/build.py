"""From settings to objects: the one place that knows which settings make which part of a run.

Each function makes one part and imports what it needs, so that a command pays only for the parts that it uses.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prewrite.errors import ConfigError, DataError, ModelNotFoundError
from prewrite.run.config import ChoiceConfig, ReadableConfig, SearchConfig, TaskConfig, TrainConfig
from prewrite.text import parse_yaml

if TYPE_CHECKING:
    from prewrite.data import PRewriteDataset, Splits
    from prewrite.rewriter.rewriter import Rewriter, RewriterSettings
    from prewrite.run_folder import RunFolder
    from prewrite.scoring.constraints import Constraints
    from prewrite.scoring.evaluator import Evaluator
    from prewrite.scoring.fidelity import Fidelity
    from prewrite.scoring.rewards import TaskReward
    from prewrite.task_models.budget import Price
    from prewrite.task_models.counting import CountingTaskModel
    from prewrite.train.algorithms import Trainer
    from prewrite.train.mixture import Mixture
    from prewrite.types import RewriteExample

logger = logging.getLogger(__name__)

# ---- data -----------------------------------------------------------------------------------------------------------


class InstructionRows(NamedTuple):
    """One instruction and its rows."""

    instruction: str
    train: PRewriteDataset | None
    """None where training has no rows of it."""
    dev: PRewriteDataset
    test: PRewriteDataset | None
    """None where no rows are held out; the gain is then estimated from dev, corrected for the choice."""


def open_splits(config: TaskConfig) -> list[Splits]:
    """Train, dev and test of every data set of the run, in order. Raises `DataError` or `ConfigError`."""
    from prewrite.data import load_splits

    if not config.dataset:
        raise ConfigError("no data: give --dataset FILE_OR_FOLDER (or 'demo' for the built-in data)")
    if twice := [source for source, count in Counter(config.dataset).items() if count > 1]:
        raise ConfigError(f"dataset {twice[0]!r} is given twice; give each data set once")
    if len(config.dataset) > 1 and (config.dev_dataset or config.test_dataset):
        raise ConfigError(
            "dev_dataset and test_dataset go with one dataset; give folders of train/dev/test files instead"
        )
    return [
        load_splits(
            source,
            dev=config.dev_dataset,
            test=config.test_dataset,
            seed=config.seed,
            column_map=config.column_map,
            instruction=config.instruction,
            task=config.task,
            skip_bad_rows=config.skip_bad_rows,
            hold_out_test=config.hold_out_test,
        )
        for source in config.dataset
    ]


def open_instructions(config: TrainConfig | SearchConfig, splits: Sequence[Splits]) -> list[InstructionRows]:
    """The instructions that a rewrite can be chosen for and, where test rows are held out, tested.

    Warns of instructions that have only one of dev and test rows; raises `DataError` where all are like that.
    """
    found, left = [], []
    for part in splits:
        trains, devs, tests = (rows.by_instruction() for rows in part)
        for instruction, dev_rows in devs.items():
            test_rows = tests.get(instruction)
            if test_rows is not None and config.test_examples:
                test_rows = _draw(test_rows, config.test_examples, seed=config.seed)
            if test_rows is None and config.hold_out_test:
                left.append(f"{instruction!r} has dev rows and no test rows")
            else:
                found.append(InstructionRows(instruction, trains.get(instruction), dev_rows, test_rows))
        left += [f"{instruction!r} has test rows and no dev rows" for instruction in tests if instruction not in devs]
    if not found:
        raise DataError(f"no instruction has both dev and test rows ({left[0]}); use one wording in all files")
    if left:
        logger.warning("neither chosen for nor tested: %d instruction(s), such as %s", len(left), left[0])
    return found


def open_mixture(config: TrainConfig, splits: Sequence[Splits]) -> Mixture:
    """What the rewriter trains on: the instructions of all train rows, and other wordings of them."""
    from prewrite.train.mixture import load_phrasings, mix

    trains = [part.train for part in splits]
    phrasings = None
    if config.phrasings is not None:
        phrasings = load_phrasings(config.phrasings, [name for rows in trains for name in rows.by_instruction()])
    return mix(trains, temperature=config.mixture_temperature, phrasings=phrasings)


def open_rows(config: TaskConfig, split: str, instruction: str | None = None) -> PRewriteDataset:
    """`rows_of` the one data set of the settings."""
    return rows_of(open_one_data_set(config), split, instruction)


def open_one_data_set(config: TaskConfig) -> Splits:
    """The splits of the only data set, with warnings on what is odd about it. Raises `ConfigError` for several."""
    if len(config.dataset) > 1:
        raise ConfigError(f"{len(config.dataset)} data sets are given; this command takes one")
    (splits,) = open_splits(config)
    for note in splits.notes():
        logger.warning("%s", note)
    return splits


def rows_of(splits: Splits, split: str, instruction: str | None = None) -> PRewriteDataset:
    """The rows of one instruction in a split.

    `split` is train, dev or test. `instruction` names one of the data's; any other one, or None, means the only
    instruction that there is. Raises `ConfigError` where it is open which rows are meant.
    """
    rows: PRewriteDataset = getattr(splits, split)
    if not len(rows):  # only a split that is not held out can be empty
        raise ConfigError(f"there are no {split} rows: hold_out_test is off; leave it on, or take other rows")
    by_instruction = rows.by_instruction()
    if instruction in by_instruction:
        return by_instruction[instruction]
    if len(by_instruction) > 1:
        names = ", ".join(map(repr, list(by_instruction)[:3]))
        raise ConfigError(
            f"the {split} rows of {rows.source.name} hold {len(by_instruction)} instructions ({names}, ...); "
            "name the one that is meant, word for word, with --instruction"
        )
    return rows


def _draw(rows: PRewriteDataset, count: int, *, seed: int) -> PRewriteDataset:
    """Up to `count` of the rows, drawn by the seed, in their order."""
    import numpy as np

    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))


# ---- task model and reward ------------------------------------------------------------------------------------------


def open_price(config: TaskConfig) -> Price | None:
    """What the task model costs, by the user's table; None without one."""
    from prewrite.task_models.budget import Price
    from prewrite.task_models.registry import parse_task_model

    return Price.load(Path(config.prices), parse_task_model(config.task_model).model) if config.prices else None


def open_counted_task_model(config: TaskConfig) -> CountingTaskModel:
    """The task model of the settings, counted, cached and within budget."""
    from prewrite.task_models.budget import Budget
    from prewrite.task_models.cache import AnswerCache
    from prewrite.task_models.registry import open_task_model, wrap_task_model

    options = {name: _option(name, text) for name, text in config.task_model_options.items()}
    limits = (config.max_task_calls, config.max_task_tokens, config.max_usd, config.max_minutes)
    budget = None
    if any(limit is not None for limit in limits):
        calls, tokens, usd, minutes = limits
        budget = Budget(max_calls=calls, max_tokens=tokens, max_usd=usd, max_minutes=minutes, price=open_price(config))
    cache = AnswerCache() if config.cache else None
    if cache is not None:
        cache.get([])  # one that cannot be used is told before a model is loaded or asked
    backend = open_task_model(config.task_model, options=options)
    return wrap_task_model(backend, cache=cache, budget=budget)


def _option(name: str, text: str) -> Any:
    """The value of an option of a task model, which is written as in YAML."""
    try:
        return parse_yaml(text)
    except ValueError:
        raise ConfigError(f"task_model_options: {name} is {text!r}, which is no YAML; put it in quotes") from None


def open_evaluator(config: TaskConfig) -> Evaluator:
    """The evaluator over `open_counted_task_model`."""
    from prewrite.scoring.evaluator import Evaluator

    return Evaluator(
        open_counted_task_model(config),
        metric=config.metric,
        decoding=config.decoding,
        template=config.task_template,
        skip_refused_rows=config.skip_refused_rows,
    )


def open_fidelity(config: ReadableConfig, evaluator: Evaluator | None = None) -> Fidelity | None:
    """The judge of fidelity that the settings name; None for `none`."""
    from prewrite.scoring.fidelity import open_judge

    if config.fidelity_model == "none":
        return None
    try:
        return open_judge(config.fidelity_model, evaluator.task_model if evaluator is not None else None)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"fidelity_model: {error}; --fidelity_model none does without the judge") from None


def open_constraints(config: ReadableConfig, evaluator: Evaluator | None = None) -> Constraints:
    """The rules of the user for every prompt that is chosen; without an evaluator tokens are estimated."""
    from prewrite.scoring.constraints import Constraints, about_tokens

    tokens_of = evaluator.prompt_tokens if evaluator is not None else about_tokens
    return Constraints(tuple(config.keep), tuple(config.forbid), config.max_prompt_tokens, tokens_of)


def open_reward(
    config: ReadableConfig, evaluator: Evaluator, examples: Sequence[RewriteExample], **task_part: Any
) -> TaskReward:
    """Guards and fidelity of the settings around the evaluator; `examples` is a row of each kind.

    `task_part` is what training adds to them, see `open_training_reward`.
    """
    from prewrite.scoring.rewards import TaskReward, guards_of

    reward = TaskReward(
        evaluator,
        guards=guards_of(evaluator, examples, config.guards),
        fidelity=open_fidelity(config, evaluator),
        min_fidelity=config.min_fidelity,
        constraints=open_constraints(config, evaluator),
        **task_part,
    )
    reward.check_capabilities(examples)  # before anything is paid or trained
    return reward


def open_training_reward(config: TrainConfig, evaluator: Evaluator, splits: Sequence[Splits]) -> TaskReward:
    """What a rewrite earns in training."""
    from prewrite.train.mixture import some_inputs

    trains = [part.train for part in splits]
    return open_reward(
        config,
        evaluator,
        [rows[0] for part in trains for rows in part.by_instruction().values()],
        mode=config.reward_mode,
        guard_weight=config.guard_weight,
        forbidden_texts=some_inputs(trains),
        **_reward_model(config),
    )


def _reward_model(config: TrainConfig) -> dict[str, Any]:
    """The arguments of `TaskReward` about the learned reward model; none where the task model grades every update."""
    if config.reward_model is None:
        return {}
    from prewrite.train.reward_model import LearnedReward

    learned = LearnedReward.load(config.reward_model)
    asked, known = config.task_model, learned.settings.task_model
    if asked != known:
        logger.warning("reward_model %s learned from grades of %s, not of %s", config.reward_model, known, asked)
    return dict(reward_model=learned, real_every=config.real_every, real_mode=learned.settings.reward_mode)


# ---- choice ---------------------------------------------------------------------------------------------------------


def choice_settings(config: ChoiceConfig) -> dict[str, Any]:
    """The arguments of `choose_rewrite` that settings decide."""
    return dict(
        num_candidates=config.num_candidates,
        race=config.race,
        practical_delta=config.practical_delta,
        max_items=config.race_items or None,
        seed=config.seed,
    )


# ---- rewriter and trainer -------------------------------------------------------------------------------------------


def resolved(config: TrainConfig) -> TrainConfig:
    """`config` with the settings that follow from the rewriter where they were not given."""
    from prewrite.rewriter.starter import default_temperature

    return replace(config, temperature=config.temperature or default_temperature(config.base_model))


def open_untrained_rewriters(config: TrainConfig, settings: RewriterSettings) -> Iterator[tuple[str, Rewriter]]:
    """(name, rewriter) before RL: the base model and, if training began with one, the base model warm-started."""
    from prewrite.rewriter.rewriter import Rewriter
    from prewrite.train.warm_start import adapter_for

    adapter = adapter_for(config.warm_start, config.base_model, config.meta_family)
    kept = {name: value for name, value in asdict(settings).items() if name != "base_model"}
    yield "untrained", Rewriter.untrained(config.base_model, **kept)
    if adapter is not None:
        yield "warm-started", Rewriter.untrained(config.base_model, warm_start=adapter, **kept)


def open_trainer(
    config: TrainConfig,
    splits: Sequence[Splits],
    mixture: Mixture,
    reward: TaskReward,
    run: RunFolder,
    progress: Callable[[int, dict[str, float]], None],
) -> Trainer:
    """The trainer of the settings, ready to train."""
    from prewrite.train.algorithms import ALGORITHMS
    from prewrite.train.mixture import joined
    from prewrite.train.trainer import default_lora
    from prewrite.train.warm_start import adapter_for

    trainer: Trainer = ALGORITHMS[config.algorithm].trainer_class()(
        config.base_model,
        reward.evaluator,
        log_dir=run.path,
        train_dataset=mixture,
        dev_dataset=joined([part.dev for part in splits]),
        reward=reward,
        warm_start=adapter_for(config.warm_start, config.base_model, config.meta_family),
        lora=default_lora(config.lora_rank) if config.lora else None,
        progress=progress,
        **trainer_settings(config),
    )
    return trainer


OBJECTS = ("log_dir", "train_dataset", "dev_dataset", "reward", "warm_start", "lora", "progress")
"""Arguments of a trainer that are no plain values; `open_trainer` makes them."""


def trainer_settings(config: TrainConfig) -> dict[str, Any]:
    """A trainer's arguments that are plain values, `trl_overrides` among them.

    Raises `ConfigError` where `trl_overrides` holds what another setting decides.
    """
    from prewrite.train import processes
    from prewrite.train.algorithms import ALGORITHMS

    share = config.rewrites_per_step // processes.count()
    micro = config.micro_batch_size or share
    decided: dict[str, Any] = dict(
        meta_family=config.meta_family,
        examples_per_rewrite=config.examples_per_rewrite,
        instructions_per_step=config.instructions_per_step,
        max_steps=config.max_steps,
        eval_steps=config.eval_steps,
        patience=config.patience,
        dev_examples=config.dev_examples,
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        target_kl=config.target_kl,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        seed=config.seed,
    )
    decided |= ALGORITHMS[config.algorithm].arguments(asdict(config))
    if twice := sorted({*decided, *OBJECTS} & config.trl_overrides.keys()):
        raise ConfigError(f"trl_overrides holds {twice[0]}, which a setting of its own decides; set that one instead")
    return decided | config.trl_overrides
