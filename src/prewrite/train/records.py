"""What an update leaves in the run folder: a line of `rollouts.jsonl` for each rollout, and one of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prewrite.choosing.stats import rank_correlation
from prewrite.scoring.rewards import Graded


def rollout_rows(
    step: int,
    instructions: Sequence[str],
    texts: Sequence[str],
    rewrites: Sequence[str],
    graded: Sequence[Graded],
    kl: Sequence[float],
) -> list[dict[str, Any]]:
    """The step's lines of `rollouts.jsonl`; `kl` is summed over a completion's tokens, in nats."""
    return [
        {
            "step": step, "instruction": instruction, "completion": text, "rewrite": rewrite,
            "reward": result.reward.total, "parts": dict(result.reward.parts), "kl": row_kl,
            "score": float(np.mean(result.scores)) if result.scores else None, "fidelity": result.fidelity,
            "guards": {k: v for k, v in result.reward.parts.items() if k.startswith("guard/")},
            **({} if result.estimate is None else {"estimate": result.estimate}),
            **({} if result.estimate is None and result.real else {"real": result.real}),
        }
        for instruction, text, rewrite, result, row_kl in zip(instructions, texts, rewrites, graded, kl, strict=True)
    ]  # fmt: skip


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over a step's rollouts; keys are paths."""
    rewards = [row["reward"] for row in rows]
    metrics = {
        "reward/mean": float(np.mean(rewards)),
        "reward/std": float(np.std(rewards)),
        "reward/best": float(np.max(rewards)),
        "kl/mean": float(np.mean([row["kl"] for row in rows])),
        "rewrites/distinct": len({(row["instruction"], row["rewrite"]) for row in rows}) / len(rows),
    }
    scores = [row["score"] for row in rows if row["score"] is not None]
    if scores:
        metrics["score/mean"] = float(np.mean(scores))
    fidelities = [row["fidelity"] for row in rows if row["fidelity"] is not None]
    if fidelities:
        metrics["fidelity/mean"] = float(np.mean(fidelities))
    for name in sorted({name for row in rows for name in row["parts"]}):
        key = f"reward/{name}" if name == "task" else name
        metrics[key] = float(np.mean([row["parts"].get(name, 0.0) for row in rows]))
    return metrics | estimate_metrics(rows)


def estimate_metrics(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How near a reward model's estimates come where the task model graded the same rewrites; else nothing.

    `reward_model/error` is the mean absolute difference; `reward_model/rank` Spearman's correlation among the rewrites
    of an instruction, absent where either side has one value only.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        if "estimate" in row and row["real"]:
            found.setdefault(row["instruction"], {})[row["rewrite"]] = (row["estimate"], row["parts"]["task"])
    if not found:
        return {}
    groups = [np.array(list(group.values())) for group in found.values()]
    metrics = {"reward_model/error": float(np.mean([abs(e - real) for group in groups for e, real in group]))}
    ranks = [rank for group in groups if (rank := rank_correlation(*group.T)) is not None]
    return metrics | ({"reward_model/rank": float(np.mean(ranks))} if ranks else {})
