"""Writing the pages: one self-contained HTML file, and the same result as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prewrite.files import write_atomic
from prewrite.report.charts import shorten
from prewrite.report.formats import duration, percent, pvalue, signed
from prewrite.report.markdown import render_markdown
from prewrite.report.page import build_page
from prewrite.report.read import read_run
from prewrite.run_folder import RunFolder

HERE = Path(__file__).parent
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters and lone surrogates: not allowed in HTML, or not encodable at all."""


def build_report(path: str | Path) -> Path:
    """Write `report.html` and `report.md` into a run folder, from its files alone; returns the HTML file's path.

    Raises `RunFolderError` where the folder holds no run or a broken file.
    """
    folder = RunFolder.open(path)
    page = build_page(read_run(path))
    write_atomic(folder.report_html, render_html(page))
    write_atomic(folder.report_md, UNPRINTABLE.sub("\ufffd", render_markdown(page)))
    return folder.report_html


def render_html(page: dict[str, Any], *, live: str = "") -> str:
    """The page of one run. `live` is the version of a page that `watch` serves and keeps fresh."""
    charts = [*page["training"], *([page["race"]["chart"]] if page["race"] and page["race"]["chart"] else [])]
    hover = {
        "charts": {chart.id: chart.hover for chart in charts},
        "panels": page["panels"],
        "copies": [view["rewrite"] for view in page["views"]],
        "live": live,
    }
    return render("template.html", {**page, "hover": hover}, live=bool(live))


def render(template: str, values: dict[str, Any], *, live: bool = False) -> str:
    """Fill a template of this folder; HTML is escaped, an unknown name in a template is an error."""
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            style=Markup(_inline("style.css")),
            script=Markup(_inline("script.js")),
            policy=Markup(content_policy(live=live)),
        )
    )


def content_policy(*, live: bool) -> str:
    """No network, and only this page's own style and script, known by their hashes; `live` may ask its own server."""
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(_inline('style.css'))}'; "
        f"script-src '{_hash(_inline('script.js'))}'; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(percent=percent, signed=signed, duration=duration, shorten=shorten, pvalue=pvalue)
    return environment


def _printable(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return UNPRINTABLE.sub("�", value)
    return value


@lru_cache(maxsize=2)
def _inline(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
