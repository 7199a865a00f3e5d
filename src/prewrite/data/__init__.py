"""Rows of a task: reading them from files or the hub, and splitting them without leakage."""

from prewrite.data.dataset import PRewriteDataset
from prewrite.data.load import load_splits
from prewrite.data.splits import Splits

__all__ = ["PRewriteDataset", "Splits", "load_splits"]
