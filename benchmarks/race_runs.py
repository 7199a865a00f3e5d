"""What the race of finished runs saved, against a full evaluation of the same candidates on the same dev rows.

    python benchmarks/race_runs.py runs/agnews runs/sst2

Asks the task model for what the race did not (the rest comes from the answer cache, if it is on), and prints per run:
the calls, both winners, and how far the race's winner lies below the full one on all those rows, with its interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.race import select
from prewrite.choosing.stats import paired_bootstrap
from prewrite.run.build import open_evaluator, open_splits
from prewrite.run.config import TrainConfig
from prewrite.run_folder import RunFolder


def main() -> None:
    """Race and full evaluation of each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of strategy S with one instruction")
    given = parser.parse_args()
    print("| run | candidates x rows | calls of the race | of full | same winner | race winner minus full winner |")
    print("| --- | --- | ---: | ---: | --- | --- |")
    for path in given.runs:
        run = RunFolder.open(path)
        config = TrainConfig(**RunFolder.read_json(run.config)["config"])
        rows = list(run.read_rows(run.rewrites))
        selected = [row for row in rows if row["event"] == "selected"][-1]
        fields = ("rewrite", "source", "count")
        named = [row for row in rows if row["event"] == "candidate"]
        first = max(at for at, row in enumerate(named) if row["index"] == 0)  # a resumed choice wrote its rows again
        candidates = [Candidate(*(row[field] for field in fields)) for row in named[first:]]
        dev = list(open_splits(config)[0].dev)
        full = select(
            candidates, open_evaluator(config).score, dev, race=False, max_items=config.race_items or None,
            seed=config.seed,
        )  # fmt: skip
        mine = full.scores[selected["index"], full.raced]
        best = full.scores[full.chosen, full.raced]
        gap = paired_bootstrap(mine, best)
        same = selected["index"] == full.chosen
        shown = "0" if same else f"{100 * gap.mean:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
        share = f"{selected['calls'] / full.full_calls:.0%}"
        size = f"{len(candidates)} x {len(full.raced)}"
        print(
            f"| {path.name} | {size} | {selected['calls']:,} | {share} | {'yes' if same else 'no'} | {shown} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
