"""`from load_datasets import PRewriteDataset` works from the repository root, as in the first design."""

from prewrite.data import PRewriteDataset, Splits, load_splits

__all__ = ["PRewriteDataset", "Splits", "load_splits"]
