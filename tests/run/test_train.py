"""What ends a run ends it before anything is paid, and leaves nothing behind."""

import json
import subprocess
import sys

import pytest

from prewrite.cli.main import main
from prewrite.task_models.hf import HFTaskModel
from toy_cli import ROWS, train_flags


@pytest.mark.parametrize("mode", ["perplexity", "perplexity+f1"])
def test_a_reward_that_the_task_model_cannot_give_ends_the_run_before_it_begins(
    toy, tmp_path, capsys, monkeypatch, mode
):
    monkeypatch.setattr(HFTaskModel, "capabilities", frozenset({"generate", "label_logprobs"}))
    assert main(train_flags(toy, tmp_path / "run", "--reward_mode", mode)) == 2
    assert f"reward_mode '{mode}' scores gold answers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_kind_of_row_is_asked_about_not_only_the_first(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HFTaskModel, "capabilities", frozenset({"generate", "label_logprobs"}))
    written = [row | {"instruction": "answer now", "task": "qa", "input": f"more {row['input']}"} for row in ROWS]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, *written]))
    assert main(train_flags(toy, tmp_path / "run", "--reward_mode", "soft", data=data)) == 2
    assert "reward_mode 'soft' scores gold answers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--data", "demo", "--output-dir", "FILE"], "is a file; give a folder"),
        (["--data", "demo", "--output-dir", "nowhere", "--resume"], "'nowhere' is not a run folder"),
        (["--data", "demo", "--base-model", "./nowhere"], "base_model: model './nowhere': no such folder"),
        (["--data", "demo", "--task-model", "hf:./nowhere"], "task_model: model './nowhere': no such folder"),
        (["--data", "demo", "--task-model", "vllm:./nowhere"], "task_model: model './nowhere': no such folder"),
        (["--data", "demo", "--fidelity-model", "./nowhere"], "fidelity_model: model './nowhere': no such folder"),
        (["--data", "demo", "--meta-family", "nowhere.txt"], "nowhere.txt"),
        (["--data", "demo", "--phrasings", "nowhere.yaml"], "phrasings 'nowhere.yaml' cannot be read"),
        (["--data", "demo", "--warm-start", "EMPTY"], "warm_start 'EMPTY' is no adapter folder"),
    ],
)
def test_what_is_missing_is_told_before_torch_is_imported(tmp_path, flags, told):
    (tmp_path / "FILE").touch()
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY" / "config.json").write_text("{}")
    code = f"import sys\nfrom prewrite.cli.main import main\ncode = main({['train', *flags]!r})\n"
    code += "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\nsys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["EMPTY", "FILE"]


def test_a_trl_setting_that_a_setting_of_ours_decides_is_refused(toy, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("trl_overrides: {learning_rate: 1}\n")
    assert main(train_flags(toy, tmp_path / "run", "--config", str(config))) == 2
    assert "trl_overrides holds learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_loaded(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prewrite.run.tracking.find_spec", lambda package: None)
    assert main(train_flags(toy, tmp_path / "run", "--report_to", "tensorboard")) == 2
    assert "it is not installed; `pip install 'prewrite[tracking]'`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
