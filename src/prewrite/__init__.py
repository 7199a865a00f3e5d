"""Train a small language model to rewrite prompts, by reinforcement learning, and measure honestly what it gains."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

__version__ = metadata.version("prewrite")

_EXPORTS = {
    "Evaluator": "prewrite.scoring.evaluator",
    "PRewriteDataset": "prewrite.data",
    "PRewritePPOTrainer": "prewrite.train.ppo",
    "Rewriter": "prewrite.rewriter.rewriter",
    "RewriteExample": "prewrite.types",
    "SearchConfig": "prewrite.run.config",
    "ScriptedTaskModel": "prewrite.task_models.scripted",
    "TaskReward": "prewrite.scoring.rewards",
    "TrainConfig": "prewrite.run.config",
    "compute_reward": "prewrite.scoring.rewards",
    "load_prompt": "prewrite.scoring.prompt",
    "load_splits": "prewrite.data",
    "open_task_model": "prewrite.task_models.registry",
    "run_search": "prewrite.run.search",
    "run_training": "prewrite.run.train",
    "select": "prewrite.choosing.race",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that `import prewrite` needs no torch and no time."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'prewrite' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
