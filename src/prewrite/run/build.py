"""From settings to objects: the data splits, the task model in its wrappers, the evaluator."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prewrite.errors import ConfigError, ModelNotFoundError
from prewrite.run.config import TaskConfig

if TYPE_CHECKING:
    from prewrite.data import PRewriteDataset, Splits
    from prewrite.scoring.evaluator import Evaluator
    from prewrite.scoring.fidelity import Fidelity
    from prewrite.task_models.budget import Price
    from prewrite.task_models.counting import CountingTaskModel
    from prewrite.task_models.registry import TaskModelSpec


def demo_data() -> Path:
    """The folder of the built-in data set."""
    return Path(str(files("prewrite.data").joinpath("demo")))


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
            demo_data() if source == "demo" else source,
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


def open_rows(config: TaskConfig, split: str, instruction: str | None = None) -> PRewriteDataset:
    """The rows of one instruction in the one data set of the settings.

    `split` is train, dev or test. `instruction` names one of the data's; any other one, or None, means the only
    instruction that there is. Raises `ConfigError` where it is open which rows are meant.
    """
    if len(config.dataset) > 1:
        raise ConfigError(f"{len(config.dataset)} data sets are given; this command takes one")
    rows: PRewriteDataset = getattr(open_splits(config)[0], split)
    by_instruction = rows.by_instruction()
    if instruction in by_instruction:
        return by_instruction[instruction]
    if len(by_instruction) > 1:
        names = ", ".join(map(repr, list(by_instruction)[:3]))
        raise ConfigError(
            f"the {split} rows of {config.dataset[0]} hold {len(by_instruction)} instructions ({names}, ...); "
            "name the one that is meant, word for word, with --instruction"
        )
    return rows


def task_model_spec(config: TaskConfig) -> TaskModelSpec:
    """Which task model the settings name."""
    from prewrite.task_models.registry import parse_task_model, spec_from_pair

    if config.task_backend is not None:
        return spec_from_pair(config.task_backend, config.task_model)
    return parse_task_model(config.task_model)


def open_price(config: TaskConfig) -> Price | None:
    """What the task model costs, by the user's table; None without one."""
    from prewrite.task_models.budget import Price

    return Price.load(Path(config.prices), task_model_spec(config).model) if config.prices else None


def open_counted_task_model(config: TaskConfig) -> CountingTaskModel:
    """The task model of the settings, counted, cached and within budget."""
    from prewrite.task_models.budget import Budget
    from prewrite.task_models.cache import AnswerCache
    from prewrite.task_models.registry import open_task_model, wrap_task_model

    options: dict[str, Any] = {key: yaml.safe_load(value) for key, value in config.task_model_options.items()}
    limits = (config.max_task_calls, config.max_task_tokens, config.max_usd, config.max_minutes)
    budget = None
    if any(limit is not None for limit in limits):
        calls, tokens, usd, minutes = limits
        budget = Budget(max_calls=calls, max_tokens=tokens, max_usd=usd, max_minutes=minutes, price=open_price(config))
    backend = open_task_model(task_model_spec(config), options=options)
    return wrap_task_model(backend, cache=AnswerCache() if config.cache else None, budget=budget)


def open_evaluator(config: TaskConfig) -> Evaluator:
    """The evaluator over `open_counted_task_model`."""
    from prewrite.scoring.evaluator import Evaluator

    return Evaluator(
        open_counted_task_model(config), metric=config.metric, decoding=config.decoding, template=config.task_template
    )


def open_fidelity(config: TaskConfig, evaluator: Evaluator | None = None) -> Fidelity | None:
    """The judge of fidelity that the settings name; None for `none`.

    It shares the weights of the task model of `evaluator` where both are the same model. Its questions are no
    task-model calls.
    """
    from prewrite.lm.embedded import resolve_model
    from prewrite.scoring.fidelity import Fidelity
    from prewrite.task_models.hf import HFTaskModel
    from prewrite.task_models.stream import unwrapping

    if config.fidelity_model == "none":
        return None
    backend = None
    if evaluator is not None:
        *_, backend = unwrapping(evaluator.task_model)
    try:
        judge = resolve_model(config.fidelity_model)
        if isinstance(backend, HFTaskModel) and not backend.chat and backend.source == judge:
            return Fidelity(backend)
        return Fidelity(HFTaskModel(config.fidelity_model))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"fidelity_model: {error}; --fidelity_model none does without the judge") from None
