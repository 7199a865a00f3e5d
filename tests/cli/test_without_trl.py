"""Writing a rewrite needs torch, transformers and peft, and no TRL."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
BLOCKED = "import sys; sys.modules['trl'] = None\n"


def python(code):
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)


def test_the_rewriter_of_the_package_loads_and_writes(run):
    done = python(f"from prewrite import Rewriter\nprint(repr(Rewriter.load({str(run)!r}).greedy('solve the task')))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("'")


@pytest.mark.parametrize("strategy", ["I", "S"])
def test_the_command_writes_by_both_strategies(run, toy, strategy):
    flags = ["rewrite", "--model-dir", str(run), "--instruction", "solve the task", "--strategy", strategy, "--json"]
    flags += ["--data", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}", "--no-cache"]
    flags += ["--fidelity-model", str(toy / "model")]
    done = python(f"from prewrite.cli.main import main\nsys.exit(main({flags!r}))")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["strategy"] == strategy


def test_training_says_what_to_install(toy):
    done = python(
        f"from prewrite.cli.main import main\nsys.exit(main(['train', '--data', {str(toy / 'rows.jsonl')!r}]))"
    )
    assert done.returncode == 2
    assert "trl is not installed; `pip install 'prewrite[train]'`" in done.stderr
