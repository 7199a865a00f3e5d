"""A run in an experiment tracker: its curves while it trains, then a table of its rewrites and the final result.

All of it is read from the run folder, so that every algorithm is tracked alike, a resumed run is whole, and what comes
after training is there too; TRL's own `report_to` ends with training and knows the curves alone.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.report.markdown import table as markdown_table
from prewrite.report.page import tasks_of
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import TaskPrompt

logger = logging.getLogger(__name__)

PROJECT = "prewrite"
Row = tuple[Any, ...]
REWRITES = ("update", "kind", "score", "instruction", "rewrite")
"""`kind`: the best of an update, by its reward, or the likeliest one, by its dev score."""
NOT_TOLD = "the tracker does not take what it is told"
RESULT = ("instruction", "initial", "chosen", "gain", "low", "high", "verdict", "prompt")
"""Scores are shares; `low` and `high` are the ends of the gain's 95% interval."""


class Sink(Protocol):
    """One run in a tracker."""

    refusals: tuple[type[Exception], ...]
    """What it raises where the tracker does not take what it is told."""

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of an update."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """A table of text and numbers."""

    def result(self, values: Mapping[str, float]) -> None:
        """The numbers that a run is compared by."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self.refusals: tuple[type[Exception], ...] = (OSError,)
        # A resumed run writes all of its updates again: what an earlier part wrote of them is dropped.
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=0)
        self.table("settings", ("name", "value"), list(settings.items()))

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """As scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As text, which it reads as Markdown."""
        cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
        self.writer.add_text(name, markdown_table(list(columns), cells), 0)

    def result(self, values: Mapping[str, float]) -> None:
        """As scalars of a single step."""
        self.curves(0, {f"result/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class WandB:
    """Weights & Biases; offline where `WANDB_MODE` says so."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        import wandb

        self.wandb = wandb
        self.refusals: tuple[type[Exception], ...] = (wandb.errors.Error,)
        try:
            self.run = wandb.init(project=PROJECT, name=_name(run), dir=run.path, config=dict(settings))
        except wandb.errors.Error as error:
            raise ConfigError(
                f"report_to wandb: {' '.join(str(error).split())}; log in by `wandb login`, or set WANDB_MODE=offline"
            ) from None

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """By update."""
        self.run.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As a table."""
        self.run.log({name: self.wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def result(self, values: Mapping[str, float]) -> None:
        """In the summary, by which runs are sorted."""
        self.run.summary.update({f"result/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class MLflow:
    """MLflow at `MLFLOW_TRACKING_URI`; a folder `mlruns` here where that is not set."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        # It asks its users to leave plain files for a database, which mlflow-skinny cannot write.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.refusals: tuple[type[Exception], ...] = (MlflowException,)
        try:
            self.client = MlflowClient(_mlflow_address())
            known = self.client.get_experiment_by_name(PROJECT)
            experiment = known.experiment_id if known is not None else self.client.create_experiment(PROJECT)
            self.id = self.client.create_run(experiment, run_name=_name(run)).info.run_id
            self.client.log_dict(self.id, dict(settings), "settings.json")
        except MlflowException as error:
            raise ConfigError(
                f"report_to mlflow: {' '.join(str(error).split())[:300]}; correct MLFLOW_TRACKING_URI, or leave it out"
            ) from None

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """As metrics."""
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As an artifact that its page shows as a table."""
        data = {"columns": list(columns), "data": [list(row) for row in rows]}
        self.client.log_dict(self.id, data, f"{name}.json")

    def result(self, values: Mapping[str, float]) -> None:
        """As metrics of a single step."""
        self.curves(0, {f"result/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.id)


class Trackio:
    """Trackio, which keeps everything on this machine. What it prints is no result, so it goes to standard error."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        import trackio

        self.trackio = trackio
        self.refusals: tuple[type[Exception], ...] = (OSError,)
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with redirect_stdout(sys.stderr):
            trackio.init(project=PROJECT, name=_name(run), config=plain, **quiet)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """By update."""
        self.trackio.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As a table."""
        self.trackio.log({name: self.trackio.Table(columns=list(columns), data=[list(row) for row in rows])})

    def result(self, values: Mapping[str, float]) -> None:
        """As metrics of a single step."""
        self.trackio.log({f"result/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Finish the run."""
        with redirect_stdout(sys.stderr):
            self.trackio.finish()


class Tracker(NamedTuple):
    """One that `report_to` may name."""

    package: str
    extra: str
    sink: Callable[[RunFolder, Mapping[str, Any]], Sink]
    place: Callable[[RunFolder], str]
    """Where it keeps what it is told."""


def _mlflow_address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").resolve().as_uri()


TRACKERS = {
    "tensorboard": Tracker("tensorboard", "tracking", TensorBoard, lambda run: f"{run.path}/tensorboard"),
    "wandb": Tracker(
        "wandb", "wandb", WandB,
        lambda run: f"{run.path}/wandb" if os.environ.get("WANDB_MODE") in ("offline", "disabled") else "its server; "
        "WANDB_MODE=offline keeps them here",
    ),
    "mlflow": Tracker("mlflow", "mlflow", MLflow, lambda run: _mlflow_address()),
    "trackio": Tracker("trackio", "trackio", Trackio, lambda run: "this machine"),
}  # fmt: skip


def check_tracker(name: str) -> None:
    """Raise `MissingDependencyError` where the package that `report_to` needs is not installed."""
    tracker = TRACKERS.get(name)
    if tracker is not None and find_spec(tracker.package) is None:
        raise MissingDependencyError(
            f"report_to {name}: it is not installed; `pip install 'prewrite[{tracker.extra}]'`"
        )


@contextmanager
def tracking(name: str, run: RunFolder) -> Iterator[Callable[[], None]]:
    """What sends the updates that are new in the run folder; at the end of the block the tables and the result go too.

    The tracker has the whole run even where a part of it ran before. One that fails on the way costs a warning and not
    the run: the next update tries again. Raises `ConfigError` for one that fails at the start.
    """
    if name == "none":
        yield lambda: None
        return
    tracker = TRACKERS[name]
    logger.info("Settings, curves, rewrites and the result go to %s: %s.", name, tracker.place(run))
    sink, sent = tracker.sink(run, RunFolder.read_json(run.config).get("config", {})), 0

    def send() -> None:
        nonlocal sent
        for row in list(RunFolder.read_rows(run.metrics))[sent:]:
            numbers = {name: float(value) for name, value in row.items() if name != "step" and value is not None}
            sink.curves(row["step"], {name: value for name, value in numbers.items() if math.isfinite(value)})
            sent += 1

    def send_end() -> None:
        send()
        if rewrites := rewrites_of(run):
            sink.table("rewrites", REWRITES, rewrites)
        if run.result.exists():
            rows = results_of(RunFolder.read_json(run.result))
            sink.table("result", RESULT, rows)
            sink.result(dict(zip(RESULT[1:6], rows[0][1:6], strict=True)))
        sink.close()

    def told(what: Callable[[], None]) -> None:
        try:
            what()
        except sink.refusals as error:
            reason = " ".join(str(error).split())[:300]
            logger.warning(
                "report_to %s: %s (%s); the run goes on, and its folder has everything", name, NOT_TOLD, reason
            )

    try:
        yield lambda: told(send)
    finally:
        told(send_end)


def rewrites_of(run: RunFolder) -> list[Row]:
    """The best rewrite of every update and the likeliest ones that dev rows have scored; columns are `REWRITES`."""
    best: dict[int, dict[str, Any]] = {}
    for row in RunFolder.read_rows(run.rollouts):
        if row["step"] not in best or row["reward"] > best[row["step"]]["reward"]:
            best[row["step"]] = row
    rows = [(row["step"], "best", row["reward"], row["instruction"], row["rewrite"]) for row in best.values()]
    rows += [
        (row["step"], "likeliest", row["score"], row.get("instruction", ""), row["rewrite"])
        for row in RunFolder.read_rows(run.rewrites)
        if row["event"] == "dev_eval"
    ]
    return sorted(rows, key=lambda row: row[:2])


def results_of(result: Mapping[str, Any]) -> list[Row]:
    """Before and after of every instruction of the run; columns are `RESULT`."""
    tasks = result.get("tasks") or [result]
    rows = []
    for task, found in zip(tasks, tasks_of({"tasks": tasks}), strict=True):
        prompt, gain = task.get("prompt"), found["gain"]
        text = TaskPrompt.from_json(prompt).render("{input}") if prompt else found["text"]
        rows.append((found["instruction"], found["initial"], found["rewrite"], gain["mean"], gain["low"], gain["high"],
                     task["verdict"], text))  # fmt: skip
    return rows


def _name(run: RunFolder) -> str:
    return run.path.resolve().name
