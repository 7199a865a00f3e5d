"""Names of task models, as users write them, and what opens them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prewrite.errors import ConfigError
from prewrite.lm.embedded import EMBEDDED_NAMES
from prewrite.task_models.addresses import check_no_address, server_address
from prewrite.task_models.base import TaskModel
from prewrite.task_models.budget import Budget, BudgetTaskModel
from prewrite.task_models.cache import AnswerCache, CachedTaskModel
from prewrite.task_models.counting import CountingTaskModel, Usage

BACKENDS = {
    "hf": ("prewrite.task_models.hf", "HFTaskModel"),
    "ollama": ("prewrite.task_models.ollama", "OllamaTaskModel"),
    "openai": ("prewrite.task_models.openai", "OpenAITaskModel"),
    "openvino": ("prewrite.task_models.openvino", "OpenVINOTaskModel"),
    "vllm": ("prewrite.task_models.vllm", "VLLMTaskModel"),
}
"""Backend name to module and class; imported only when opened. To add one, add a line."""
SERVERS = ("ollama", "openai")
"""Backends that take an address."""
EXAMPLES = "hf:embedded, hf:PATH_OR_ID, ollama:gemma3:4b, openai:MODEL@http://127.0.0.1:8000/v1, openvino:FILE.gguf"


@dataclass(frozen=True, slots=True)
class TaskModelSpec:
    """Which model on which backend, and where; `str()` of it parses back to it."""

    backend: str
    model: str
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.backend}:{self.model}" + (f"@{self.address}" if self.address else "")


def parse_task_model(text: str) -> TaskModelSpec:
    """`BACKEND:MODEL`, for servers also `BACKEND:MODEL@http://HOST:PORT`; `demo` and `embedded` are `hf:embedded`.

    Raises `ConfigError` for anything else. A key in the address is refused: keys come from the environment. So is an
    address without its scheme, which would be taken for a part of the model's name, and rows sent elsewhere.
    """
    if text in EMBEDDED_NAMES:
        return TaskModelSpec("hf", "embedded")
    backend, colon, rest = text.partition(":")
    if not colon or not rest or backend not in BACKENDS:
        raise ConfigError(
            f"task model {text!r} is not BACKEND:MODEL with a backend of {', '.join(BACKENDS)}; e.g. {EXAMPLES}"
        )
    match = re.fullmatch(r"(.+?)@(https?:.*)", rest, re.IGNORECASE)
    if not match:
        if backend in SERVERS:
            check_no_address(backend, rest)
        return TaskModelSpec(backend, rest)
    model, address = match.groups()
    if backend not in SERVERS:
        raise ConfigError(f"task model {text!r}: {backend} runs in this process and takes no address")
    return TaskModelSpec(backend, model, server_address(address, setting=f"the address of {backend}:{model}"))


def open_task_model(spec: str | TaskModelSpec, *, options: Mapping[str, Any] | None = None) -> TaskModel:
    """The backend itself, without cache or budget. `options` are the keyword arguments of its class.

    Raises `ConfigError` that lists the options for an unknown one, `MissingDependencyError` with the pip line.
    """
    spec = parse_task_model(spec) if isinstance(spec, str) else spec
    module, class_name = BACKENDS[spec.backend]
    backend = getattr(importlib.import_module(module), class_name)
    known = [name for name in inspect.signature(backend).parameters if name not in ("model", "address")]
    options = dict(options or {})
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"task model {spec}: unknown option {unknown[0]!r}; {spec.backend} has {', '.join(known)}")
    if spec.address:
        options["address"] = spec.address
    task_model: TaskModel = backend(spec.model, **options)
    return task_model


def wrap_task_model(
    task_model: TaskModel,
    *,
    cache: AnswerCache | None = None,
    budget: Budget | None = None,
    usage: Usage | None = None,
) -> CountingTaskModel:
    """Put the wrappers around a backend in the only right order: counted, cached, within budget.

    The cache is outside the budget, so that what is cached costs nothing; counting sees both.
    """
    if budget is not None:
        task_model = BudgetTaskModel(task_model, budget)
    if cache is not None:
        task_model = CachedTaskModel(task_model, cache)
    return CountingTaskModel(task_model, usage)
