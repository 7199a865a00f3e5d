"""Whether a run can go on in its folder: it must be the same run, and its record must say what changed.

Other rows could put what the rewriter has learned from among the test rows; another learning rate or task model would
make one run out of two different halves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from prewrite.data.splits import SPLIT_NAMES
from prewrite.errors import RunFolderError
from prewrite.run.config import TrainConfig
from prewrite.run.option import options_of
from prewrite.run_folder import RunFolder, check_shape
from prewrite.text import Maybe
from prewrite.train.algorithms import ALGORITHMS

logger = logging.getLogger(__name__)

MAY_CHANGE = frozenset(option.name for option in options_of(TrainConfig) if option.may_change)
"""Settings that a resumed run may change: where things are, cost, memory, length, and how to choose at the end.
Of data and task model, what they lead to is compared: the rows, the model's name."""


BEGAN = {
    "prewrite_version": Maybe(str),
    "processes": Maybe(int),
    "argv": Maybe([str]),
    "config": Maybe(dict),
    "versions": Maybe(dict),
    "task_model": Maybe({"name": str, "identity": str}),
    "resumed": Maybe(list),
}
"""Shape of `config.json`; what is missing is told apart."""
_PART = {"source": Maybe(str), "count": int, "sha256": str}


def reopen(run: RunFolder, record: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Check that `record` and `rows`, what `config.json` and `splits.json` would hold now, are the run's own.

    `config.json` then holds the settings as they are now, and `resumed` lists what changed, and when. Raises
    `RunFolderError` that names what differs; nothing is changed then.
    """
    before, now = run.read_json(run.config, BEGAN), json.loads(json.dumps(record))
    if missing := [name for name in now if name not in before]:
        raise RunFolderError(f"{run.config} has no {missing[0]}: it was changed, or is of another version of prewrite")
    _check_rows(run, rows)
    changed = _changes(before["config"], now["config"])
    about = ({"prewrite": part["prewrite_version"], "processes": part["processes"]} for part in (before, now))
    changed |= _changes(*about) | _changes(before["versions"], now["versions"])
    other = {name: values for name, values in changed.items() if name in before["config"] and name not in MAY_CHANGE}
    if ALGORITHMS[now["config"]["algorithm"]].keeps_batch:
        other |= {name: changed[name] for name in ("micro_batch_size", "processes") if name in changed}
    model, model_now = before["task_model"], now["task_model"]
    if model["name"] != model_now["name"]:
        other["task_model"] = [model["name"], model_now["name"]]
    if other:
        told = ", ".join(f"{name} was {was!r} and is {value!r}" for name, (was, value) in other.items())
        raise RunFolderError(
            f"{run.path} began with other settings: {told}; resume with the same ones, or begin another run with "
            "another --output_dir"
        )
    if model["identity"] != model_now["identity"]:
        changed["task_model"] = [model["identity"], model_now["identity"]]
        logger.warning("the task model was %s when the run began and is %s now", *changed["task_model"])
    noted = {name: values for name, values in changed.items() if name not in ("resume", "overwrite")}
    resumed = {"started": now["started"], "argv": now["argv"], "changed": noted}
    began = {name: before[name] for name in ("argv", "started")}
    run.write_json(run.config, now | began | {"resumed": [*before.get("resumed", []), resumed]})


def _check_rows(run: RunFolder, rows: Mapping[str, Any]) -> None:
    before = run.read_json(run.splits)
    shape = dict.fromkeys(SPLIT_NAMES, _PART)
    check_shape(before, {"parts": [shape]} if "parts" in before else shape, str(run.splits))
    parts, parts_now = before.get("parts", [before]), rows.get("parts", [rows])
    if len(parts) != len(parts_now):
        raise RunFolderError(
            f"{run.path} began with {len(parts)} data set(s) and is given {len(parts_now)}; resume with the same ones"
        )
    for was, now in zip(parts, parts_now, strict=True):
        for split in SPLIT_NAMES:
            if _content(was[split]) != _content(now[split]):
                raise RunFolderError(
                    f"the {split} rows ({now[split]['source']}) are not those that {run.path} began with: what it has "
                    "learned from could be among the test rows now; resume with the same data and seed"
                )


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows are, wherever they were read from."""
    return {name: value for name, value in part.items() if name != "source"}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """[then, now] of every setting that differs; one that an earlier version did not know yet is left out."""
    return {name: [before[name], value] for name, value in now.items() if name in before and before[name] != value}
