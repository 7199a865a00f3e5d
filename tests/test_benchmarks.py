"""Every benchmark runs to its end on a small part of its work, and takes the flags that the documentation gives it."""

import argparse
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from prewrite.data import load_splits
from prewrite.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
DATA = ROOT.parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(not (DATA / "sst2").is_dir(), reason=f"needs the data set sst2 in {DATA}")
# Small enough for a test; the figure that each prints about so little work means nothing.
RUNS = [
    pytest.param("fidelity.py --pairs 3", "AUC against honest", id="fidelity"),
    pytest.param("group_step.py --algorithm rloo --updates 1 --dry", "x CPU", id="group_step"),
    pytest.param("learning_curves.py --seeds 2", "Mean distance", id="learning_curves"),
    pytest.param("open_requests.py --open 8 --per-slot 4 --delay 0.01", "lost", id="open_requests"),
    pytest.param("ppo_levers.py --updates 1 --dry --levers 'shared prompt'", "without shared prompt",
                 id="ppo_levers"),
    pytest.param("ppo_step.py --parts stock-lora ours --updates 1 --dry", "stock-lora / ours", id="ppo_step"),
    pytest.param("racing.py --runs 5", "coverage", id="racing"),
    pytest.param("read_dataset.py --rows 2000", "rows/s", id="read_dataset"),
    pytest.param("task_models.py --cache 2000", "looked up", id="task_models: cache"),
    pytest.param("task_models.py --rows 4 --rounds 1 --engines 'hf fp32'", "hf fp32", marks=NEEDS_DATA,
                 id="task_models: speed"),
]  # fmt: skip


def run_benchmark(command: str) -> str:
    """What a benchmark prints; it must end well."""
    program, *flags = shlex.split(command)
    ended = subprocess.run([sys.executable, str(BENCHMARKS / program), *flags], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("command", "printed"), RUNS)
def test_a_benchmark_runs_to_its_end(command, printed):
    assert printed in run_benchmark(command)


@pytest.mark.slow
def test_searches_are_simulated_on_label_scores_that_offsets_are_measured_on_too(tmp_path):
    few = "--datasets demo --prompts 5 --dev-rows 40 --test-rows 40 --calls 100 --searches 2"
    printed = run_benchmark(f"halving.py {few} --output {shlex.quote(str(tmp_path))}")
    assert re.search(r"^\| demo \| 100 \| race \| \d+ \| \d", printed, re.MULTILINE)
    printed = run_benchmark(f"offsets.py {shlex.quote(str(tmp_path / 'demo.npz'))} --rows 15 --draws 2")
    assert len(re.findall(r"^\| demo \| .* \| 15 \|(?: [01]\.\d{3} \|){9}$", printed, re.MULTILINE)) == 2


@pytest.mark.slow
def test_the_study_of_the_whole_prompt_goes_on_where_it_stopped(tmp_path):
    output = shlex.quote(str(tmp_path / "cells.jsonl"))
    command = f"whole_prompt.py --datasets demo --seeds 0 --calls 60 --test-rows 6 --output {output}"
    printed = run_benchmark(command)
    assert len(re.findall(r"^\| demo \| 60 \| [01] \|(?: [01]\.\d{3} \|){7}", printed, re.MULTILINE)) == 2
    assert run_benchmark(command) == printed and len((tmp_path / "cells.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_study_fills_its_table_and_its_runs_can_be_raced_again(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("study")
    tiny = ["--max_steps", "1", "--rewrites_per_step", "2", "--examples_per_rewrite", "2", "--dev_examples", "4",
            "--race_items", "6", "--test_examples", "4", "--num_candidates", "2"]  # fmt: skip
    given, conditions = Namespace(data=tmp_path, output=tmp_path), {"tiny": tiny}
    cells = [("demo", "tiny", 0), ("demo", "tiny", 1)]  # the second has not been run: the table leaves it out
    study.run_cell(given, "demo", tiny, 0)
    study.print_rows(given, cells, conditions)
    study.print_means(given, cells, conditions)
    study.print_calibrated(given, cells, conditions)
    printed = capsys.readouterr().out
    assert re.search(r"\| demo \| tiny \| 1 \| [01]\.\d{3} \| [+-]?\d", printed)
    result = json.loads((study.folder_of(given, "demo", tiny, 0) / "result.json").read_text())
    assert " ".join(result["rewrite"].split()).replace("|", "\\|") in printed
    assert "| demo | tiny | 1 |" in printed
    folder = study.folder_of(given, "demo", tiny, 0)
    control = study.CONTROL
    control_run = RunFolder(study.folder_of(given, "demo", [control], 0))
    shutil.copytree(folder, control_run.path)
    rollouts = list(control_run.read_rows(control_run.rollouts))
    control_run.rollouts.unlink()
    for row in rollouts:
        worse = {"reward": row["reward"] - 0.25, "parts": row["parts"] | {"task": row["parts"]["task"] - 0.125}}
        control_run.append(control_run.rollouts, [row | worse])
    study.print_learning(given, [*cells, ("demo", control, 0)], conditions | {control: [control]})
    assert re.search(r"\| demo \| tiny \| 1 \| \+0\.250 \(.* \| \+0\.125 \(", capsys.readouterr().out)
    assert f"| {folder.name} |" in run_benchmark(f"race_runs.py {shlex.quote(str(folder))}")
    printed = run_benchmark(f"strategy_i.py {shlex.quote(str(folder))}")
    accuracy = result["test"]["instructions"]["initial"]["mean"]
    assert f"| demo | PPO | 1 | {accuracy:.3f} |" in printed  # on the very rows that the run was tested on
    assert f"| {folder.name} | {' '.join(rewrite_before(folder).split())} |" in printed


def rewrite_before(folder: Path) -> str:
    """The greedy rewrite that the run evaluated before its first update."""
    rows = map(json.loads, (folder / "rewrites.jsonl").read_text().splitlines())
    return next(row["rewrite"] for row in rows if row["event"] == "dev_eval")


@pytest.mark.slow
def test_transfer_measures_tasks_that_were_not_trained_on(tmp_path):
    words = {"colour": ("red", "blue"), "size": ("big", "small"), "taste": ("sweet", "sour")}
    for name, labels in words.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for split in ("train", "dev", "test"):
            rows = [
                {"instruction": f"Name the {name}.", "input": f"{split} thing {at}", "output": labels[at % 2]}
                for at in range(6)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    printed = run_benchmark(
        f"transfer.py --data {shlex.quote(str(tmp_path / 'data'))} --held-out taste --max-steps 1 --test-rows 4"
        f" --instructions-per-step 2 --output {shlex.quote(str(tmp_path / 'run'))}"
    )
    assert "Trained on 2 data sets (colour, size)" in printed
    assert re.search(r"^\| taste \| 4 \|", printed, re.MULTILINE)


def documented():
    """(script, flags) of every benchmark command in the documentation, in code blocks and in sentences."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r"(?:^|`)python (benchmarks/[^`\n]+)", text, re.MULTILINE):
            words = shlex.split(command, comments=True)
            yield pytest.param(words[0], words[1:], id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize(("script", "flags"), list(documented()))
def test_a_documented_benchmark_takes_its_flags(script, flags, monkeypatch):
    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *args, **settings):
        parse(parser, *args, **settings)  # exits on a flag that is not there
        raise ParsedError

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [script, *(flag for flag in flags if flag != "...")])
    if "--help" in flags:
        return
    with pytest.raises(ParsedError):
        importlib.import_module(Path(script).stem).main()


def test_the_table_of_learning_draws_sets_seeds_and_rows(tmp_path):
    file = tmp_path / "learning.jsonl"
    arms = {"initial": [0, 0], "without wording": [1, 0], "untrained": [1, 0], "trained": [1, 1]}
    cells = [{"data": name, "seed": 0, "calls": 9, "prompts": {}, "scores": arms} for name in ("sst2", "demo")]
    file.write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    printed = run_benchmark(f"learning.py --table --output {shlex.quote(str(file))}")
    assert "| SST-2 | 0 | 0.000 | 0.500 | 0.500 | 1.000 | +50.0 |" in printed
    assert "- untrained less without wording: 0.0 (0.0 to 0.0)" in printed
    found = re.search(r"- trained less untrained: \+50\.0 \((\S+) to (\S+)\)", printed)
    assert 0 <= float(found[1]) < 50 < float(found[2]) <= 100  # which of the two rows are drawn decides


@pytest.fixture(scope="module")
def many_tasks(tmp_path_factory):
    """A folder of many tasks with few rows each, and what was printed."""
    folder = tmp_path_factory.mktemp("many_tasks")
    return folder, run_benchmark(f"many_tasks.py --rows 12 --output {shlex.quote(str(folder))}")


def rows_by_instruction(*folders):
    """Instruction to its rows of all splits, each with the name of its split."""
    found = {}
    for folder in folders:
        for split in ("train", "dev", "test"):
            for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                found.setdefault(row["instruction"], []).append(row | {"split": split})
    return found


def test_many_tasks_are_many_and_whole_families_of_them_are_unseen(many_tasks):
    folder, printed = many_tasks
    seen, unseen = rows_by_instruction(folder / "seen"), rows_by_instruction(*(folder / "unseen").iterdir())
    counts = dict(re.findall(r"^(\w+: \d+) tasks of (\d+) families$", printed, re.MULTILINE))
    assert list(counts) == [f"seen: {len(seen)}", f"unseen: {len(unseen)}"]
    assert len(seen) >= 200 and len(unseen) >= 24 and len(list((folder / "unseen").iterdir())) == len(unseen)
    assert int(counts[f"seen: {len(seen)}"]) >= 40 and int(counts[f"unseen: {len(unseen)}"]) >= 12
    assert not seen.keys() & unseen.keys()
    texts = [{row["input"] for rows in part.values() for row in rows} for part in (seen, unseen)]
    assert not texts[0] & texts[1]


def test_rows_of_many_tasks_are_balanced_and_no_text_is_there_twice(many_tasks):
    folder, _ = many_tasks
    for kind, sizes in (("seen", (8, 2, 2)), ("unseen", (8, 12, 24))):
        folders = [folder / "seen"] if kind == "seen" else sorted((folder / "unseen").iterdir())
        for instruction, rows in rows_by_instruction(*folders).items():
            assert [sum(row["split"] == split for row in rows) for split in ("train", "dev", "test")] == list(sizes)
            assert len({" ".join(row["input"].casefold().split()) for row in rows}) == len(rows), instruction
            counts = [sum(row["output"] == label for row in rows) for label in rows[0]["choices"]]
            assert len(counts) > 1 and sum(counts) == len(rows) and max(counts) - min(counts) <= 1, instruction


def test_many_tasks_are_read_as_data_sets_and_depend_on_the_seed_alone(many_tasks, tmp_path):
    folder, _ = many_tasks
    splits = load_splits(folder / "seen")
    assert not any(splits.dropped.values())
    for name, more in (("again", ""), ("other", "--seed 1")):
        run_benchmark(f"many_tasks.py --rows 12 {more} --output {shlex.quote(str(tmp_path / name))}")
    train = [(at / "seen" / "train.jsonl").read_text() for at in (folder, tmp_path / "again", tmp_path / "other")]
    assert train[0] == train[1] != train[2]
