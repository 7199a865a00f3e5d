"""The first two files of a run: `config.json`, enough to repeat it, and `splits.json`, which rows went where."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import prewrite
from prewrite.data import Splits
from prewrite.run.config import TaskConfig, TrainConfig
from prewrite.run.resume import reopen
from prewrite.run_folder import RunFolder
from prewrite.task_models.base import TaskModel
from prewrite.task_models.stream import backend_notes

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")


def open_run_folder(
    config: TrainConfig, argv: Sequence[str], splits: Sequence[Splits], task_model: TaskModel, *, processes: int
) -> RunFolder:
    """A new run folder that begins with these files, or the one that the run goes on in.

    Raises `RunFolderError` where a new one would replace a run, or the one there began as another run.
    """
    record = run_record(config, argv, task_model, processes=processes)
    rows = splits[0].to_json() if len(splits) == 1 else {"parts": [part.to_json() for part in splits]}
    if config.resume:
        run = RunFolder.open(config.output_dir)
        reopen(run, record, rows)
        return run
    run = RunFolder.create(config.output_dir, overwrite=config.overwrite)
    run.write_json(run.splits, rows)
    run.write_json(run.config, record)  # last: by it a folder is a run's
    return run


def run_record(
    config: TaskConfig, argv: Sequence[str], task_model: TaskModel, *, processes: int, command: str = "train"
) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "prewrite_version": prewrite.__version__,
        "command": command,
        "argv": list(argv),
        "config": asdict(config),
        "task_model": {"name": task_model.name, "identity": task_model.identity, "notes": backend_notes(task_model)},
        "versions": {"python": sys.version.split()[0], **{package: _version(package) for package in PACKAGES}},
        "processes": processes,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
