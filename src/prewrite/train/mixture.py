"""What one rewriter trains on: instructions, their rows, and how often each is drawn.

Several data sets are mixed by temperature (T5, arXiv 1910.10683, section 3.5.2): a set of n rows has the weight
n^(1/temperature), so that 1 follows the sizes and a high temperature treats all sets alike. Within a set, instructions
count by their rows, and the wordings of one instruction share its weight.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from prewrite.data import InMemory, PRewriteDataset
from prewrite.errors import ConfigError
from prewrite.files import why_unreadable
from prewrite.text import parse_yaml

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """The instructions of a run."""

    rows: dict[str, PRewriteDataset]
    """Instruction (or another wording of it) -> the rows that its rewrites are scored on."""
    weights: tuple[float, ...]
    """How often each is drawn, in the order of `rows`; they sum to 1."""
    templates: dict[str, str] = field(default_factory=dict)
    """Instruction (or another wording of it) -> its own meta prompt, where its rows bring one."""

    @classmethod
    def of(cls, source: TrainRows) -> Mixture:
        """A mixture as it is; rows as one whose instructions are drawn alike."""
        if isinstance(source, Mixture):
            return source
        dataset = PRewriteDataset.of(source)
        rows = dataset.by_instruction()
        return cls(rows, (1 / len(rows),) * len(rows), dataset.templates())


TrainRows = Mixture | PRewriteDataset | InMemory
"""What a rewriter can be trained on."""

MOST_INPUTS = 2000
"""Training inputs that the leakage guard knows; beyond that a copy is luck."""


def some_inputs(datasets: Sequence[PRewriteDataset]) -> list[str]:
    """The first inputs of each, `MOST_INPUTS` in all: what a rewrite must not copy."""
    return [row.input for rows in datasets for row in islice(rows, MOST_INPUTS // len(datasets))]


def mix(
    datasets: Sequence[PRewriteDataset],
    *,
    temperature: float = 2.0,
    phrasings: Mapping[str, Sequence[str]] | None = None,
) -> Mixture:
    """The mixture of `datasets`; `phrasings` adds other wordings of an instruction, drawn in its place at times.

    An instruction that stands in several sets keeps all its rows and adds up its weights. Raises `ConfigError` for a
    wording that is an instruction, or a wording of two instructions.
    """
    sizes = [len(dataset) ** (1 / temperature) for dataset in datasets]
    shares: dict[str, float] = {}
    rows: dict[str, list[PRewriteDataset]] = {}
    for dataset, size in zip(datasets, sizes, strict=True):
        for instruction, mine in dataset.by_instruction().items():
            shares[instruction] = shares.get(instruction, 0.0) + size / sum(sizes) * len(mine) / len(dataset)
            rows.setdefault(instruction, []).append(mine)
    found: dict[str, tuple[PRewriteDataset, float]] = {}
    templates: dict[str, str] = {}
    for instruction, parts in rows.items():
        together = joined(parts)
        wordings = [instruction, *(phrasings or {}).get(instruction, ())]
        for template in together.templates().values():  # one at most
            templates |= dict.fromkeys(wordings, template)
        for wording in wordings:
            if wording in found or (wording in rows and wording != instruction):
                raise ConfigError(
                    f"phrasings: {wording!r} of the instruction {instruction!r} is already a wording of another one; "
                    "each wording must belong to one instruction"
                )
            found[wording] = together, shares[instruction] / len(wordings)
    weights = tuple(weight for _, weight in found.values())
    return Mixture({name: part for name, (part, _) in found.items()}, weights, templates)


def joined(datasets: Sequence[PRewriteDataset]) -> PRewriteDataset:
    """Several data sets as one; a single one as it is."""
    if len(datasets) == 1:
        return datasets[0]
    return PRewriteDataset.from_examples([row for dataset in datasets for row in dataset])


def load_phrasings(file: str | Path, instructions: Sequence[str]) -> dict[str, list[str]]:
    """Other wordings by instruction, from a YAML or JSON file `{instruction: [wording, ...]}`.

    Entries for instructions that are not among `instructions` are left out, with a warning. Raises `ConfigError`.
    """
    path = Path(file)
    try:
        found = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"phrasings {str(path)!r} cannot be read ({why_unreadable(error)}); give a YAML file"
        ) from None
    except ValueError as error:
        raise ConfigError(f"phrasings {str(path)!r} is not YAML ({error}); correct it") from None
    if not isinstance(found, dict):
        raise ConfigError(f"phrasings {str(path)!r} must be a mapping, 'instruction: [wording, ...]'")
    for instruction, wordings in found.items():
        texts = wordings if isinstance(wordings, list) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(
                f"phrasings {str(path)!r}: the entry of {instruction!r} must be a list of texts, at least one"
            )
    known = {name: wordings for name, wordings in found.items() if name in instructions}
    if left := len(found) - len(known):
        logger.warning("phrasings %s: %d of %d instructions are not in the data", path, left, len(found))
    return known
