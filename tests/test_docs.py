"""Every command in the documentation is one that this version has, with flags that it takes."""

import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
from benchmarks.readme_picture import draw, read_rows

from prewrite.cli.demo import DEMO
from prewrite.cli.main import COMMANDS, main
from prewrite.run.config import TaskConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.yaml")),
]
ROOMS = sorted(path.name for path in (ROOT / "src" / "prewrite").iterdir() if (path / "__init__.py").is_file())
SCRIPTS = {"finetune.py": "train", "inference.py": "rewrite"}


def commands():
    """(page, words) of each `prewrite`, `python` and `make` command in code blocks and recipe heads."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:bash|powershell|console|sh)\n(.*?)```", text, re.DOTALL)
        if page.suffix == ".yaml":
            blocks = ["\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))]
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] in ("prewrite", "make", "python", "accelerate"):
                    yield pytest.param(page, words, id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_a_documented_command_exists_and_takes_its_flags(page, words, monkeypatch):
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets)
        return
    if program in ("python", "accelerate"):
        if script := next((word for word in rest if word in SCRIPTS), None):  # itself, or under a launcher
            rest = [SCRIPTS[script], *rest[rest.index(script) + 1 :]]
        else:
            assert importlib.util.find_spec(rest[1]) if rest[0] == "-m" else (ROOT / rest[0]).is_file()
            return
    if "--help-all" in rest:
        with pytest.raises(SystemExit) as ended:
            main(rest)
        assert not ended.value.code
        return
    if rest == ["demo"] or rest[0] in COMMANDS:
        module = importlib.import_module(f"prewrite.cli.{rest[0].replace('-', '_')}")
        monkeypatch.setattr(module, "run", lambda namespace, argv: 0)
    assert main(rest) == 0


def test_recipes_are_settings_of_a_training_run():
    from argparse import Namespace

    from prewrite.cli.options import build_config

    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert recipes
    for recipe in recipes:
        built = build_config(TrainConfig, Namespace(config=str(recipe)))
        assert isinstance(built, TaskConfig)
    demo = build_config(TrainConfig, Namespace(config=str(ROOT / "recipes" / "demo.yaml")), **DEMO)
    assert demo == build_config(TrainConfig, Namespace(), **DEMO)


@pytest.mark.parametrize("name", ["agnews", "sst2", "nq", "gsm8k"])
def test_a_recipe_of_the_paper_has_its_initial_prompt_whatever_the_rows_say_its_template_and_ten_candidates(
    name, tmp_path
):
    from argparse import Namespace

    from prewrite.cli.options import build_config
    from prewrite.run.build import open_splits
    from prewrite.scoring.templates import TASK_TEMPLATES

    data = tmp_path / "rows.jsonl"
    rows = ({"instruction": "Say it.", "input": f"text {at}", "output": str(at % 4)} for at in range(60))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = ROOT / "recipes" / "paper" / f"{name}.yaml"
    config = build_config(TrainConfig, Namespace(config=str(recipe)), dataset=[str(data)])
    (splits,) = open_splits(config)
    assert {row.instruction for row in splits.train} == {config.instruction} != {"Say it."}
    assert config.task_template == TASK_TEMPLATES[name] and config.meta_family == "generic"
    assert config.wording_alone and config.algorithm == "ppo" and config.temperature == 1.0
    assert (config.strategy, config.num_candidates, config.race) == ("S", 10, False)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def named_files(text):
    """The pages and Python files that a text names: by their path from the root or a room, or by name in backticks."""
    places = "|".join(["src", "tests", "benchmarks", "examples", "docs", *ROOMS])
    yield from re.findall(rf"(?<![\w/.])(?:{places})/[\w/]+\.(?:py|md)\b", text)
    yield from re.findall(r"`(\w+\.py)`", text)


def exists(name, files):
    """Whether one of `files` is `name`, seen from the root, from the package, or, for a bare name, anywhere."""
    return name in files or f"src/prewrite/{name}" in files or any(file.endswith(f"/{name}") for file in files)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see src/prewrite/train/ppo.py and `train/kl.py`", ["src/prewrite/train/ppo.py", "train/kl.py"]),
        ("(tests/test_docs.py holds it) `files.py` does it", ["tests/test_docs.py", "files.py"]),
        ("--metric scoring.py:same_name, data/train.jsonl", []),
    ],
)
def test_files_are_named_in_three_ways(text, names):
    assert list(named_files(text)) == names


def test_every_file_that_is_named_exists():
    code = [file for place in ("src", "tests", "benchmarks", "examples") for file in (ROOT / place).rglob("*.py")]
    files = {file.relative_to(ROOT).as_posix() for file in [*code, *PAGES, *ROOT.glob("*.py")]}
    gone = [
        f"{page.relative_to(ROOT)} names {name}"
        for page in [*PAGES, ROOT / "Makefile", *code]
        if page != Path(__file__)
        for name in named_files(page.read_text(encoding="utf-8"))
        if not exists(name, files)
    ]
    assert gone == []


def test_what_the_map_says_to_touch_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`, `(\w+)`", text)
    assert len(named) > 10
    for file, name in named:
        source = next(path for path in (ROOT / file, ROOT / "src" / "prewrite" / file) if path.is_file())
        assert re.search(rf"^(?:def |class )?{name}\b", source.read_text(encoding="utf-8"), re.MULTILINE), (file, name)


def test_the_picture_and_the_table_of_the_readme_show_what_the_results_say():
    rows = read_rows((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert [row.data for row in rows] == ["SST-2", "AG News", "Subj", "MR", "SST-5", "demo"]
    assert rows[0].before == 0.66 and rows[0].after[0] == 0.774 and round(rows[1].calibrated, 2) == 0.65
    assert (ROOT / "docs" / "before_after.svg").read_text(encoding="utf-8") == draw(rows)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in rows:
        after = ", ".join(f"{value:.3f}" for value in row.after)
        assert re.search(rf"^\| {row.data}, [^|]+\| {row.before:.3f} \| {after} \|", readme, re.MULTILINE)
