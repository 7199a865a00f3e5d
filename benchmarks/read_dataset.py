"""How fast rows are read, how much memory that takes, and what splitting and iterating cost after it.

Run: python benchmarks/read_dataset.py [--rows 1000000]

Each format is read in a process of its own, so that its peak memory is its own. Rows are generated here: a sentence of
10 to 60 words, four labels, one instruction. The aim is one million rows in under 60 s and 1.5 GB. On a busy machine
the CPU seconds of reading tell more than the others.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = ("order", "parcel", "arrived", "late", "broken", "refund", "please", "invoice", "password", "again", "über")
LABELS = ("billing", "delivery", "account", "other")
INSTRUCTION = "Decide which team this message belongs to."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to generate (default: 1000000)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the child process: read this file
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"generating {arguments.rows:,} rows", file=sys.stderr)
        files = generate(Path(folder), arguments.rows)
        print(
            f"{'format':8} {'MB':>6} {'read s':>8} {'CPU s':>6} {'rows/s':>9} "
            f"{'split s':>8} {'iterate s':>9} {'peak RSS MB':>12}"
        )
        for file in files:
            child = [sys.executable, __file__, "--measure", str(file)]
            figures = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
            print(
                f"{file.suffix[1:]:8} {file.stat().st_size / 1e6:6.0f} "
                f"{figures['read']:8.1f} {figures['read_cpu']:6.1f} "
                f"{arguments.rows / figures['read']:9,.0f} {figures['split']:8.1f} {figures['iterate']:9.1f} "
                f"{figures['peak_mb']:12,.0f}"
            )


def generate(folder: Path, rows: int) -> list[Path]:
    """The same rows as JSONL and as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(0)
    jsonl, parquet = folder / "rows.jsonl", folder / "rows.parquet"
    schema = pa.schema([(name, pa.string()) for name in ("instruction", "input", "output", "task")])
    with jsonl.open("w", encoding="utf-8") as file, pq.ParquetWriter(parquet, schema) as writer:
        for start in range(0, rows, 50_000):
            batch = [
                {
                    "instruction": INSTRUCTION,
                    "input": f"{number}: {' '.join(draw.choices(WORDS, k=draw.randint(10, 60)))}",
                    "output": draw.choice(LABELS),
                    "task": "classification",
                }
                for number in range(start, min(start + 50_000, rows))
            ]
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch)
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return [jsonl, parquet]


def measure(path: Path) -> dict[str, float]:
    """Seconds for reading (also of CPU), splitting and iterating once, and this process's peak memory in MB."""
    import resource

    from prewrite.data import PRewriteDataset

    figures = {}
    start, start_cpu = time.perf_counter(), time.process_time()
    dataset = PRewriteDataset.load(path)
    figures["read"], figures["read_cpu"] = time.perf_counter() - start, time.process_time() - start_cpu
    start = time.perf_counter()
    splits = dataset.split()
    figures["split"] = time.perf_counter() - start
    start = time.perf_counter()
    count = sum(1 for part in splits for _ in part)
    figures["iterate"] = time.perf_counter() - start
    assert count == len(dataset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["peak_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3)  # macOS counts bytes, Linux KiB
    return figures


if __name__ == "__main__":
    main()
