"""Trackers get what the run folder holds: curves, a table of rewrites, the final result."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from prewrite.cli.main import main
from prewrite.errors import ConfigError
from prewrite.run.config import TRACKER_NAMES
from prewrite.run.tracking import RESULT, REWRITES, TRACKERS, Tracker, results_of, rewrites_of, tracking
from prewrite.run_folder import RunFolder
from run_fixture import INITIAL, make_run
from toy_cli import train_flags

UPDATES = 12


def need(name):
    package = TRACKERS[name].package
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed (extra {name})")


@pytest.fixture
def run(tmp_path):
    return RunFolder(make_run(tmp_path / "first", updates=UPDATES, test_rows=40))


def track(name, run):
    """A run that is tracked while its updates arrive: first seven of them, then the others."""
    lines = run.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:7]), encoding="utf-8")
    with tracking(name, run) as send:
        send()
        run.metrics.write_text("".join(lines), encoding="utf-8")
        send()
    result = json.loads(run.result.read_text(encoding="utf-8"))["test"]
    return result["instructions"]["rewrite"]["mean"], result["differences"]["rewrite"]["low"]


def test_every_tracker_of_the_settings_is_there_and_the_other_way_round():
    assert set(TRACKER_NAMES) == set(TRACKERS)


def test_the_rewrites_are_the_best_of_each_update_and_the_likeliest_ones_on_dev(run):
    rows = [dict(zip(REWRITES, row, strict=True)) for row in rewrites_of(run)]
    best = [row for row in rows if row["kind"] == "best"]
    assert [row["update"] for row in best] == list(range(1, UPDATES + 1))
    rewards = [row["reward"] for row in RunFolder.read_rows(run.rollouts) if row["step"] == 3]
    assert best[2]["score"] == max(rewards) and best[2]["instruction"] == INITIAL
    assert [row["update"] for row in rows if row["kind"] == "likeliest"] == list(range(1, UPDATES + 1))


def test_the_result_is_before_and_after_with_the_interval(run):
    result = json.loads(run.result.read_text(encoding="utf-8"))
    (row,) = (dict(zip(RESULT, row, strict=True)) for row in results_of(result))
    gain = result["test"]["differences"]["rewrite"]
    assert (row["gain"], row["low"], row["high"]) == (gain["mean"], gain["low"], gain["high"])
    assert row["chosen"] - row["initial"] == pytest.approx(row["gain"]) and row["verdict"] == result["verdict"]


def test_a_tracker_that_goes_away_costs_a_warning_and_hears_the_rest_when_it_is_back(run, monkeypatch, caplog):
    away, heard = [True], []

    class Faulty:
        refusals = (ConnectionError,)

        def __init__(self, run, settings):
            pass

        def curves(self, step, values):
            if away[0]:
                raise ConnectionError("no route")
            heard.append(step)

        def table(self, name, columns, rows):
            heard.append(name)

        def result(self, values):
            raise ConnectionError("gone again")

        def close(self):
            heard.append("closed")

    real = TRACKERS["mlflow"]
    monkeypatch.setitem(TRACKERS, "mlflow", Tracker(real.package, real.extra, Faulty, real.place))
    with tracking("mlflow", run) as send:
        send()
        away[0] = False
        send()
    assert heard == [*range(1, UPDATES + 1), "rewrites", "result"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2 and "(no route); the run goes on, and its folder has everything" in told[0]


@need("tensorboard")
def test_tensorboard_has_curves_rewrites_and_result_once_though_the_run_was_resumed(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", run)
    chosen, low = track("tensorboard", run)
    found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("reward/mean")] == list(range(1, UPDATES + 1))
    assert found.Scalars("result/chosen")[-1].value == pytest.approx(chosen)
    assert found.Scalars("result/low")[-1].value == pytest.approx(low)
    (table,) = found.Tensors("rewrites/text_summary")[-1].tensor_proto.string_val
    assert INITIAL in table.decode() and "likeliest" in table.decode()


@need("wandb")
def test_wandb_has_curves_rewrites_and_result_offline(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    chosen, _ = track("wandb", run)
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    history, summary = read_wandb(file)
    steps = [row["_step"] for row in history if "reward/mean" in row]
    assert steps == list(range(1, UPDATES + 1)) and summary["result/chosen"] == pytest.approx(chosen)
    (table,) = run.path.glob("wandb/offline-run-*/files/media/table/rewrites_*.json")
    assert json.loads(table.read_text())["columns"] == list(REWRITES)


def read_wandb(file):
    """The rows logged and the summary in an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    history, summary = [], {}
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append(values_in(record.history.item))
        elif kind == "summary":
            summary |= values_in(record.summary.update)
    return history, summary


def values_in(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def log_records(data):
    """The records of a file in LevelDB's log format: blocks of 32 KB, in them parts with checksum, length and type."""
    place, record = 7, b""  # the file begins with seven bytes of its own
    while place + 7 <= len(data):
        if 32_768 - place % 32_768 < 7:  # no part begins so near to the end of a block
            place += 32_768 - place % 32_768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@need("mlflow")
def test_mlflow_has_curves_rewrites_and_result_in_a_local_store(run, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    chosen, low = track("mlflow", run)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("prewrite")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "first"
    assert [metric.step for metric in client.get_metric_history(found.info.run_id, "reward/mean")] == list(
        range(1, UPDATES + 1)
    )
    assert (found.data.metrics["result/chosen"], found.data.metrics["result/low"]) == pytest.approx((chosen, low))
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {
        "rewrites.json", "result.json", "settings.json",
    }  # fmt: skip


@need("mlflow")
def test_an_mlflow_server_that_is_not_there_is_one_error(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match="correct MLFLOW_TRACKING_URI"), tracking("mlflow", run):
        pass


@need("trackio")
def test_trackio_has_curves_rewrites_and_result_on_this_machine(tmp_path):
    code = f"""
import json
from pathlib import Path
from prewrite.run.tracking import tracking
from prewrite.run_folder import RunFolder
with tracking("trackio", RunFolder(Path({str(tmp_path / "first")!r}))) as send:
    send()
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("prewrite")
print(json.dumps(SQLiteStorage.get_logs("prewrite", name), default=str))
"""
    make_run(tmp_path / "first", updates=UPDATES, test_rows=40)
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = json.loads(done.stdout.splitlines()[-1])
    assert sum("reward/mean" in row for row in logs) == UPDATES
    assert any("result/chosen" in row for row in logs) and any("rewrites" in row for row in logs)


@need("tensorboard")
@pytest.mark.slow
def test_a_training_run_reports_to_the_tracker(toy, tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(train_flags(toy, tmp_path / "run", "--report-to", "tensorboard")) == 0
    assert f"go to tensorboard: {tmp_path / 'run'}/tensorboard" in capsys.readouterr().err
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("reward/mean")] == [1, 2]
    assert next(event.step for event in found.Scalars("dev/score")) == 0 and "result/gain" in found.Tags()["scalars"]


@need("tensorboard")
def test_a_search_reports_its_result(toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "search"
    flags = ["--data", str(toy / "rows.jsonl"), "--output-dir", str(run), "--rewriter", "none", "--no-cache",
             "--task-model", f"hf:{toy / 'model'}", "--fidelity-model", "none", "--search-calls", "60"]  # fmt: skip
    assert main(["search", *flags, "--report-to", "tensorboard"]) == 0
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    assert "result/chosen" in found.Tags()["scalars"] and "reward/mean" not in found.Tags()["scalars"]
