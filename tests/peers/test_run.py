"""A benchmark runs cell by cell, goes on where it stopped, and asks the real tools where their environments are."""

import json

import pytest
from benchmarks.peers import run
from benchmarks.peers.arms import ARMS, environments, python_of
from benchmarks.peers.endpoint import Endpoint
from benchmarks.peers.speaker import FRAMES

from peers.scripted import ScriptedSpeaker
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import Exemplar, TaskPrompt
from prewrite.task_models.scripted import ScriptedTaskModel


@pytest.fixture
def data(tmp_path):
    """A data set in whose train rows an input repeats."""
    folder = tmp_path / "data" / "moods"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("dev", 24), ("test", 16)):
        start = {"train": 0, "dev": 100, "test": 200}[split]
        rows = [
            {
                "instruction": "Say what the mood is.",
                "input": f"thing {start + at} is {('bad', 'good')[at % 2]}",
                "output": ("negative", "positive")[at % 2],
                "choices": ["negative", "positive"],
            }
            for at in range(count)
        ]
        rows += rows[:1] if split == "train" else []
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


def command(data, output, arms, *more):
    sizes = ["--train-rows", "12", "--dev-rows", "16", "--budgets", "120", "--seeds", "0", "--datasets", "moods"]
    return ["--data", str(data), "--output", str(output), "--arms", arms, *sizes, *more]


def test_it_goes_on_where_it_stopped_and_counts_what_a_search_asked(data, tmp_path, capsys):
    output = tmp_path / "cells.jsonl"
    for arms in ("initial", "initial,exemplars", "initial,exemplars"):
        run.main(command(data, output, arms), open_model=ScriptedSpeaker)
        printed = capsys.readouterr().out
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    assert [cell["arm"] for cell in cells] == ["initial", "exemplars"]
    initial, found = cells
    assert sum(initial["scores"]) == 0 and initial["calls"] == 0 and not initial["changed"]
    assert sum(found["scores"]) == 16 and found["changed"] and sum(found["start_scores"]) == 0
    assert 0 < found["calls"] <= 120 and found["calls"] == found["asked"]["task"]["calls"]
    assert "| prewrite, exemplars only | 1.000 (" in printed and "### Chat template, 120 task calls" in printed
    picture = tmp_path / "plot.svg"
    run.main(command(data, output, "capo", "--table", "--plot", str(picture)))
    assert capsys.readouterr().out == printed and picture.read_text().startswith("<svg")


def test_another_frame_is_another_cell_and_sends_the_text_of_the_messages_alone(data, tmp_path, capsys):
    output, log = tmp_path / "cells.jsonl", tmp_path / "calls.jsonl"
    for frame, arms in (("chat", "initial"), ("bare", "initial,exemplars")):
        run.main(command(data, output, arms, "--frame", frame, "--log", str(log)), open_model=ScriptedSpeaker)
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(cell["frame"], cell["arm"]) for cell in cells] == [
        ("chat", "initial"), ("bare", "initial"), ("bare", "exemplars")
    ]  # fmt: skip
    # Without a word on who speaks there are no turns: all that is asked is one message.
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(asked) >= cells[2]["calls"] > 0 and {len(call["messages"]) for call in asked} == {1}
    assert sum(cells[2]["scores"]) == 16
    assert "### Bare text, 120 task calls" in capsys.readouterr().out


def test_rows_are_drawn_by_the_seed_without_repeats_and_test_rows_stay(data, tmp_path):
    class Given:
        train_rows, dev_rows, test_rows = 12, 16, 8

    Given.data = data
    one, again, other = (run.drawn(Given, "moods", seed) for seed in (0, 0, 1))
    assert one == again and one.dev != other.dev and one.test == other.test
    inputs = [row.input for part in (one.train, one.dev, one.test) for row in part]
    assert len(set(inputs)) == len(inputs) == 12 + 16 + 8


def test_a_prompt_is_measured_as_the_evaluator_measures_it(data):
    class Given:
        train_rows, dev_rows, test_rows = 12, 16, 16

    Given.data = data
    rows, speaker = run.drawn(Given, "moods", 0), ScriptedSpeaker()
    prompt = TaskPrompt(rows.instruction, exemplars=(Exemplar("thing 7 is bad", "negative"),))
    job = run.Job(rows.instruction, rows.test[0].choices, "classification", (), (), "", 1, 0)
    from benchmarks.peers.ours import messages

    evaluator = Evaluator(ScriptedTaskModel(speaker.label), decoding="generate")
    found = run.measured(speaker, job, messages(prompt), rows.test)
    assert found == evaluator.score([prompt], rows.test)[0].tolist()
    assert run.measured(speaker, job, messages(prompt), rows.test, end="pos") == [
        score * (row.output == "negative") for score, row in zip(found, rows.test, strict=True)
    ]
    too_long = messages(TaskPrompt("word " * 600))
    assert run.measured(speaker, job, too_long, rows.test) == [0.0] * 16


def test_an_unknown_arm_is_refused_and_one_without_its_environment_is_named(data, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run.main(command(data, tmp_path / "cells.jsonl", "capi"))
    assert "arm 'capi' is unknown; choose from initial, exemplars" in capsys.readouterr().err
    monkeypatch.setattr(run, "python_of", lambda name: tmp_path / name / "python")
    run.main(command(data, tmp_path / "cells.jsonl", "capo"), open_model=ScriptedSpeaker)
    assert "make bench-peers-setup makes it" in capsys.readouterr().err
    assert not (tmp_path / "cells.jsonl").exists()


def test_every_peer_has_its_requirements():
    assert set(environments()) == {arm.environment for arm in ARMS.values() if arm.environment}


@pytest.mark.slow
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if not arm.ours])
def test_a_peer_takes_a_job_and_gives_a_prompt(name, frame, data, tmp_path):
    arm = ARMS[name]
    if not python_of(arm.environment).exists():
        pytest.skip(f"needs {python_of(arm.environment)}; make bench-peers-setup makes it")

    class Given:
        train_rows, dev_rows, test_rows = 12, 16, 4

    Given.data = data
    rows, log = run.drawn(Given, "moods", 0), tmp_path / "log.txt"
    with Endpoint(ScriptedSpeaker(), frame=frame).serve() as endpoint:
        cell = run.run_cell(endpoint, arm, rows, 200, 0, log=log)
    assert cell["crash"] == "", log.read_text()[-3000:]
    assert 16 <= cell["calls"] <= 250 and len(cell["scores"]) == 4
    assert any(len(message["texts"]) > 1 for message in cell["messages"])
    assert frame == "chat" or cell["messages"][-1]["texts"][-1].endswith(("Output:", "[[ ## answer ## ]]"))
