"""What was found out about servers, kept for a day, so that not every command asks it all again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prewrite.files import write_atomic
from prewrite.task_models.cache import default_cache_path
from prewrite.task_models.labels import is_number
from prewrite.text import parse_json

DAY = 24 * 60 * 60.0
FORMAT = 1
"""Raise it when the facts mean something else than before."""


def recall(address: str, model: str) -> dict[str, Any] | None:
    """What was kept of `model` at `address` within the last day; None if that is nothing that can be read."""
    try:
        kept = parse_json(_file(address, model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("format") != FORMAT or not is_number(at := kept.get("at")):
        return None
    facts = kept.get("facts") if 0 <= time.time() - at < DAY else None
    return facts if isinstance(facts, dict) else None


def keep(address: str, model: str, facts: Mapping[str, Any]) -> None:
    """Keep JSON-able `facts`, beside the answer cache."""
    kept = {"format": FORMAT, "at": time.time(), "address": address, "model": model, "facts": dict(facts)}
    write_atomic(_file(address, model), json.dumps(kept, indent=1) + "\n")


def _file(address: str, model: str) -> Path:
    name = hashlib.sha256(f"{address}\n{model}".encode()).hexdigest()[:32]
    return default_cache_path().parent / "servers" / f"{name}.json"
