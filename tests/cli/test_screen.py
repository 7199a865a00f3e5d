"""What the commands show and write: where data go first, and never a key."""

import io
import json
import logging
import sys
import threading

import pytest

from prewrite.cli.main import main
from prewrite.cli.screen import without_keys_on_screen
from prewrite.files import write_atomic
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import TaskPrompt
from prewrite.task_models.scripted import ScriptedTaskModel
from servers.http_server import HTTPServer, Response, as_json
from servers.ollama_server import OllamaApp
from servers.openai_server import OpenAIApp

KEY = "planted-key-7f3a"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "OLLAMA_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def rows(tmp_path):
    """A folder of rows, split."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for first, name in ((0, "train"), (10, "dev"), (20, "test")):
        texts = [f"a {number} film" for number in range(first, first + 6)]
        lines = [{"input": text, "output": "good", "choices": ["good", "bad"]} for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


class Telling:
    """An app that puts the key that it was sent into each of its answers, in one of several ways."""

    def __init__(self, app, way):
        self.app, self.way, self.keys = app, way, []

    async def __call__(self, request):
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.keys.append(key)
        if self.way == "401":
            return as_json({"error": {"message": f"Incorrect API key provided: {key}"}}, 401)
        if self.way == "500":
            return as_json({"error": f"cannot reach upstream with Authorization: Bearer {key}"}, 500)
        if self.way == "page":
            return Response(503, f"<html><body>?api_key={key}&x=1</body></html>".encode(), "text/html")
        if self.way == "200":
            return as_json({"error": {"message": f"bad key {key}", "code": 401}})
        answer = await self.app(request)
        if self.way == "answer" and request.method == "POST" and answer.status == 200:
            told = json.loads(answer.body)
            if "message" in told:
                told["message"]["content"] = f"good {key}"
            for choice in told.get("choices", []):
                choice["message"]["content"] = f"good {key}"
            return as_json(told)
        return answer


def commands(address, rows, tmp_path):
    prompt = tmp_path / "prompt.json"
    TaskPrompt("Is it good?").save(prompt)
    asked = ["--data", str(rows), "--instruction", "Is it good?", "--decoding", "generate", "--task-model", address]
    return {
        "doctor": ["doctor", address],
        "doctor --json": ["doctor", "--json", address],
        "load": ["load", address],
        "eval": ["eval", *asked],
        "eval --json": ["eval", "--json", *asked],
        "ask": ["ask", "--prompt", str(prompt), "--task-model", address, "a film"],
    }


@pytest.mark.parametrize("way", ["401", "500", "page", "200", "answer"])
@pytest.mark.parametrize("backend", ["openai", "ollama"])
def test_no_command_shows_or_keeps_a_key_that_a_server_tells(backend, way, rows, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PREWRITE_ANSWER_CACHE", str(tmp_path / "kept" / "answers.sqlite"))
    monkeypatch.setattr("prewrite.task_models.retry.RetryPolicy.delay", lambda *_: 0.0)
    app = Telling(
        OpenAIApp(can=frozenset({"chat"}))
        if backend == "openai"
        else OllamaApp(names=("toy:latest",), version="0.4.7"),
        way,
    )
    with HTTPServer(app) as server:
        address = f"openai:toy@{server.url}/v1" if backend == "openai" else f"ollama:toy@{server.url}"
        for command in commands(address, rows, tmp_path).values():
            code = main(command)
            shown = capfd.readouterr()
            assert KEY not in shown.out + shown.err
            assert code == (0 if way == "answer" else 2)
            assert "[hidden]" in shown.out + shown.err or way == "answer"
    assert KEY in app.keys  # the server did get it
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert KEY.encode() not in file.read_bytes()


def test_what_a_library_prints_logs_or_raises_is_shown_without_keys(capsys):
    def fail():
        raise ValueError(f"cannot connect with {KEY}")

    with without_keys_on_screen():
        print(f"sent {KEY}")
        logging.getLogger("some.library").warning("sent %s", KEY)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        try:
            fail()
        except ValueError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    assert shown.out == "sent [hidden]\n"
    assert shown.err.count("ValueError: cannot connect with [hidden]") == 2


def test_files_of_a_run_are_written_without_keys(tmp_path):
    write_atomic(tmp_path / "report.html", f"<p>{KEY}</p>")
    RunFolder.append(tmp_path / "items.jsonl", [{"output": KEY}])
    assert (tmp_path / "report.html").read_text() == "<p>[hidden]</p>"
    assert (tmp_path / "items.jsonl").read_text() == '{"output": "[hidden]"}\n'


@pytest.mark.parametrize("command", ["eval", "ask", "load"])
def test_the_first_line_says_where_data_go(command, rows, tmp_path, capsys):
    with HTTPServer(OpenAIApp(can=frozenset({"chat"}))) as server:
        address = f"openai:toy@{server.url}/v1"
        assert main(commands(address, rows, tmp_path)[command]) == 0
        first = capsys.readouterr().err.splitlines()[0]
        assert first == (f"Task model {address}: rows and prompts go to {server.url}/v1 (a server on this machine).")


def test_an_answer_cache_that_cannot_be_used_is_one_line_before_anything_is_asked(rows, tmp_path, capsys, monkeypatch):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("PREWRITE_ANSWER_CACHE", str(tmp_path / "a file" / "answers.sqlite"))
    app = OpenAIApp(can=frozenset({"chat"}))
    with HTTPServer(app) as server:
        asked = ["--data", str(rows), "--instruction", "Is it good?", "--task-model", f"openai:toy@{server.url}/v1"]
        assert main(["eval", *asked]) == 2
    where, error = capsys.readouterr().err.splitlines()
    assert where.startswith("Task model ") and "or set PREWRITE_ANSWER_CACHE to another place" in error
    assert app.asked == []


def test_a_model_in_this_process_keeps_data_there(rows, capsys):
    main(["eval", "--data", str(rows), "--instruction", "Is it good?", "--task-model", "hf:/no/such/folder"])
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "Task model hf:/no/such/folder: rows and prompts stay in this process."


def test_a_hosted_api_is_used_only_with_a_key_and_is_named_first(rows, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    flags = ["eval", "--data", str(rows), "--instruction", "Is it good?", "--task-model"]
    assert main([*flags, "openai:gpt-4o-mini"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Task model openai:gpt-4o-mini: rows and prompts go to https://api.openai.com/v1."
    assert lines[-1].startswith("error: OPENAI_API_KEY is not set, and api.openai.com needs it")
    assert main([*flags, "openai:m@127.0.0.1:8901/v1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "One begins with http:// or https://" in line


def test_doctor_tells_all_of_a_server_as_json(capsys):
    with HTTPServer(OpenAIApp(can=frozenset({"chat", "top"}))) as server:
        assert main(["doctor", "--json", f"openai:toy@{server.url}/v1"]) == 0
    told = json.loads(capsys.readouterr().out)
    (found,) = told["task_models"]
    assert found["destination"] == f"rows and prompts go to {server.url}/v1 (a server on this machine)"
    assert found["notes"][0].startswith("the server tells nothing of its model but the name")
    checks = {check["capability"]: check for check in found["checks"]}
    assert checks["generate"]["ok"] and not checks["constrained"]["offered"]
    assert "it does not keep the schema" in checks["constrained"]["detail"]
    assert {"day", "python", "system", "packages", "prewrite"} <= told.keys()


def test_doctor_names_what_is_wrong_with_an_address_and_goes_on(capsys):
    assert main(["doctor", "openai:m@localhost:1", "openai:m@http://127.0.0.1:9/v1"]) == 2
    out = capsys.readouterr().out
    assert "reachable: failed: task model openai:m@localhost:1: is 'localhost:1' an address?" in out
    assert "failed 4 times on one request; last error: no connection" in out


def test_eval_tells_what_to_know_of_the_answers(rows, capsys):
    class Uncounted(OpenAIApp):
        async def __call__(self, request):
            answer = await super().__call__(request)
            told = json.loads(answer.body)
            return as_json(told | {"usage": {}}) if "choices" in told else answer

    with HTTPServer(Uncounted(can=frozenset({"chat"}))) as server:
        flags = ["--data", str(rows), "--instruction", "Is it good?", "--task-model", f"openai:toy@{server.url}/v1"]
        assert main(["eval", *flags]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes[0] == "note: Tokens are estimated for 6 of 6 answers: the task model did not count them."
    assert notes[1].startswith("note: The server tells nothing of its model but the name")


HOSTILE = "Sort\x1b[2J\x1b]0;owned\x07 the\x9b31m mail\rhidden\u202egnorw \ud800\x00\x7f\tnow\n"


def test_a_terminal_is_given_no_command_that_a_model_wrote(tmp_path, capsys):
    with without_keys_on_screen():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
    shown = capsys.readouterr()
    assert not any(0x7F <= ord(mark) < 0xA0 or mark in "\x1b\x07\x00\u202e" for mark in shown.out + shown.err)
    assert shown.out == (
        "Sort\\u001b[2J\\u001b]0;owned\\u0007 the\\u009b31m mail\\u000dhidden"
        "\\u202egnorw \\ud800\\u0000\\u007f\tnow\n\n"
    )
    assert "\r" not in shown.out and shown.err.count("\r") == 1  # progress bars need it


def test_json_on_the_screen_is_the_text_that_a_model_wrote(capsys):
    with without_keys_on_screen():
        print(json.dumps({"rewrite": HOSTILE}, ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == {"rewrite": HOSTILE}


def test_answers_of_a_task_model_are_shown_with_their_control_characters_escaped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TaskPrompt, "sent", lambda self, input: "x")
    monkeypatch.setattr(
        "prewrite.run.build.open_counted_task_model", lambda config: ScriptedTaskModel(lambda _: HOSTILE)
    )
    TaskPrompt("Sort.").save(tmp_path / "prompt.json")
    assert main(["ask", "--prompt", str(tmp_path), "a letter"]) == 0
    assert "\x1b" not in (shown := capsys.readouterr().out) and "Sort\\u001b[2J" in shown


def test_a_screen_that_lacks_a_letter_gets_its_escape(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    with without_keys_on_screen():
        print("café")
    screen.flush()
    assert screen.buffer.getvalue() == b"caf\\xe9\n"
