"""What mkdocs adds to these pages when it builds the site: pages that stand elsewhere, and the list of every flag.

README.md is the first page of the site, and CONTRIBUTING.md and CHANGELOG.md are in it, with their links turned to
the site's own pages. `flags.md` gets its tables from the settings of the package, so that none is forgotten.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the root, and what they are called on the site."""
MARKER = "<!-- every flag -->"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the root."""
    from mkdocs.structure.files import File

    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as the site has them, and the flags in their place."""
    if MARKER in markdown:
        markdown = markdown.replace(MARKER, every_flag())
    return with_links_of_the_site(markdown, from_root=page.file.src_uri in OUTSIDE.values())


def with_links_of_the_site(markdown: str, *, from_root: bool) -> str:
    """A link to a page leads to it on the site; one to a file that is not on the site becomes its words alone.

    >>> with_links_of_the_site("[data](docs/data.md#files), [code](src/x.py), [site](https://a.b)", from_root=True)
    '[data](data.md#files), code, [site](https://a.b)'
    >>> with_links_of_the_site("[home](../README.md), [data](data.md)", from_root=False)
    '[home](index.md), [data](data.md)'
    """

    def turned(found: re.Match[str]) -> str:
        words, target, place = found["words"], found["target"], found["place"] or ""
        path = target if from_root else target.removeprefix("../")
        if target.startswith(("http:", "https:")) or (not from_root and path == target):
            return found[0]
        if path in OUTSIDE:
            return f"[{words}]({OUTSIDE[path]}{place})"
        if path.startswith("docs/"):
            return f"[{words}]({path.removeprefix('docs/')}{place})"
        return words

    return re.sub(r"\[(?P<words>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<place>#[^)]*)?\)", turned, markdown)


def every_flag() -> str:
    """The settings of each kind as tables, and what each command says of itself, in Markdown."""
    from prewrite.run.config import RewardModelConfig, SearchConfig, TrainConfig, WarmStartConfig

    configs = {
        "train": TrainConfig,
        "search": SearchConfig,
        "warm-start": WarmStartConfig,
        "train-reward": RewardModelConfig,
    }
    parts = [part for command, config in configs.items() for part in _settings(command, config)]
    return "\n".join([*parts, *_helps()])


def _settings(command: str, config: type) -> Iterator[str]:
    from prewrite.cli.options import GROUPS
    from prewrite.run.option import options_of

    yield f"## Settings of `prewrite {command}`\n"
    options = options_of(config)
    for group in [name for name in GROUPS if any(option.group == name for option in options)]:
        yield f"### {command}: {group}\n"
        yield "| setting | default | what it is | rule |\n| --- | --- | --- | --- |"
        for option in options:
            if option.group == group:
                names = ", ".join(f"`{name}`" for name in option.names)
                yield f"| {names} | {_default(option)} | {_cell(option.help)} | {_cell(_rule(option))} |"
        yield ""


def _default(option: Any) -> str:
    if option.default is None or option.default in ([], {}):
        return ""
    if isinstance(option.default, bool):
        return "on" if option.default else "off"
    value = ", ".join(option.default) if isinstance(option.default, list) else str(option.default)
    return "`" + _cell(value.replace("\n", "\\n")) + "`"


def _rule(option: Any) -> str:
    bounds = {"above": option.above, "below": option.below, "at least": option.at_least}
    rules = [f"{name} {bound:,g}" for name, bound in bounds.items() if bound is not None]
    if option.choices:
        rules.append(f"one of {', '.join(option.choices)}")
    if option.nested:
        rules.append("in YAML only")
    if option.may_change:
        rules.append("may change on resume")
    return "; ".join(rules)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _helps() -> Iterator[str]:
    from prewrite.cli.main import COMMANDS, main

    yield "## Help of every command\n"
    os.environ["COLUMNS"] = "100"  # argparse wraps its lines at this
    for command in COMMANDS:
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            main([command, "--help"])
        yield f"### prewrite {command}\n\n```text\n{told.getvalue().strip()}\n```\n"
