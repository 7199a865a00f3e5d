"""Packages that a command cannot do without."""

from __future__ import annotations

from importlib.util import find_spec

from prewrite.errors import MissingDependencyError


def require(*packages: str) -> None:
    """Raise `MissingDependencyError` for the first that is not installed; imports none."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(f"{package} is not installed; `pip install 'prewrite[train]'`")


def require_training() -> None:
    """As `require`, for everything that trains."""
    require("torch", "transformers", "trl", "peft")
