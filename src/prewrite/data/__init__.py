"""Rows of a task: reading them from files or the hub, and splitting them without leakage."""

from prewrite.data.dataset import PRewriteDataset, Splits
from prewrite.data.load import load_splits

__all__ = ["PRewriteDataset", "Splits", "load_splits"]
