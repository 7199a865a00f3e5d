"""The documentation's Python runs, and so do the commands of the first run, on the toy in place of real models."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from prewrite.cli.main import main
from servers.http_server import HTTPServer
from servers.ollama_server import OllamaApp
from toy_cli import ROWS, whole_flags

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LONGEST = 12
"""Lines of the README's first snippet at most."""


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


PYTHON = [
    pytest.param(page.name, code, id=f"{page.name} {number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
]
OF_THE_READER = re.compile(r"\bmy_\w+|\bdspy\b")
"""Objects of the reader's own, and a package of others that the tests have not: such a snippet is read, not run."""


@pytest.fixture(scope="module")
def runs(toy, run, tmp_path_factory):
    """A folder as the pages leave one: `rows.jsonl`, `train.jsonl`, and the runs `runs/first` and `runs/search`."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("rows.jsonl", "train.jsonl"):
        shutil.copy(toy / "rows.jsonl", folder / name)
    shutil.copytree(run, folder / "runs" / "first")
    search = ["search", "--data", str(toy / "rows.jsonl"), "--output-dir", str(folder / "runs" / "search")]
    assert main([*search, *on_the_toy(toy), "--search-calls", "60"]) == 0
    return folder


def on_the_toy(toy, command="search"):
    """Flags that put the toy in the place of the models that a documented command names."""
    model = str(toy / "model")
    if command == "train":
        return whole_flags(toy, "unused", "--search-calls", "60")[5:]  # without the command, the data, the folder
    if command == "search":
        return ["--task-model", f"hf:{model}", "--rewriter", "none", "--fidelity_model", model, "--no-cache"]
    return ["--task-model", f"hf:{model}"] if command == "ask" else []


def on_toy_models(code, toy):
    """`code` with the toy for the models that it names, and a run that takes seconds."""
    model = str(toy / "model")
    stand_ins = {
        'dataset=["demo"], search_calls=300, num_candidates=2': (
            f"dataset=['rows.jsonl'], search_calls=60, task_model={'hf:' + model!r}, rewriter='none', "
            f"fidelity_model={model!r}"
        ),
        'open_task_model("embedded")': f"open_task_model({'hf:' + model!r})",
        'PRewritePPOTrainer("embedded", evaluator': (
            f"PRewritePPOTrainer({model!r}, evaluator, reward=TaskReward(evaluator, guards=()), max_steps=1, "
            "warm_start=None, response_length=6, per_device_train_batch_size=4"
        ),
        '"someone/first"': '"runs/first"',
    }
    for real, toys in stand_ins.items():
        code = code.replace(real, toys)
    return "from prewrite import TaskReward\n" + code if "TaskReward(" in code else code


@contextmanager
def asking_a_rewriter(code):
    """`code` with a server in the place of `prewrite serve runs/first`, where it asks that."""
    if SERVE not in code:
        yield code
        return
    pytest.importorskip("openai", reason="the openai client is not installed")
    from serve.served import searches, serving

    with serving(searches()) as address:
        yield code.replace(SERVE, address).replace('model="first"', 'model="toy"')


SERVE = "http://127.0.0.1:8766"


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_what_a_snippet_takes_from_the_package_is_there(page, code):
    taken = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    for node in taken:
        if node.module.split(".")[0] == "prewrite" and importlib.util.find_spec(node.module):
            source = importlib.util.find_spec(node.module).origin
            names = {alias.name for alias in node.names}
            if node.module == "prewrite":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name) for name in names), (page, names)
            else:  # read, since it may import a package that is not here
                assert names <= defined(Path(source)), (page, names)
    assert ast.parse(code).body


def defined(source):
    return {
        name
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        for name in (getattr(node, "name", ""), *(alias.name for alias in getattr(node, "names", ())))
    }


@pytest.mark.parametrize(("page", "code"), [each for each in PYTHON if not OF_THE_READER.search(each.values[1])])
def test_a_snippet_runs(page, code, runs, toy, tmp_path, monkeypatch, capsys):
    shutil.copytree(runs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with HTTPServer(OllamaApp(names=("gemma3:4b",))) as server, asking_a_rewriter(on_toy_models(code, toy)) as code:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        exec(compile(code, page, "exec"), {"__name__": "snippet"})
    if "print(" in code:
        assert capsys.readouterr().out.strip()


def test_the_first_snippet_of_the_readme_is_short_and_tells_the_gain():
    code = blocks(ROOT / "README.md", "python")[0]
    assert len(code.splitlines()) <= LONGEST
    assert 'found["verdict"]' in code


def test_the_commands_of_the_first_run_work_in_their_order(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    done = []
    for block in blocks(ROOT / "docs" / "first_run.md", "bash"):
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            if program == "pip" or words == ["demo"]:
                continue
            flags = on_the_toy(toy, words[0])
            assert main([words[0], *flags, *words[1:]] if words[0] != "search" else [*words, *flags]) == 0, line
            done.append(words[0])
    assert done == ["doctor", "search", "ask", "train", "rewrite"]
    assert os.path.isfile("runs/search/report.html")
