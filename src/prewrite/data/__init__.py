"""Rows of a task: reading them from files or the hub, and splitting them without leakage."""

from prewrite.data.dataset import PRewriteDataset, Splits
from prewrite.data.in_memory import InMemory
from prewrite.data.load import load_splits

__all__ = ["InMemory", "PRewriteDataset", "Splits", "load_splits"]
