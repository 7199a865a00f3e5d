"""What would end a run later ends it here, before torch is imported and before anything is paid."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from prewrite.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from prewrite.lm.embedded import is_embedded, resolve_model
from prewrite.run.build import InstructionRows, open_constraints
from prewrite.run.config import SearchConfig, TrainConfig
from prewrite.task_models.registry import FOLDERS, parse_task_model


def check_models(config: TrainConfig) -> None:
    """Raise `ModelNotFoundError` for a model that is neither here nor on the hub; one of the hub is fetched."""
    task_model = parse_task_model(config.task_model)
    models = {"base_model": config.base_model, "fidelity_model": config.fidelity_model}
    if task_model.backend in FOLDERS:
        models["task_model"] = task_model.model
    for setting, model in models.items():
        if is_embedded(model) or (setting, model) == ("fidelity_model", "none"):
            continue  # to resolve the embedded model may mean to convert weights
        try:
            resolve_model(model)
        except ModelNotFoundError as error:
            without = "; --fidelity_model none does without the judge" if setting == "fidelity_model" else ""
            raise ModelNotFoundError(f"{setting}: {error}{without}") from None


def check_tracker(config: TrainConfig) -> None:
    """Raise `MissingDependencyError` where the package that `report_to` needs is not installed."""
    if config.report_to == "tensorboard" and find_spec("tensorboard") is None:
        raise MissingDependencyError("report_to tensorboard: it is not installed; `pip install 'prewrite[tracking]'`")


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
