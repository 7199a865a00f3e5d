"""The arms: what each is called, which program runs it, and in which environment."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"


class Arm(NamedTuple):
    """One way to a prompt."""

    name: str
    """As the table calls it."""
    variant: str
    """Which of the arms of its program."""
    program: str = ""
    """The module of a peer; empty for ours."""
    environment: str = ""
    """The peer's own virtual environment, by the name of its requirements file."""
    likelihood: bool = False
    """Whether it reads the likeliest label, which no other tool can, in place of text."""

    @property
    def ours(self) -> bool:
        """Whether it is one of prewrite's own."""
        return not self.program


ARMS: dict[str, Arm] = {
    "initial": Arm("initial prompt", "initial"),
    "exemplars": Arm("prewrite, exemplars only", "exemplars"),
    "search": Arm("prewrite, rewriter none", "search"),
    "search-worded": Arm("prewrite", "search-worded"),
    "mipro-demos": Arm("DSPy MIPROv2 with demos", "demos", "dspy_mipro", "dspy"),
    "mipro": Arm("DSPy MIPROv2 without demos", "instructions", "dspy_mipro", "dspy"),
    "dspy-gepa": Arm("DSPy GEPA", "", "dspy_gepa", "dspy"),
    "gepa": Arm("gepa", "", "gepa_", "gepa"),
    "capo": Arm("promptolution CAPO", "capo", "promptolution_", "promptolution"),
    "opro": Arm("promptolution OPRO", "opro", "promptolution_", "promptolution"),
    "evoprompt-ga": Arm("promptolution EvoPromptGA", "evoprompt-ga", "promptolution_", "promptolution"),
    "initial-likelihood": Arm("initial prompt, likelihood", "initial-likelihood", likelihood=True),
    "offsets-likelihood": Arm("prewrite, offsets only, likelihood", "offsets-likelihood", likelihood=True),
    "search-likelihood": Arm("prewrite, likelihood", "search-likelihood", likelihood=True),
}
MAIN = "search-worded"
"""The arm that is compared with each peer: what `prewrite search` does by default."""
NOT_RUN = {"IBM AISteer360 (`aisteer360`)": "not on the package index, in any version; searched for on 2026-11-26"}
"""Peers without an arm, and why."""


def environments() -> dict[str, Path]:
    """Every peer's environment, by name; `make bench-peers-setup` makes them."""
    return {file.stem: ROOT / f".venv-peers/{file.stem}" for file in sorted(REQUIREMENTS.glob("*.txt"))}


def python_of(environment: str) -> Path:
    """The interpreter of a peer's environment; it need not exist."""
    return ROOT / ".venv-peers" / environment / "bin" / "python"


def megabytes(folder: Path) -> int | None:
    """What an environment takes on disk, in units of 1,000,000 bytes; None where it is not there."""
    if not folder.is_dir():
        return None
    return round(sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) / 1e6)
