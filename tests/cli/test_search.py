"""`prewrite search` writes a prompt.json that `prewrite ask` answers with; bad input is one line and exit code 2."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from prewrite.cli.main import main
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import Exemplar, TaskPrompt, load_prompt
from prewrite.task_models.hf import HFTaskModel
from servers.http_server import HTTPServer
from servers.openai_server import OpenAIApp
from toy_cli import ROWS

WITHOUT_TORCH = """import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "peft", "trl"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())"""


def flags(toy, output, *more):
    return [
        "search", "--dataset", str(toy / "rows.jsonl"), "--task_model", f"hf:{toy / 'model'}", "--rewriter", "none",
        "--fidelity_model", "none", "--search_calls", "100", "--no_cache", "--output_dir", str(output), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    assert main(flags(toy, folder)) == 0
    return folder


def test_a_search_leaves_the_prompt_every_candidate_and_the_test(found):
    result = json.loads((found / "result.json").read_text())
    assert load_prompt(found) == TaskPrompt.from_json(result["prompt"])
    candidates = [json.loads(line) for line in (found / "candidates.jsonl").read_text().splitlines()]
    assert candidates[0]["source"] == "initial" and sum(row["chosen"] for row in candidates) == 1
    assert result["search"]["calls"] <= 100
    assert next(iter(result["test"]["instructions"])) == "initial" and "prompt" in result["test"]["instructions"]
    assert len((found / "items.jsonl").read_text().splitlines()) == result["test"]["n"]


def test_a_search_without_wordings_says_how_to_get_some(toy, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert main(flags(toy, tmp_path / "run")) == 0
        assert "0 other wordings (--rewriter embedded asks for some; with 2,500 calls or more it is" in caplog.text
        caplog.clear()
        assert main(flags(toy, tmp_path / "other", "--parts", "exemplars")) == 0
        assert "0 other wordings." in caplog.text


def test_the_same_seed_finds_the_same_prompt(found, toy, tmp_path):
    assert main(flags(toy, tmp_path / "again")) == 0
    assert load_prompt(tmp_path / "again") == load_prompt(found)


def test_a_finished_search_is_not_replaced_unless_told(found, toy, capsys):
    assert main(flags(toy, found)) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_json_is_one_object_with_the_result(toy, tmp_path, capsys):
    assert main(flags(toy, tmp_path / "run", "--json", "--parts", "offsets")) == 0
    assert json.loads(capsys.readouterr().out)["search"]["source"] == "initial"


def test_wordings_come_from_a_file(toy, tmp_path):
    (tmp_path / "wordings.txt").write_text("solve the task now\n\nsolve the task step\n")
    run = tmp_path / "run"
    more = ["--candidates", str(tmp_path / "wordings.txt"), "--guards", "none", "--search_calls", "400"]
    assert main(flags(toy, run, *more)) == 0
    rows = [json.loads(line) for line in (run / "candidates.jsonl").read_text().splitlines()]
    assert {row["prompt"]["instruction"] for row in rows if row["source"] == "file"} == {
        "solve the task now",
        "solve the task step",
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "exemplar"], "parts 'exemplar' is unknown"),
        (["--search_calls", "0"], "search_calls is 0"),
        (["--search_calls", "3"], "search_calls 3 cannot compare two prompts"),
        (["--candidates", "missing.txt"], "candidates 'missing.txt': no such file"),
        (["--no_hold_out_test"], "a search needs test rows"),
        (["--keep", "the Task"], "keep 'the Task' is not in the initial instruction 'solve the task'"),
        (["--forbid", "TASK"], "forbid 'TASK' is in the initial instruction 'solve the task'"),
        (["--forbid", "step"], "forbid 'step' is in the label 'step'"),
        (["--keep", "a b", "--forbid", "b"], "keep 'a b' holds 'b', which forbid rules out"),
        (["--rewriter", "openai:m@127.0.0.1:8000"], "http"),
        (["--rewriter", "openai:m@http://127.0.0.1:9/v1"], "127.0.0.1:9"),
        (["--forbid", ""], "forbid holds an empty text"),
    ],
)
def test_bad_settings_are_one_line(toy, tmp_path, capsys, more, words):
    assert main(flags(toy, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


PROMPT = TaskPrompt(
    "solve the task", exemplars=(Exemplar("step 1", "step"),), label_offsets=(("step", 100.0), ("now", -100.0))
)


def ask(toy, prompt, *more):
    return ["ask", "--prompt", str(prompt), "--task_model", f"hf:{toy / 'model'}", "--no_cache", *more]


def test_ask_answers_with_the_prompt_and_its_offsets(toy, tmp_path, capsys):
    PROMPT.save(tmp_path / "prompt.json")
    assert main(ask(toy, tmp_path, "step 3")) == 0
    assert capsys.readouterr().out == "now\n"  # 200 nats are off the other label


def test_ask_answers_every_row_of_a_file(toy, tmp_path, capsys):
    PROMPT.save(tmp_path / "prompt.json")
    (tmp_path / "rows.jsonl").write_text('{"input": "step 1"}\n\n{"input": "now 2", "id": 7}\n')
    assert main(ask(toy, tmp_path / "prompt.json", "--file", str(tmp_path / "rows.jsonl"))) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [{"input": "step 1", "answer": "now"}, {"input": "now 2", "answer": "now"}]


def test_ask_sends_exemplars_as_turns_to_a_model_that_chats(toy, tmp_path, capsys):
    replace(PROMPT, layout="turns").save(tmp_path / "prompt.json")
    assert main(ask(toy, tmp_path, "step 3")) == 2
    assert "the prompt's layout is 'turns'" in (error := capsys.readouterr().err)
    assert "prompts are sent bare; chat=true puts them in the model's chat template" in error
    shutil.copytree(toy / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
    )
    assert main(ask(tmp_path, tmp_path, "step 3", "--task_model_options", "chat=true")) == 0
    assert capsys.readouterr().out == "now\n"  # 200 nats are off the other label


def test_offsets_can_be_left_out_or_labels_named(toy, tmp_path, capsys):
    PROMPT.save(tmp_path / "prompt.json")
    assert main(ask(toy, tmp_path, "step 3", "--no-offsets", "--choices", "now", "step")) == 0
    assert capsys.readouterr().out.strip() in ("now", "step")


@pytest.mark.parametrize(
    ("content", "words"),
    [("[1]", "field 'input': None"), ('{"input": 3}', "field 'input': 3; it must be text"), ("{", "is not JSON")],
)
def test_a_broken_row_is_named_by_file_and_line(toy, tmp_path, capsys, content, words):
    PROMPT.save(tmp_path / "prompt.json")
    (tmp_path / "rows.jsonl").write_text('{"input": "a"}\n' + content + "\n")
    assert main(ask(toy, tmp_path, "--file", str(tmp_path / "rows.jsonl"))) == 2
    error = capsys.readouterr().err
    assert "rows.jsonl:2" in error and words in error


def test_ask_needs_one_way_of_input_and_a_prompt(toy, tmp_path, capsys):
    PROMPT.save(tmp_path / "prompt.json")
    assert main(ask(toy, tmp_path)) == 2
    assert "give one INPUT, or --file ROWS" in capsys.readouterr().err
    assert main(ask(toy, tmp_path / "missing.json", "x")) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(ask(toy, tmp_path, "x", "--choices", "step", "other")) == 2
    assert "no offset for the label 'other'" in capsys.readouterr().err


def test_the_rules_of_the_user_hold_for_the_prompt_that_is_found(toy, tmp_path):
    (tmp_path / "wordings.txt").write_text("solve the step\nsolve the task step\nsolve the task please\n")
    run = tmp_path / "run"
    more = ["--candidates", str(tmp_path / "wordings.txt"), "--guards", "none", "--search_calls", "400"]
    assert main(flags(toy, run, *more, "--keep", "the task", "--forbid", "please", "--forbid", "step 7")) == 0
    refused = [json.loads(line) for line in (run / "rewrites.jsonl").read_text().splitlines()]
    assert [(row["rewrite"], list(row["guards"])) for row in refused] == [
        ("solve the step", ["guard/keep"]),
        ("solve the task please", ["guard/forbid"]),
    ]
    rows = [json.loads(line) for line in (run / "candidates.jsonl").read_text().splitlines()]
    inputs = {shown["input"] for row in rows for shown in row["prompt"]["exemplars"]}
    assert len(inputs) > 5 and "step 7" not in inputs and "please" not in str(rows)


def test_no_prompt_of_a_search_is_longer_than_it_may_be(found, toy, tmp_path, capsys):
    lengths = json.loads((found / "result.json").read_text())["prompt_tokens"]
    initial = lengths["initial"]
    assert lengths["prompt"] >= initial and lengths["most"] is None and not lengths["estimated"]
    cap = str(initial + 25)
    assert main(flags(toy, tmp_path / "run", "--max_prompt_tokens", cap)) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run" / "candidates.jsonl").read_text().splitlines()]
    evaluator = Evaluator(HFTaskModel(str(toy / "model")))
    counts = [evaluator.prompt_tokens(TaskPrompt.from_json(row["prompt"])) for row in rows]
    assert max(counts) <= initial + 25 and any(row["prompt"]["exemplars"] for row in rows)
    told = f"(initial prompt {initial}; at most {cap})"
    assert f"Tokens without the input: {evaluator.prompt_tokens(load_prompt(tmp_path / 'run'))} {told}" in printed
    assert told in (tmp_path / "run" / "report.html").read_text()
    assert main(flags(toy, tmp_path / "other", "--max_prompt_tokens", str(initial - 1))) == 2
    error = capsys.readouterr().err
    assert f"max_prompt_tokens is {initial - 1}" in error and f"has {initial} tokens" in error
    assert not (tmp_path / "other").exists()


def test_a_search_on_a_server_needs_no_torch(toy, tmp_path):
    with HTTPServer(OpenAIApp()) as server:
        argv = ["search", "--data", str(toy / "rows.jsonl"), "--task-model", f"openai:toy@{server.url}/v1"]
        argv += ["--search-calls", "100", "--no-cache", "--output-dir", str(tmp_path / "run")]
        code = f"{WITHOUT_TORCH}\nfrom prewrite.cli.main import main\nsys.exit(main({argv!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "prompt.json").is_file()


def test_a_judge_that_is_not_there_is_told_even_where_there_is_nothing_to_judge(toy, tmp_path, capsys):
    assert main(flags(toy, tmp_path / "run", "--fidelity_model", str(tmp_path / "typo"))) == 2
    assert "fidelity_model: model" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--rewriter", "--proposer"])
def test_wordings_are_asked_of_a_server_and_counted_apart(toy, tmp_path, capsys, flag):
    run, app = tmp_path / "run", OpenAIApp(can=frozenset({"chat"}))
    with HTTPServer(app) as server:
        name = f"openai:toy@{server.url}/v1"
        more = [flag, name, "--num_candidates", "3", "--guards", "none", "--search_calls", "400"]
        assert main(flags(toy, run, *more)) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[1] == (
        f"Rewriter {name}: instructions, and no rows, go to {server.url}/v1 (a server on this machine)."
    )
    assert f"Wordings by {name}: 4 calls, " in printed.out
    result = json.loads((run / "result.json").read_text())
    asked = result["cost"]["rewriter"]
    assert asked["calls"] == 4 and asked["output_tokens"] == 4 and result["rewriter"] == name
    assert "the rewriter" in (run / "report.html").read_text()
    sent = [prompt for prompt in app.asked if "solve the task" in prompt]
    assert len(sent) == 4 and not any(row["input"] in prompt for row in ROWS for prompt in app.asked)
    rows = [json.loads(line) for line in (run / "candidates.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} >= {"greedy", "sample"}
