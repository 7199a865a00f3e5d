"""What the files of a run hold, as far as a report reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prewrite.run_folder import check_shape
from prewrite.text import Each, Maybe

_INTERVAL = {"low": float, "high": float}
_DIFFERENCE = {"mean": float, **_INTERVAL, "p_value": float, "gained": int, "lost": int, "significant": bool}
_RELIABILITY = {"bins": [{"confidence": float, "accuracy": float, "count": int}], "ece": float, "brier": float}
_TEST = {
    "rows": str,
    "n": int,
    "level": float,
    "baseline": str,
    "primary": Maybe(str),
    "instructions": Each(
        {
            "instruction": str,
            "mean": float,
            "interval": _INTERVAL,
            "labels": [{"label": str, "n": int, "accuracy": Maybe(float)}],
            "reliability": Maybe(_RELIABILITY),
            "calibrated": Maybe(float),
        }
    ),
    "differences": Each(_DIFFERENCE),
    "gains_over": Each(_DIFFERENCE),
    "calibrated": Each(_DIFFERENCE),
}
_CORRECTED = {"score": float, **_INTERVAL, "gain": float, "gain_low": float, "gain_high": float}
_DEV = {"n": Maybe(int), "scores": Maybe(Each(Maybe(float)), null=False), "corrected": Maybe(_CORRECTED)}
_USAGE = {"calls": int, "input_tokens": int, "output_tokens": int}
RESULT = {
    "instruction": Maybe(str),
    "rewrite": Maybe(str),
    "verdict": Maybe(str),
    "prompt": Maybe(dict),
    "prompt_tokens": Maybe({"initial": int, "prompt": int, "estimated": bool, "most": Maybe(int)}),
    "fidelity": Maybe(Each(Maybe(float))),
    "guards": Maybe(Each(Each(float))),
    "test": Maybe(_TEST),
    "dev": Maybe(_DEV),
    "tasks": Maybe(
        [{"instruction": str, "rewrite": str, "verdict": Maybe(str), "test": Maybe(_TEST), "dev": Maybe(_DEV)}],
        null=False,
    ),
    "search": Maybe(
        {"calls": int, "rows": int, "candidates": int, "wordings": int, "waterfall": Maybe([{"at": str, "adds": str}])}
    ),
    "selection": Maybe(dict),
    "left_out": Maybe([{"input": str, "at": str, "reason": str}]),
    "cost": Maybe(
        {
            "seconds": Maybe(Each(float), null=False),
            "task_model": Maybe(Each(float), null=False),
            "rewriter": Maybe(_USAGE),
        },
        null=False,
    ),
}
"""Of `result.json`."""
CONFIG = {
    "config": dict,
    "argv": Maybe([str]),
    "versions": Maybe(dict, null=False),
    "task_model": Maybe({"notes": Maybe([str])}),
    "resumed": Maybe([{"changed": Maybe(Each(list), null=False)}], null=False),
}
"""Of `config.json`."""
METRICS = {"step": int}
"""Of a line of `metrics.jsonl`, whose other fields are all numbers."""
ROLLOUT = {"step": int, "rewrite": str, "reward": float, "guards": Maybe(Each(float)), "parts": Maybe(Each(float))}
"""Of a line of `rollouts.jsonl`."""
ESTIMATED = {"estimate": float, "real": bool, "parts": {"task": float}}
"""Of a rollout that a reward model graded, beside `ROLLOUT`."""
EVENTS: Mapping[str, Any] = {
    "candidate": {"index": int, "rewrite": str, "source": str, "count": Maybe(int, null=False)},
    "race_round": {"items": int, "scores": Each(float)},
    "eliminated": {"index": int, "items": int, "score": float, "rival": int, "rival_score": float},
    "selected": {"index": int, "items": int, "calls": int, "full_calls": int, "stopped": str},
    "dev_eval": {"step": Maybe(int), "rewrite": Maybe(str), "score": Maybe(float)},
}
"""Of the lines of `rewrites.jsonl`, by their `event`; of others nothing is read."""
_ANSWER = {"prompt": str, "output": str, "prediction": str, "score": float}
ITEM = {"input": str, "gold": [str], "answers": Each(_ANSWER)}
"""Of a line of `items.jsonl`."""
CANDIDATE = {
    "instruction": str,
    "prompt": dict,
    "rows": int,
    "source": str,
    "chosen": bool,
    "worth": float,
    "score": float,
}
"""Of a line of `candidates.jsonl`."""
EVAL = {
    "task_model": str,
    "data": str,
    "split": str,
    "n": int,
    "decoding": str,
    "metric": str,
    **dict.fromkeys(("initial", "prompt", "gain", "low", "high"), float),
    "significant": bool,
    "offsets": bool,
}
"""Of a line of `evals.jsonl`."""


_SPLIT = {"source": Maybe(str), "count": int, "sha256": Maybe(str)}
SPLITS = {"train": _SPLIT, "dev": _SPLIT, "test": _SPLIT}
"""Of `splits.json`, or of each of its `parts` where the run had several data sets."""


def split_parts(told: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """What `splits.json` tells of each data set of a run. Raises `RunFolderError` where its shape is another."""
    check_shape(told, {"parts": [SPLITS]} if "parts" in told else SPLITS, where)
    parts: list[dict[str, Any]] = told.get("parts", [told])
    return parts


def check_names(result: Mapping[str, Any]) -> None:
    """Raise `ValueError` where one part of `result.json` names another that is not there."""
    if result.get("search") and not (result.get("instruction") and result.get("prompt")):
        raise ValueError("has a search and no instruction or prompt")
    for task in result.get("tasks", ()):
        if not task.get("test") and not (task.get("dev") or {}).get("corrected"):
            raise ValueError("field 'tasks' has a task with neither test nor dev.corrected")
    for test in (result.get("test"), *(task.get("test") for task in result.get("tasks", ()))):
        if test is not None:
            _check_names_of(test)
    for step in (result.get("search") or {}).get("waterfall") or ():
        if result.get("test") and step["at"] not in result["test"]["instructions"]:
            raise ValueError(f"field 'search.waterfall' has {step['at']!r}, which is none of test.instructions")


def _check_names_of(test: Mapping[str, Any]) -> None:
    """As `check_names`, of one test."""
    for field in ("baseline", "primary"):
        name = test.get(field)
        if name not in test["instructions"] and (name is not None or field == "baseline"):
            raise ValueError(f"field 'test.{field}' is {name!r}, which is none of test.instructions")
    for found in ("differences", "gains_over", "calibrated"):
        if unknown := sorted(test[found].keys() - test["instructions"].keys()):
            raise ValueError(f"field 'test.{found}' has {unknown[0]!r}, which is none of test.instructions")
