"""What others get of a run: a folder or repository that works, with a card that tells the result as it is."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from prewrite.cli.main import main
from prewrite.report.card import model_card
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import Exemplar, TaskPrompt, load_prompt
from run_fixture import make_run
from servers.hub_server import TOKEN, HubServer

LEFT_OUT = [{"input": "my secret row", "at": "/home/someone/rows.jsonl:7", "reason": "refused"}]
SIZES = (("train", 180), ("dev", 60), ("test", 60))


def head_of(card):
    return yaml.safe_load(card.split("---")[1])


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The card of a run with a baseline, whose settings name folders and addresses of one machine."""
    folder = make_run(tmp_path_factory.mktemp("card") / "first", updates=4)
    run = RunFolder(folder)
    settings = run.read_json(run.config)
    settings["config"] |= {"base_model": "embedded", "dataset": ["/home/someone/rows.jsonl"]}
    settings["argv"] = ["train", "--data", "/home/someone/rows.jsonl"]
    run.write_json(run.config, settings)
    run.write_json(run.splits, {name: {"count": n, "source": "/home/someone/rows.jsonl"} for name, n in SIZES})
    result = run.read_json(run.result)
    run.write_json(run.result, result | {"task_model": "openai:m@http://10.0.0.7:8000/v1", "left_out": LEFT_OUT})
    run.rewriter.mkdir()
    (run.rewriter / "adapter").mkdir()
    run.write_json(run.rewriter / "rewriter.json", {"base_model": "embedded"})
    TaskPrompt(result["rewrite"]).save(run.prompt)
    return model_card(folder), result, folder


def test_the_card_tells_the_verdict_the_rows_and_the_interval_as_the_run_has_them(told):
    card, result, _ = told
    assert f"**{result['verdict']}**".replace("-", "\\-") in card or result["verdict"] in card.replace("\\", "")
    assert "Points on 300 test rows" in card and "95% interval" in card
    assert "**Control:** none was run" in card and "\nrows.jsonl: 180 train, 60 dev, 60 test rows." in card


def test_the_card_names_nothing_of_the_machine(told):
    card, _, _ = told
    assert "/home/someone" not in card and "10.0.0.7" not in card and "openai:m" in card
    assert "secret" not in card and "1 rows got no answer" in card


def test_the_card_has_the_head_that_the_hub_reads_and_the_licence_where_it_is_known(told):
    card, _, folder = told
    assert head_of(card) == {
        "tags": ["prewrite", "prompt-optimization"],
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "license": "apache-2.0",
    }
    run = RunFolder(folder)
    settings = run.read_json(run.config)
    other = settings | {"config": settings["config"] | {"base_model": "someone/large: model"}}
    run.write_json(run.config, other)
    card = model_card(folder)
    run.write_json(run.config, settings)
    assert head_of(card)["base_model"] == "someone/large: model" and "license" not in head_of(card)
    assert re.search(r"licence of the base model .* is not known", card)


def test_a_control_that_gained_as_much_is_told(told):
    _, result, folder = told
    run = RunFolder(folder)
    test = result["test"]
    control = "best of samples before RL"
    test["instructions"][control] = test["instructions"]["untrained greedy"]
    test["gains_over"][control] = test["gains_over"]["untrained greedy"] | {
        "mean": 0.004, "low": -0.03, "high": 0.035, "significant": False,
    }  # fmt: skip
    run.write_json(run.result, result)
    assert "no significant gain: +0.4 points over it, interval -3.0 to +3.5" in model_card(folder)


def test_the_gain_of_a_whole_prompt_is_not_called_the_rewriters(told, tmp_path):
    _, _, folder = told
    run = RunFolder(shutil.copytree(folder, tmp_path / "run"))
    result = run.read_json(run.result)
    test = result["test"]
    test["instructions"]["trained greedy"] = test["instructions"]["untrained greedy"]
    test["differences"]["trained greedy"] = test["differences"]["untrained greedy"] | {
        "mean": -0.018, "low": -0.051, "high": 0.009, "significant": False,
    }  # fmt: skip
    search = {"calls": 173, "rows": 24, "candidates": 15, "wordings": 1, "waterfall": []}
    prompt = TaskPrompt(result["instruction"], exemplars=(Exemplar("a", "b"),)).to_json()
    run.write_json(run.result, result | {"search": search, "prompt": prompt, "rewrite": result["instruction"]})
    card = model_card(run.path)
    assert "that of the whole prompt, which holds none of the rewriter's wordings" in card
    assert "alone:** no significant gain: -1.8 points over the initial prompt, interval -5.1 to +0.9." in card


def test_a_saved_run_rewrites_as_the_run_does(run, tmp_path, capsys):
    from prewrite.rewriter.rewriter import Rewriter

    folder = tmp_path / "shared"
    assert main(["save", str(run), str(folder)]) == 0
    assert "is a folder of this machine" in capsys.readouterr().err
    assert {"README.md", "rewriter.json", "prompt.json"} <= {file.name for file in folder.iterdir()}
    saved, original = Rewriter.from_pretrained(folder), Rewriter.load(run)
    assert saved.rewrite("solve the task", num_candidates=4) == original.rewrite("solve the task", num_candidates=4)
    assert load_prompt(folder) == load_prompt(run)


def test_rewrite_gives_different_texts_the_likeliest_first(run):
    from prewrite.errors import ConfigError
    from prewrite.rewriter.rewriter import Rewriter

    rewriter = Rewriter.load(run)
    found = rewriter.rewrite("solve the task", num_candidates=8)
    assert found[0] == rewriter.greedy("solve the task") and len(set(found)) == len(found) > 1
    assert rewriter.rewrite("solve the task") == found[:1]
    for text, count in (("", 1), ("solve", 0)):
        with pytest.raises(ConfigError, match="give a text, and a count of at least 1"):
            rewriter.rewrite(text, num_candidates=count)


def test_rewrite_takes_a_file_of_instructions(run, tmp_path, capsys):
    (tmp_path / "instructions.txt").write_text("solve the task\n\n solve it now \n", encoding="utf-8")
    flags = ["rewrite", "--model-dir", str(run), "--strategy", "I", "--fidelity-model", "none", "--guards", "none"]
    assert main([*flags, "--file", str(tmp_path / "instructions.txt"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["instruction"] for row in rows] == ["solve the task", "solve it now"]
    assert main([*flags, "--file", str(tmp_path / "missing.txt")]) == 2
    assert "missing.txt' cannot be read as UTF-8 text (No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["save", "missing", "out"], "'missing' is not a run folder"),
        (["save", "RUN", "taken"], "'taken' is there already; give a folder that is not"),
    ],
)
def test_what_cannot_be_saved_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    assert main([str(run) if word == "RUN" else word for word in words]) == 2
    assert told in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_a_run_that_has_not_ended_has_no_card(run_copy, tmp_path, capsys):
    (run_copy / "result.json").unlink()
    assert main(["save", str(run_copy), str(tmp_path / "out")]) == 2
    assert "result.json is missing; was the run stopped before it wrote it?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


LOAD = """
import sys
from prewrite.rewriter.rewriter import Rewriter
print(Rewriter.from_pretrained(sys.argv[1]).rewrite("solve the task")[0])
"""


@pytest.fixture
def process(tmp_path):
    """Runs Python with a hub of this test; (exit code, output, errors)."""

    def start(hub, *words, **variables):
        env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run([sys.executable, *words], env=env | variables, capture_output=True, text=True)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return start


@pytest.mark.slow
def test_a_pushed_run_is_private_and_comes_back_from_the_hub(run, process):
    with HubServer("someone/first", {}) as hub:
        code, out, err = process(hub, "-m", "prewrite", "push", str(run), "someone/first", HF_TOKEN=TOKEN)
        assert (code, out) == (0, f"{hub.url}/someone/first"), err
        assert "is a folder of this machine" in err and TOKEN not in err
        assert hub.made[0]["private"] is True and hub.made[0]["name"] == "first"
        assert {"README.md", "rewriter.json", "prompt.json"} <= set(hub.files)
        assert head_of(hub.files["README.md"].decode())["tags"][0] == "prewrite"
        code, out, err = process(hub, "-c", LOAD, "someone/first")
        assert (code, out) == (0, rewritten(run)), err


def rewritten(run):
    from prewrite.rewriter.rewriter import Rewriter

    return Rewriter.load(run).rewrite("solve the task")[0]


@pytest.mark.slow
def test_what_the_hub_refuses_and_a_hub_out_of_reach_are_one_line_with_a_remedy(run, process):
    with HubServer("someone/first", {}) as hub:
        code, _, err = process(hub, "-m", "prewrite", "push", str(run), "someone/first", HF_TOKEN="hf_wrong")
        assert code == 2 and "the hub did not take 'someone/first'" in err and "hf auth login" in err
        assert "Traceback" not in err and hub.files == {} and "hf_wrong" not in err
        hub.refuse()
        code, _, err = process(hub, "-m", "prewrite", "push", str(run), "someone/first", HF_TOKEN=TOKEN)
        assert code == 2 and "the hub cannot be reached" in err and "`prewrite save " in err
        assert "hf upload someone/first FOLDER" in err and "Traceback" not in err


def test_a_search_is_saved_as_its_prompt_alone(told, tmp_path):
    _, _, folder = told
    copy = shutil.copytree(folder, tmp_path / "search")
    shutil.rmtree(copy / "rewriter")
    assert main(["save", str(copy), str(tmp_path / "out")]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["README.md", "prompt.json"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "load_prompt" in card and "Control" not in card and "license" not in head_of(card)


def test_rows_in_the_prompt_are_named_before_they_are_shared(told, tmp_path, capsys):
    _, _, folder = told
    run = RunFolder(shutil.copytree(folder, tmp_path / "run"))
    prompt = TaskPrompt("Sort it.", exemplars=(Exemplar("a", "b"), Exemplar("c", "d")))
    prompt.save(run.prompt)
    run.write_json(run.result, run.read_json(run.result) | {"prompt": prompt.to_json()})
    assert main(["save", str(run.path), str(tmp_path / "out")]) == 0
    assert "prompt.json shows 2 rows of the training data" in capsys.readouterr().err
    assert "shows 2 of the train rows" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
