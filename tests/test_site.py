"""The site of the pages: every page is on it, every flag and public name is told, and it fetches nothing."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import prewrite
from prewrite.run.config import RewardModelConfig, SearchConfig, TrainConfig, WarmStartConfig
from prewrite.run.option import options_of

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("mkdocs", "material", "mkdocstrings")


def hooks():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_in(nav):
    for entry in nav:
        for value in entry.values():
            yield from pages_in(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_once():
    # Only its lists and texts are read here; tags of mkdocs's own would need its loader.
    nav = list(pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert sorted(nav) == sorted([*pages, *hooks().OUTSIDE.values()])


def test_no_page_has_brackets_that_the_site_takes_for_a_reference():
    """`[a] [b]` in plain text is a link to `b`, which is nowhere, and the site is not built."""
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        plain = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"\[[^\]\n]+\] ?\[[^\]\n]+\]", plain) == [], page.name


@pytest.mark.parametrize(
    ("text", "from_root", "turned"),
    [
        ("[data](docs/data.md#files)", True, "[data](data.md#files)"),
        ("[how](CONTRIBUTING.md)", True, "[how](contributing.md)"),
        ("[home](../README.md)", False, "[home](index.md)"),
        ("[the tour](../run.ipynb)", False, "the tour"),
        ("[data](data.md)", False, "[data](data.md)"),
        ("[paper](https://arxiv.org/abs/2401.08189)", True, "[paper](https://arxiv.org/abs/2401.08189)"),
    ],
)
def test_links_lead_to_pages_of_the_site(text, from_root, turned):
    assert hooks().with_links_of_the_site(text, from_root=from_root) == turned


def test_every_setting_and_every_command_is_on_the_page_of_flags(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # put back afterwards
    told = hooks().every_flag()
    for config in (TrainConfig, SearchConfig, WarmStartConfig, RewardModelConfig):
        for option in options_of(config):
            assert f"`{option.name}`" in told
    assert "### prewrite completion" in told and "usage: prewrite train" in told
    assert hooks().MARKER in (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")


def test_every_public_name_is_on_the_page_of_the_python_api():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    told = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in told) == sorted(set(prewrite.__all__) - {"__version__"})


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)),
    reason="mkdocs-material is not among the packages of the tests (110 MB); `make docs` builds the site strictly",
)
def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    html = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    assert len(html) > 25
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]+src=[\"'](https?:)?//|<link[^>]+rel=[\"']?stylesheet[^>]+https?://"
    )
    assert [page.name for page, text in html.items() if fetched.search(text)] == []
    assert "rewrites_per_step" in (tmp_path / "site" / "flags.html").read_text(encoding="utf-8")
