"""Train, dev and test: which row goes where.

Rows that are the same after normalisation form one group, and a group is never divided. Groups are dealt out stratum
by stratum (instruction, and label where the task is classification) to whichever split is furthest below its share,
so that each stratum, and the whole, comes within about one group of the fractions.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import ConfigError

SPLIT_NAMES = ("train", "dev", "test")
DEFAULT_FRACTIONS = (0.6, 0.2, 0.2)


def content_keys(pairs: Iterable[tuple[str, str]]) -> NDArray[np.uint64]:
    """One 64-bit digest per (instruction, input), equal where they are equal but for case, spaces and Unicode form."""
    normalise_instruction = lru_cache(maxsize=1024)(normalise)
    keys = (
        int.from_bytes(
            hashlib.blake2b(
                f"{normalise_instruction(instruction)}\0{normalise(text)}".encode(), digest_size=8
            ).digest(),
            "little",
        )
        for instruction, text in pairs
    )
    return np.fromiter(keys, dtype=np.uint64)


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space as one space: what two rows are compared by."""
    if text.isascii():  # NFKC leaves ASCII as it is
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Raise `ConfigError` unless there are three shares of at least 0 that sum to 1, train's above 0."""
    valid = len(fractions) == 3 and min(fractions) >= 0 and fractions[0] > 0 and abs(sum(fractions) - 1) < 1e-9
    if not valid:
        raise ConfigError(
            f"fractions: got {fractions}; they must be three numbers (train, dev, test) of at least 0 that sum to 1, "
            "with train above 0"
        )


def assign_splits(
    keys: NDArray[np.uint64],
    instructions: NDArray[np.int64],
    labels: NDArray[np.int64],
    fractions: tuple[float, float, float],
    seed: int,
) -> NDArray[np.int8]:
    """The split (0 train, 1 dev, 2 test) of each row; all arrays have shape (rows,).

    `labels` is -1 where a row has no label. The first group of each label goes to train, so that no label of a data
    set is seen in test only. The outcome depends on the rows' contents and the seed.
    """
    _, strata, stratum_sizes = np.unique(
        instructions * (labels.max(initial=-1) + 2) + labels + 1, return_inverse=True, return_counts=True
    )
    rarity = np.empty(len(stratum_sizes), np.int64)  # 0 for the rarest stratum
    rarity[np.argsort(stratum_sizes, kind="stable")] = np.arange(len(stratum_sizes))
    has_label = np.zeros(len(stratum_sizes), bool)
    has_label[rarity[strata]] = labels >= 0

    _, groups, group_sizes = np.unique(keys, return_inverse=True, return_counts=True)
    group_strata = np.full(len(group_sizes), len(stratum_sizes), np.int64)
    np.minimum.at(group_strata, groups, rarity[strata])  # same text, different labels: the rarest label decides

    order = np.lexsort((np.random.default_rng(seed).random(len(group_sizes)), group_strata))
    shares = [(split, share) for split, share in enumerate(fractions) if share > 0]
    chosen = np.empty(len(group_sizes), np.int8)
    filled, total, previous = [0, 0, 0], 0, -1
    for group, size, stratum in zip(
        order.tolist(), group_sizes[order].tolist(), group_strata[order].tolist(), strict=True
    ):
        total += size
        split, widest_gap = 0, -np.inf
        if stratum == previous or not has_label[stratum]:
            for candidate, share in shares:
                gap = share * total - filled[candidate]
                if gap > widest_gap:
                    split, widest_gap = candidate, gap
        filled[split] += size
        chosen[group] = split
        previous = stratum
    return chosen[groups]
