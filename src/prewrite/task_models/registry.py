"""Names of task models, as users write them, and what opens them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from prewrite.errors import ConfigError
from prewrite.lm.embedded import EMBEDDED_NAMES, resolve_model
from prewrite.task_models.addresses import (
    check_no_address,
    ollama_address,
    openai_address,
    server_address,
    way_to,
)
from prewrite.task_models.base import TaskModel
from prewrite.task_models.budget import Budget, BudgetTaskModel
from prewrite.task_models.cache import AnswerCache, CachedTaskModel
from prewrite.task_models.counting import CountingTaskModel, Usage
from prewrite.text import SCALARS, read_scalar

BACKENDS = {
    "hf": ("prewrite.task_models.hf", "HFTaskModel"),
    "ollama": ("prewrite.task_models.ollama", "OllamaTaskModel"),
    "openai": ("prewrite.task_models.openai", "OpenAITaskModel"),
    "openvino": ("prewrite.task_models.openvino", "OpenVINOTaskModel"),
    "vllm": ("prewrite.task_models.vllm", "VLLMTaskModel"),
}
"""Backend name to module and class; imported only when opened. To add one, add a line."""
SERVERS = {"ollama": ollama_address, "openai": openai_address}
"""Backends that take an address, each with the function that says which one is meant."""
FOLDERS = ("hf", "vllm")
"""Backends whose model is a folder, a hub id, or `embedded`."""
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


def names_server(text: str) -> bool:
    """Whether `text` names a model on a server, such as `openai:MODEL`; what it names need not be right."""
    return text.partition(":")[0] in SERVERS and ":" in text


def destination(spec: TaskModelSpec, *, sent: str = "rows and prompts") -> str:
    """Where goes what this model is asked, in words; `sent` says what that is, in the plural."""
    if spec.backend not in SERVERS:
        return f"{sent} stay in this process"
    cloud = spec.backend == "ollama" and spec.model.endswith(("-cloud", ":cloud"))
    address = way_to(SERVERS[spec.backend](spec.model, spec.address))
    return f"{sent} go to {address}" + (", which passes them on to ollama.com" if cloud else "")


def open_task_model(spec: str | TaskModelSpec, *, options: Mapping[str, Any] | None = None) -> TaskModel:
    """The backend itself, without cache or budget. `options` are the keyword arguments of its class.

    Raises `ConfigError` for an option that is unknown or not of the type that the class states,
    `MissingDependencyError` with the pip line.
    """
    spec = parse_task_model(spec) if isinstance(spec, str) else spec
    if spec.backend in FOLDERS:
        resolve_model(spec.model)  # a model that is not there is told before torch is imported
    module, class_name = BACKENDS[spec.backend]
    backend = getattr(importlib.import_module(module), class_name)
    known = [name for name in inspect.signature(backend).parameters if name not in ("model", "address")]
    options = dict(options or {})
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"task model {spec}: unknown option {unknown[0]!r}; {spec.backend} has {', '.join(known)}")
    hints = get_type_hints(backend.__init__)
    options = {name: _read(value, hints.get(name), f"task model {spec}: {name}") for name, value in options.items()}
    if spec.address:
        options["address"] = spec.address
    task_model: TaskModel = backend(spec.model, **options)
    return task_model


def _read(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that a backend states for its option, which may be a union. Raises `ConfigError`."""
    kinds = [kind for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint]) if isinstance(kind, type)]
    if not kinds or any(type(value) is kind or (kind not in SCALARS and isinstance(value, kind)) for kind in kinds):
        return value
    if value == "none" and NoneType in kinds:
        return None
    for kind in (kind for kind in SCALARS if kind in kinds):  # numbers before text: 10 is no "10" where both will do
        with suppress(ValueError):
            return read_scalar(kind, value)
    wanted = [SCALARS.get(kind, "none" if kind is NoneType else f"a {kind.__name__}") for kind in kinds]
    raise ConfigError(f"{where} is {value!r}; it must be {' or '.join(wanted)}")


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
