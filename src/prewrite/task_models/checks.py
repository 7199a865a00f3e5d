"""Tries what a task model says it can do, one tiny call per capability, and whether the batch changes an answer."""

from __future__ import annotations

import math
import time
from typing import NamedTuple, get_args

from prewrite.errors import PrewriteError
from prewrite.task_models.base import Capability, TaskModel
from prewrite.types import Conversation, Prompt, Turn

PROMPT = "Is the sentiment of this review positive or negative?\n\nInput: A wonderful film.\nOutput:"
LABELS = ("positive", "negative")
REVIEWS = (
    "A dull one.",
    "It was long, and by the end of it nobody in the room cared who had taken the ring, or why.",
    "Fine.",
    "The actors do what they can with a script that gives them little to do.",
)
NEIGHBOURS = tuple(PROMPT.replace("A wonderful film.", review) for review in REVIEWS)
TURNS = Conversation((Turn("user", NEIGHBOURS[0]), Turn("assistant", LABELS[1]), Turn("user", PROMPT)))
SAME = 0.001
"""Nats; what rounding in fp32 does."""
REASONS = {
    "generate": "it only scores",
    "constrained": "it scores labels exactly, which a grammar only approximates: decoding likelihood",
    "label_logprobs": "it returns no log-probabilities",
    "target_logprobs": "it returns no log-probabilities of given texts",
    "turns": "it takes plain text",
}
"""Why a backend that does not say so itself lacks a capability."""


class Check(NamedTuple):
    """One capability, tried."""

    capability: str
    ok: bool
    detail: str
    """What came back and how long it took, or the error; for what the backend does not offer, why."""
    offered: bool = True


def check_task_model(task_model: TaskModel) -> list[Check]:
    """Every capability in turn; an error of one does not stop the others."""
    try:
        offered = task_model.capabilities
    except PrewriteError as error:
        return [Check("reachable", False, str(error))]
    checks = [Check("reachable", True, task_model.identity)]
    for capability in get_args(Capability):
        if capability not in offered:
            explain = getattr(task_model, "why_not", REASONS.__getitem__)
            reason = explain(capability) or REASONS[capability]
            checks.append(Check(capability, False, f"not offered: {reason}", offered=False))
            continue
        start = time.perf_counter()
        try:
            ok, detail = _try(task_model, capability)
        except PrewriteError as error:
            ok, detail = False, str(error)
        checks.append(Check(capability, ok, f"{detail} ({time.perf_counter() - start:.2f} s)"))
    if all(check.ok or not check.offered for check in checks):
        checks.append(_beside_others(task_model))
    return checks


def _beside_others(task_model: TaskModel) -> Check:
    """Whether the answer to a prompt depends on what else is in the batch: reported, since in some engines it does.

    That is no fault of theirs, so the check passes.
    """
    name, prompts = "alone and in a batch", (*NEIGHBOURS[:2], PROMPT, *NEIGHBOURS[2:])
    try:
        if "label_logprobs" in task_model.capabilities:
            alone, beside = (task_model.label_logprobs(batch, LABELS) for batch in ([PROMPT], prompts))
            moved = float(abs(beside[2] - alone[0]).max())
            rule = "labels that close can change places from run to run" if moved > SAME else "the same"
            return Check(name, True, f"log-probabilities {moved:.3f} nats apart: {rule}")
        text, beside_text = task_model.generate([PROMPT])[0], task_model.generate(prompts)[2]
    except PrewriteError as error:
        return Check(name, False, str(error))
    if text == beside_text:
        return Check(name, True, "the same text")
    return Check(name, True, f"{text[:40]!r} and {beside_text[:40]!r}: texts can change from run to run")


def _try(task_model: TaskModel, capability: Capability) -> tuple[bool, str]:
    if capability in ("generate", "turns"):
        prompt: Prompt = PROMPT if capability == "generate" else TURNS
        text = task_model.generate([prompt])[0]
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
