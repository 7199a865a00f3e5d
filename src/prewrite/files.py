"""Where files of the user live, and how a file or folder is written: whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """`PREWRITE_CACHE_DIR`, or `prewrite` in the user's cache folder."""
    if override := os.environ.get("PREWRITE_CACHE_DIR"):
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prewrite"


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, which `make(an empty folder)` fills on first use; it appears whole or not at all.

    Safe when several processes start at once: each may make one, and the first that is whole stays.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        make(temporary)
        try:
            temporary.rename(folder)
        except OSError:  # another process was first: use its copy
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON as people read it; half a surrogate pair, which UTF-8 cannot hold, is escaped. NaN is refused."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return json.dumps(value, indent=indent, allow_nan=False) if _LONE_SURROGATE.search(text) else text
