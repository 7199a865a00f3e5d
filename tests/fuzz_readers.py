"""Coverage-guided fuzzing of everything that reads a file of the user's: data, settings, prompts, prices, inputs.

    pip install atheris      # Linux; in no extra, since nothing else needs it
    python tests/fuzz_readers.py -max_total_time=600

Whatever is raised but the errors of the package ends the run and is kept as a file `crash-...`; it becomes a case in
`tests/bad_inputs` or an example in `tests/test_properties.py`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["prewrite", "yaml", "json", "csv"]):
    from prewrite.cli.ask import read_inputs
    from prewrite.cli.options import read_yaml
    from prewrite.data import PRewriteDataset
    from prewrite.data.readers import READERS
    from prewrite.errors import PrewriteError
    from prewrite.report.read import read_run
    from prewrite.scoring.prompt import load_prompt
    from prewrite.task_models.budget import Price

SUFFIXES = [suffix for suffix in READERS if suffix != ".parquet"]  # that is Arrow's own to fuzz
RUN_FILES = ("config.json", "result.json", "metrics.jsonl", "rollouts.jsonl", "rewrites.jsonl", "items.jsonl")


def read_all(content: bytes) -> None:
    """Give the bytes to one reader, which the first of them chooses."""
    choice, content = (content[0], content[1:]) if content else (0, b"")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(PrewriteError):
        file = Path(folder) / "given"
        kind = choice % (len(SUFFIXES) + len(RUN_FILES) + 4)
        if kind < len(SUFFIXES):
            file = file.with_suffix(SUFFIXES[kind])
            file.write_bytes(content)
            list(PRewriteDataset.load(file, instruction="I", skip_bad_rows=True))
        elif kind < len(SUFFIXES) + len(RUN_FILES):
            (Path(folder) / "config.json").write_text('{"config": {}}')
            (Path(folder) / RUN_FILES[kind - len(SUFFIXES)]).write_bytes(content)
            read_run(folder)
        else:
            file.write_bytes(content)
            readers = (
                load_prompt,
                read_yaml,
                lambda path: Price.load(path, "m"),
                lambda path: list(read_inputs(path)),
            )
            readers[kind - len(SUFFIXES) - len(RUN_FILES)](file)


if __name__ == "__main__":
    atheris.Setup(sys.argv, read_all)
    atheris.Fuzz()
