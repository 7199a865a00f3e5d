"""What racing saves and what it costs, and whether the reported intervals cover, in worlds with a known truth.

Run: python benchmarks/racing.py [--runs 2000]

A world draws the true scores of 16 candidates around a mean, and right-or-wrong answers on 200 dev and 500 test items
whose difficulty all candidates share. The spread of the first two is estimated, from few items and so roughly, from
rewrites that SmolLM2-135M-Instruct sampled for itself as task model; their correlation is a guess between sensible
rewrites (0.85) and garbled ones (0). The third stands for what a well-trained rewriter leaves to choose from; in the
last all candidates are equal, so that every drop is a drop of the best.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.race import Selection, corrected_estimate, select
from prewrite.choosing.stats import mean_interval, paired_bootstrap
from prewrite.types import RewriteExample

CANDIDATES, DEV, TEST = 16, 200, 500
ERROR = 0.05


@dataclass(frozen=True)
class World:
    """True scores are normal around `mean`, with deviation `spread`; answers share `correlation` of their luck."""

    name: str
    mean: float
    spread: float
    correlation: float


WORLDS = (
    World("agnews", 0.45, 0.145, 0.7),
    World("sst2", 0.65, 0.095, 0.7),
    World("close", 0.75, 0.03, 0.85),
    World("equal", 0.65, 0.0, 0.7),
)


@dataclass
class Tally:
    """Sums over the runs of one world."""

    calls: float = 0.0
    regret_full: float = 0.0
    regret_race: float = 0.0
    dropped: int = 0
    covered: NDArray[np.float64] | None = None
    """Of the test score, the test gain, the corrected score, the corrected gain."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=2_000, help="simulated runs per world (default: 2000)")
    parser.add_argument("--practical-delta", type=float, help="as in prewrite (default: its default)")
    arguments = parser.parse_args()
    settings = {} if arguments.practical_delta is None else {"practical_delta": arguments.practical_delta}
    print(
        f"{arguments.runs} runs per world, {CANDIDATES} candidates, {DEV} dev and {TEST} test items; "
        f"best dropped at most {ERROR:.0%} by design; regret in points; coverage of 95% intervals\n"
    )
    print(
        f"{'world':8} {'spread':>6} {'corr':>5} | {'calls':>6} {'regret':>7} {'(full)':>7} {'dropped':>8} | "
        f"{'test score':>10} {'gain':>6} {'corrected':>10} {'gain':>6}"
    )
    for world in WORLDS:
        tally = simulate(world, arguments.runs, settings)
        runs = arguments.runs
        covered = tally.covered / runs
        regrets = f"{100 * tally.regret_race / runs:7.2f} {100 * tally.regret_full / runs:7.2f}"
        print(
            f"{world.name:8} {100 * world.spread:6.1f} {world.correlation:5.2f} | {tally.calls / runs:6.1%} "
            f"{regrets} {tally.dropped / runs:8.1%} | "
            + " ".join(f"{share:{width}.1%}" for share, width in zip(covered, (10, 6, 10, 6), strict=True)),
            flush=True,
        )


def simulate(world: World, runs: int, settings: dict[str, float]) -> Tally:
    """Race, choose, test and correct in `runs` draws of a world."""
    rng = np.random.default_rng(0)
    field = [Candidate(f"rewrite {i:02}", "initial" if i == 0 else "sample") for i in range(CANDIDATES)]
    rows = [RewriteExample("", str(item), "") for item in range(DEV)]
    tally = Tally(covered=np.zeros(4))
    for run in range(runs):
        truth = np.clip(rng.normal(world.mean, world.spread, CANDIDATES), 0.03, 0.97)
        dev, test = answers(rng, truth, world.correlation, DEV), answers(rng, truth, world.correlation, TEST)
        selection = select(field, lookup(dev), rows, error=ERROR, complete=True, seed=run, **settings)
        best, chosen = int(truth.argmax()), selection.chosen
        tally.calls += selection.calls / selection.full_calls
        tally.regret_race += truth[best] - truth[chosen]
        tally.regret_full += truth[best] - truth[dev.mean(axis=1).argmax()]
        out = {row["index"] for row in selection.rows if row["event"] == "eliminated"}
        tally.dropped += best in out
        tally.covered += coverage(selection, truth, test, run)
        if sys.stderr.isatty():
            print(f"\r{world.name} {run + 1}/{runs} ", end="", file=sys.stderr)
    return tally


def answers(
    rng: np.random.Generator, truth: NDArray[np.float64], correlation: float, items: int
) -> NDArray[np.float64]:
    """Right-or-wrong scores (candidate, item): a candidate is right where shared and own luck stay below its skill."""
    luck = np.sqrt(correlation) * rng.normal(size=items)
    luck = luck + np.sqrt(1 - correlation) * rng.normal(size=(len(truth), items))
    return (ndtr(luck) < truth[:, None]).astype(np.float64)


def lookup(scores: NDArray[np.float64]):
    """A scorer that reads a table: rewrites carry their row, examples their column."""

    def score(rewrites, examples):
        return scores[np.ix_([int(r.split()[1]) for r in rewrites], [int(e.input) for e in examples])]

    return score


def coverage(selection: Selection, truth: NDArray[np.float64], test: NDArray[np.float64], seed: int) -> list[bool]:
    """Whether each reported interval holds the truth about the chosen candidate."""
    chosen = selection.chosen
    score, gain = truth[chosen], truth[chosen] - truth[0]
    on_test = mean_interval(test[chosen])
    corrected = corrected_estimate(selection, seed=seed)
    if chosen == 0:
        test_gain = corrected_gain = True  # nothing is claimed
    else:
        difference = paired_bootstrap(test[chosen], test[0], resamples=2_000, seed=seed)
        test_gain = difference.low <= gain <= difference.high
        corrected_gain = corrected.gain_low <= gain <= corrected.gain_high
    return [on_test.low <= score <= on_test.high, test_gain, corrected.low <= score <= corrected.high, corrected_gain]


if __name__ == "__main__":
    main()
