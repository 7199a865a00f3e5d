"""What would end a run later ends it here, before torch is imported and before anything is paid."""

from __future__ import annotations

from prewrite.errors import ConfigError
from prewrite.lm.embedded import is_embedded, resolve_model
from prewrite.run.config import TrainConfig
from prewrite.task_models.registry import parse_task_model


def check_models(config: TrainConfig) -> None:
    """Raise `ModelNotFoundError` for a path that is no folder; hub ids are looked up when they are loaded."""
    task_model = parse_task_model(config.task_model)
    models = [config.base_model, *([task_model.model] if task_model.backend == "hf" else [])]
    for model in models:
        if not is_embedded(model):  # to resolve these may mean to convert weights
            resolve_model(model)


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
