"""The literal cases in tests/cases/*.jsonl: one JSON object a line, with what goes in, the right value, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "cases"


def table(name: str) -> pytest.MarkDecorator:
    """Run a test once for each case of `cases/name.jsonl`; it gets the case as the argument `case`."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    cases: list[dict[str, Any]] = [json.loads(line) for line in lines]
    ids = [f"{number}: {case['why']}" for number, case in enumerate(cases, start=1)]
    return pytest.mark.parametrize("case", cases, ids=ids)
