"""What is shipped: the files of the package, and what the files around it say of it."""

import fnmatch
import re
import sys
from pathlib import Path

import pytest
import yaml

import prewrite

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "prewrite"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}


def test_every_file_of_the_package_is_in_the_wheel():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["prewrite"]
    left_out = [
        name
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
        and not any(fnmatch.fnmatch(name := path.relative_to(SOURCE).as_posix(), pattern) for pattern in patterns)
    ]  # fmt: skip
    assert left_out == []


def test_every_room_is_a_package_of_its_own():
    rooms = {path.parent for path in SOURCE.rglob("*.py")}
    assert [room.name for room in rooms if not (room / "__init__.py").is_file()] == []


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["project"]["version"] == prewrite.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == [{"name": "The prewrite developers"}]


def test_torch_is_needed_by_extras_alone():
    needed = " ".join(PROJECT["project"]["dependencies"])
    assert not re.search(r"torch|transformers|trl|peft|datasets|accelerate", needed)


def steps():
    for name, workflow in WORKFLOWS.items():
        for job in workflow["jobs"].values():
            yield from ((name, step) for step in job["steps"])


def test_workflows_run_make_targets_alone():
    assert WORKFLOWS
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, step in steps():
        if "run" in step:
            program, target, *settings = step["run"].split()
            assert program == "make" and target in targets, (name, step)
            assert all(re.fullmatch(r"PYTHON=\w+", setting) for setting in settings), (name, step)
        else:
            assert step["uses"].startswith("actions/"), (name, step)


def test_the_tests_run_on_every_python_that_is_promised():
    promised = {line.split(" :: ")[-1] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)}
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert min(promised, key=lambda version: int(version.split(".")[1])) == oldest
    assert set(WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"]) == promised
