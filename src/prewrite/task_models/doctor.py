"""Tries what a task model says it can do: one tiny call per capability."""

from __future__ import annotations

import math
import time
from typing import NamedTuple, get_args

from prewrite.errors import PrewriteError
from prewrite.task_models.base import Capability, TaskModel

PROMPT = "Is the sentiment of this review positive or negative?\n\nInput: A wonderful film.\nOutput:"
LABELS = ("positive", "negative")
NOT_OFFERED = "not offered"


class Check(NamedTuple):
    """One capability, tried."""

    capability: str
    ok: bool
    detail: str
    """What came back and how long it took, or the error; for what the backend does not offer, that."""


def check_task_model(task_model: TaskModel) -> list[Check]:
    """Every capability in turn; an error of one does not stop the others."""
    try:
        offered = task_model.capabilities
    except PrewriteError as error:
        return [Check("reachable", False, str(error))]
    checks = [Check("reachable", True, task_model.identity)]
    for capability in get_args(Capability):
        if capability not in offered:
            checks.append(Check(capability, False, NOT_OFFERED))
            continue
        start = time.perf_counter()
        try:
            ok, detail = _try(task_model, capability)
        except PrewriteError as error:
            ok, detail = False, str(error)
        checks.append(Check(capability, ok, f"{detail} ({time.perf_counter() - start:.2f} s)"))
    return checks


def _try(task_model: TaskModel, capability: Capability) -> tuple[bool, str]:
    if capability == "generate":
        text = task_model.generate([PROMPT])[0]
        return bool(text.strip()), repr(text[:60]) if text.strip() else "wrote nothing"
    if capability == "constrained":
        label = task_model.constrained([PROMPT], LABELS)[0]
        return label in LABELS, repr(label)
    if capability == "label_logprobs":
        scores = task_model.label_logprobs([PROMPT], LABELS)[0].tolist()
        shown = ", ".join(f"{label} {score:.2f}" for label, score in zip(LABELS, scores, strict=True))
        return all(math.isfinite(score) and score <= 0 for score in scores), shown
    mean = task_model.target_logprobs([PROMPT], ["positive"])[0]
    return math.isfinite(mean) and mean <= 0, f"positive {mean:.2f} per token"
