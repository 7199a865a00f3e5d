"""Where this user's converted models, warm starts and cached answers live, and how a folder there is made."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


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
