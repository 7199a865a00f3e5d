"""Installs a wheel without extras into an empty environment, and uses it from an empty folder.

    python tests/try_wheel.py dist/prewrite-0.1.0-py3-none-any.whl

`make test-wheel` builds the wheel and runs this. What it shows: the package starts, knows its version, reads its
built-in data, and needs neither torch nor what comes with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = """
import importlib.util, prewrite
assert not [name for name in ("torch", "transformers", "trl", "peft") if importlib.util.find_spec(name)]
splits = prewrite.load_splits("demo")
assert "site-packages" in prewrite.__file__, prewrite.__file__
model = prewrite.ScriptedTaskModel(lambda prompt: "billing")
rows = list(splits.dev)[:20]
print(f"{len(splits.train)} training rows, {prewrite.Evaluator(model).metric_of(rows[0])}")
"""
MISSING = "pip install 'prewrite[train]'"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory() as folder:
        check(wheel, Path(folder))
    print(f"{wheel.name} works without extras")


def check(wheel: Path, folder: Path) -> None:
    """Raises `SystemExit` or `CalledProcessError` at the first thing that does not hold."""
    empty = folder / "empty"
    empty.mkdir()
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PREWRITE"))}

    def run(*words: str, code: int = 0) -> str:
        command = [str(programs / words[0]), *words[1:]]
        done = subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
        if done.returncode != code:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
        print(f"$ {' '.join(words)[:70].splitlines()[0]}\n  {''.join(last)}")
        return done.stdout + done.stderr

    run("python", "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    version = wheel.name.split("-")[1]
    if version not in run("prewrite", "--version"):
        raise SystemExit(f"--version does not tell {version}")
    run("prewrite", "--help")
    run("prewrite", "train", "--help-all")
    run("prewrite", "doctor")
    run("python", "-c", WITHOUT_TORCH)
    if MISSING not in (told := run("prewrite", "train", "--data", "demo", code=2)) or "Traceback" in told:
        raise SystemExit(f"training without torch does not tell how to get it:\n{told}")
    if list(empty.iterdir()):
        raise SystemExit(f"files were left: {list(empty.iterdir())}")


if __name__ == "__main__":
    sys.exit(main())
