"""Values of TRL's own settings, looked at before TRL gets them.

TRL's configs take any value, and many a wrong one shows only while it trains, as a traceback. Here a value must be of
the type that TRL declares, and within bounds that follow from what the setting is; TRL's own checks come after.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from transformers import GenerationConfig, Trainer, get_scheduler

from prewrite.errors import ConfigError, PrewriteError
from prewrite.text import shown_value

_POSITIVE = ("num_ppo_epochs", "num_mini_batches", "num_iterations", "total_episodes", "response_length",
             "max_completion_length", "local_rollout_forward_batch_size", "per_device_train_batch_size",
             "per_device_eval_batch_size", "gradient_accumulation_steps", "max_prompt_length",
             "torch_empty_cache_steps", "dataset_num_proc", "ref_model_sync_steps", "dataloader_prefetch_factor",
             "save_total_limit")  # fmt: skip
_ABOVE_ZERO = ("adam_epsilon", "learning_rate", "temperature", "repetition_penalty", "cliprange", "cliprange_value",
               "epsilon", "epsilon_high", "delta", "logging_steps")  # fmt: skip
_SHARE = ("warmup_ratio", "gamma", "lam", "label_smoothing_factor", "top_entropy_quantile", "top_p", "min_p",
          "ref_model_mixup_alpha", "vllm_gpu_memory_utilization")  # fmt: skip
_BELOW_ONE = ("adam_beta1", "adam_beta2")
_ANY_SIGN = ("local_rank", "past_index", "logging_steps", "stop_token_id", "missing_eos_penalty", "max_steps",
             "data_seed")  # fmt: skip
"""Numbers that TRL lets be negative; of all others in its configs none means anything below 0."""
_QUOTED = ("loss_type", "importance_sampling_level", "scale_rewards")
"""Settings whose possible texts stand in TRL's own help, in quotes."""
_ELSEWHERE = ("push_to_hub", "hub_", "trackio_")
_SAID = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text",
         dict: "`key: value` lines", list: "a list", type(None): "null"}  # fmt: skip


def check_values(kind: type, given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a value that cannot be one of that field of `kind`, a config of TRL."""
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    for name, value in given.items():
        if name.startswith(_ELSEWHERE):
            raise ConfigError(f"trl_overrides: {name} is not taken: a run uploads nothing by itself; leave it out")
        default = known[name].default
        if type(value) is type(default) and value == default:  # TRL has some that are not of their declared type
            continue
        rule = _type_rule(hints[name], value)
        if rule is None and isinstance(value, int | float) and not isinstance(value, bool):
            rule = _bound_rule(name, value)
        if rule is None and name in _QUOTED and isinstance(value, str):
            words = sorted(set(re.findall(r"[`']'?(\w+)'", known[name].metadata.get("help", ""))))
            rule = f"one of {', '.join(words)}" if words and value not in words else None
        if name == "scale_rewards" and isinstance(value, bool):  # TRL takes it beside what it declares
            rule = None
        if name == "reward_clip_range" and value is not None and not _is_range(value):
            rule = "two numbers, the lower one first"
        if rule is not None:
            raise ConfigError(
                f"trl_overrides: {name} is {shown_value(value)}; it must be {rule}; correct it or leave it out"
            )


def _type_rule(hint: Any, value: Any) -> str | None:
    """What a value of this type must be, where `value` is none."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [get_origin(part) or part for part in parts]
    words = [str(word) for part, kind in zip(parts, kinds, strict=True) if kind is Literal for word in get_args(part)]
    words += [str(word.value) for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for word in kind]
    if words:
        fits = value in words or (value is None and type(None) in kinds)
        return None if fits else f"one of {', '.join(words)}"
    if dict in kinds:  # as text TRL takes JSON, or a file
        kinds = [kind for kind in kinds if kind is not str]
    if any(kind not in _SAID or _is(kind, value) for kind in kinds):  # TRL's own objects are for TRL to check
        return None
    return " or ".join(_SAID[kind] for kind in kinds)


def _is(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(_is(float, end) for end in value) and value[0] < value[1]
    )


def _bound_rule(name: str, value: float) -> str | None:
    """Between what `value` must be, where it is not."""
    if name in _POSITIVE and value < 1:
        return "at least 1"
    if name in _ABOVE_ZERO and value <= 0:
        return "above 0"
    if name in _SHARE and not 0 <= value <= 1:
        return "from 0 to 1"
    if name in _BELOW_ONE and not 0 <= value < 1:
        return "at least 0 and below 1"
    return "at least 0" if value < 0 and name not in _ANY_SIGN else None


def try_out(args: Any, steps: int) -> None:
    """Make optimiser and learning-rate schedule for one weight and take a step, and set up sampling.

    Raises `ConfigError` that names the settings that do not do.
    """
    sampling = {name: getattr(args, name, None) for name in ("top_k", "top_p", "min_p", "cache_implementation")}
    with _trying(", ".join(sampling)):
        GenerationConfig(**{name: value for name, value in sampling.items() if value is not None})
    weight = torch.nn.Parameter(torch.zeros(1))
    with _trying("optim, optim_args, adam_beta1, adam_beta2"):
        make, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = make([weight], **settings)
    with _trying("lr_scheduler_type, lr_scheduler_kwargs"):
        schedule = get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}),
        )
        weight.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()


@contextmanager
def taken_by_trl() -> Iterator[None]:
    """What TRL raises about a setting in here is a `ConfigError` that says where it stands.

    For TRL's own code alone. A `TypeError` or a failed assertion goes on as it is: types were checked before, so it is
    a fault of the program.
    """
    try:
        yield
    except PrewriteError:
        raise
    except (ValueError, ImportError, NotImplementedError) as error:
        raise ConfigError(
            f"TRL does not take a setting: {' '.join(str(error).split())}; correct trl_overrides"
        ) from error


@contextmanager
def _trying(names: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, KeyError, ImportError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"trl_overrides: {names}: {told}; correct them or leave them out") from None
