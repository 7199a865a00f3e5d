"""Every case of the tables beside this file ends in exit code 2 and one message, and leaves all files as they were."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from prewrite.cli.main import main
from prewrite.scoring.prompt import TaskPrompt
from toy_cli import ROWS, train_flags

HERE = Path(__file__).parent
TABLES = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(HERE.glob("*.yaml"))}
CASES = [pytest.param(case, id=f"{name}: {case['why']}") for name, table in TABLES.items() for case in table]
NOWHERE = "hf:./nowhere"


def words_of(command, toy):
    """The command's words; those in capitals stand for several, see README.md."""
    short = {
        "EVAL": ["eval", *([] if "--task-model" in command else ["--task-model", NOWHERE])],
        "SEARCH": ["search", "--data", "rows.jsonl", "--task-model", NOWHERE, "--rewriter", "none",
                   "--fidelity-model", "none", "--output-dir", "out"],
        "TRAIN": train_flags(Path("."), "out"),
        "RESUME": train_flags(toy, "run", "--resume"),
    }  # fmt: skip
    return [word for part in shlex.split(command) for word in short.get(part, [part])]


def give(name, folder, request):
    """Put a thing that is as it should be into the folder of the case."""
    if name == "rows":
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif name == "prompt":
        TaskPrompt("solve the task", label_offsets=(("step", 0.1), ("now", -0.1))).save(folder / "prompt.json")
    elif name == "model":
        shutil.copytree(request.getfixturevalue("toy") / "model", folder / "model")
    else:
        shutil.copytree(request.getfixturevalue("run"), folder / "run")


def write(file, content):
    """Make a file of the case what the table says: text, bytes, a link, nothing, or a JSON file with other values."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        file.unlink()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content, encoding="utf-8", newline="")
    elif "link" in content:
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.symlink_to(content["link"])
    elif "add" in content:
        file.write_text(file.read_text(encoding="utf-8") + content["add"], encoding="utf-8")
    else:
        value = json.loads(file.read_text(encoding="utf-8"))
        for place, item in content["set"].items():
            *path, last = place.split(".")
            part = value
            for step in path:
                part = part[int(step) if isinstance(part, list) else step]
            if item == "GONE":
                del part[last]
            else:
                part[last] = item
        file.write_text(json.dumps(value), encoding="utf-8")


def state(folder):
    """Every path below a folder, and what the files hold.

    Left out are what Python keeps of a metric that it has read, and the empty file by which a run locks its folder.
    """
    paths = [path for path in folder.rglob("*") if not {"__pycache__", ".lock"} & {*path.parts}]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_one_message(case, request, tmp_path, tmp_path_factory, monkeypatch, capsys, caplog):
    monkeypatch.setenv("PREWRITE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("prewrite.task_models.retry.RetryPolicy.delay", lambda *_: 0.0)
    monkeypatch.chdir(tmp_path)
    for name in case.get("given", []):
        give(name, tmp_path, request)
    for name, content in case.get("files", {}).items():
        (tmp_path / name).mkdir() if name.endswith("/") else write(tmp_path / name, content)
    for name, value in case.get("env", {}).items():
        monkeypatch.setenv(name, value)
    command = case["run"]
    toy = request.getfixturevalue("toy") if "RESUME" in command else Path(".")
    before = state(tmp_path)

    assert main(words_of(command, toy)) == 2

    shown = capsys.readouterr()
    message = shown.err.splitlines()[-1]
    assert message.startswith("error: ") and shown.err.count("error: ") == 1 + message.count("error: ", 1), shown.err
    for words in case["told"]:
        assert words in message
    assert "Traceback" not in shown.err + shown.out + caplog.text
    assert len(message) < 1000 and message.isprintable()
    assert state(tmp_path) == before


def test_there_are_many_cases_and_no_two_alike():
    cases = [case for table in TABLES.values() for case in table]
    assert len(cases) >= 150
    assert len({json.dumps(case, default=str, sort_keys=True) for case in cases}) == len(cases)
    assert all(case["why"] and case["told"] for case in cases)
