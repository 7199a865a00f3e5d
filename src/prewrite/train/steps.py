"""What a training step is, whatever the algorithm: its draws, its grades, its rows and metrics.

Every draw depends on the seed, the step and the instruction alone, so a resumed run draws what a straight one draws,
and the algorithms see the same instructions and examples at the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.stats import rank_correlation
from prewrite.data import PRewriteDataset
from prewrite.scoring.rewards import Graded, TaskReward
from prewrite.train.mixture import Mixture
from prewrite.types import RewriteExample


def step_rng(purpose: str, *, seed: int, step: int, process: int = 0) -> np.random.Generator:
    """A generator that depends on its arguments alone."""
    return np.random.default_rng([seed, step, process, *purpose.encode()])


def draw_instructions(mixture: Mixture, count: int, *, seed: int, step: int) -> list[str]:
    """`count` distinct instructions of this step, by their weights; the same on every process."""
    rng = step_rng("instructions", seed=seed, step=step)
    names = list(mixture.rows)
    return [names[int(index)] for index in rng.choice(len(names), size=count, replace=False, p=mixture.weights)]


def draw_examples(
    rows: PRewriteDataset, count: int, *, seed: int, step: int, instruction: str, others: bool = False
) -> list[RewriteExample]:
    """Up to `count` of an instruction's rows, the same on every process; `others`: as many of the rest.

    Labels come in the shares that they have in `rows`, as nearly as `count` allows (systematic sampling over the rows
    sorted by label): eight rows drawn freely can hold one label five times, and then the reward follows the draw.
    """
    rng = np.random.default_rng([seed, step, *instruction.encode()])
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.label_codes()[order], kind="stable")]
    drawn = _systematic(order, count, rng)
    if others:
        drawn = _systematic(order[~np.isin(order, drawn)], count, rng)
    return [rows[int(index)] for index in rng.permutation(drawn)]


def _systematic(order: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` entries (or all) at even distances from a random start."""
    if len(order) <= count:
        return order
    places = (np.arange(count) + rng.random()) * (len(order) / count)
    return order[places.astype(np.int64)]


def grade(
    reward: TaskReward,
    instructions: Sequence[str],
    rewrites: Sequence[str],
    examples: Callable[[str], Sequence[RewriteExample]],
    *,
    step: int,
) -> list[Graded]:
    """One `Graded` per row. Rewrites of one instruction share one call and its examples; each text is graded once."""
    graded: dict[tuple[str, str], Graded] = {}
    for instruction in dict.fromkeys(instructions):
        mine = [r for name, r in zip(instructions, rewrites, strict=True) if name == instruction]
        texts = list(dict.fromkeys(mine))
        results = reward(texts, instruction, examples(instruction), step=step)
        graded |= {(instruction, text): result for text, result in zip(texts, results, strict=True)}
    return [graded[key] for key in zip(instructions, rewrites, strict=True)]


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
            **({} if result.estimate is None else {"estimate": result.estimate, "real": result.real}),
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


def clear_sampling_defaults(model: Any) -> None:
    """A model's own top-p or repetition penalty must not leak into generation: log-probs are of the plain softmax."""
    config = model.generation_config
    for name in ("top_p", "top_k", "typical_p", "repetition_penalty", "temperature", "do_sample", "min_p"):
        if hasattr(config, name):
            setattr(config, name, None)


class Clock:
    """Seconds per phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
