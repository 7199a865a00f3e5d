"""What would end a run later ends it here, before torch is imported and before anything is paid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prewrite.errors import ConfigError, ModelNotFoundError
from prewrite.lm.embedded import is_embedded, resolve_model
from prewrite.run.build import InstructionRows, open_constraints, open_counted_task_model
from prewrite.run.config import SearchConfig, TaskConfig, TrainConfig
from prewrite.run_folder import REWRITER_FILE
from prewrite.task_models.registry import FOLDERS, names_server, parse_task_model


def check_models(config: TrainConfig | SearchConfig) -> None:
    """Raise `ModelNotFoundError` for a model that is neither here nor on the hub; one of the hub is fetched."""
    task_model = parse_task_model(config.task_model)
    models = {"fidelity_model": config.fidelity_model}
    if isinstance(config, TrainConfig):
        models["base_model"] = config.base_model
    elif config.rewriter != "none" and not names_server(config.rewriter) and not is_run(config.rewriter):
        models["rewriter"] = config.rewriter
    if task_model.backend in FOLDERS:
        models["task_model"] = task_model.model
    if config.fidelity_model == "none":
        del models["fidelity_model"]
    for setting, model in models.items():
        check_model(setting, model)


def check_model(setting: str, model: str) -> None:
    """Raise `ModelNotFoundError` where the model that a setting names is neither here nor on the hub."""
    if is_embedded(model):
        return  # to resolve it may mean to convert weights
    try:
        resolve_model(model)
    except ModelNotFoundError as error:
        without = "; --fidelity_model none does without the judge" if setting == "fidelity_model" else ""
        raise ModelNotFoundError(f"{setting}: {error}{without}") from None


def check_server(config: TaskConfig) -> None:
    """Ask the server of the task model, where it is on one, what it can do; raises what the backend raises."""
    if names_server(config.task_model):
        _ = open_counted_task_model(config).capabilities


def is_run(rewriter: str) -> bool:
    """Whether the setting `rewriter` is a folder with a trained rewriter, or a run's that should hold one."""
    folder = Path(rewriter)
    return os.path.isfile(folder / REWRITER_FILE) or os.path.isdir(folder / "rewriter")


def check_constraints(config: TrainConfig | SearchConfig, instructions: Sequence[InstructionRows]) -> None:
    """Raise `ConfigError` for an initial instruction that breaks a rule of the user, or labels that none may show."""
    constraints = open_constraints(config)
    for rows in instructions:
        constraints.check_initial(rows.instruction)
        if "exemplars" in config.parts:
            constraints.check_labels(rows.dev[0].choices or ())


def check_processes(config: TrainConfig, number: int) -> None:
    """Raise `ConfigError` for settings that do not fit `number` processes."""
    share, rest = divmod(config.rewrites_per_step, number)
    if rest:
        raise ConfigError(
            f"rewrites_per_step {config.rewrites_per_step} cannot be shared out evenly among {number} processes; "
            f"choose a multiple of {number}"
        )
    if config.micro_batch_size and share % config.micro_batch_size:
        raise ConfigError(
            f"micro_batch_size {config.micro_batch_size} does not divide the {share} rewrites of each of {number} "
            "processes; choose a divisor"
        )
    limits = ("max_task_calls", "max_task_tokens", "max_usd")
    if number > 1 and (limited := next((name for name in limits if getattr(config, name) is not None), None)):
        raise ConfigError(
            f"{limited} is kept by one process and {number} run; leave it out and set a limit where the task model "
            "is served, or start one process"
        )
