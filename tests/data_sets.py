"""The data sets that tests read: small ones of our own, and the public ones where they lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL_DATA = Path(__file__).parent / "small_data"
PUBLIC_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

small_and_public_data = pytest.mark.parametrize(
    "data",
    [
        pytest.param(SMALL_DATA, id="small"),
        pytest.param(
            PUBLIC_DATA,
            id="public",
            marks=pytest.mark.skipif(not PUBLIC_DATA.is_dir(), reason="the public data sets are not on this machine"),
        ),
    ],
)
"""Runs a test with the folder of each; every folder in it is a data set of train, dev and test."""
