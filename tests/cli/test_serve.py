"""`prewrite serve` on the toy: the run's rewriter and task model, by the real client."""

import threading

import pytest

from prewrite.cli.main import main

openai = pytest.importorskip("openai", reason="the openai client is not installed")
httpx = pytest.importorskip("httpx")
app = pytest.importorskip("prewrite.serve.app", reason="starlette is not installed")


@pytest.fixture
def asked(monkeypatch):
    """What a client finds at the server that the command starts; `look(address)` is the client."""
    found = {}

    def make_server(searches):
        server = plain(searches)

        class Visited:
            def run(self, sockets):
                thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
                thread.start()
                while not server.started:
                    pass
                found["got"] = found["look"](f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
                server.should_exit = True
                thread.join(timeout=10)

        return Visited()

    plain = app.make_server
    monkeypatch.setattr(app, "make_server", make_server)
    return found


def test_a_run_is_served_with_its_own_task_model(run, toy, asked, capsys):
    def look(address):
        with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
            (model,) = client.models.list()
            reply = client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "solve it"}])
        return model.id, reply.choices[0].message.content, reply.usage, httpx.get(f"{address}/about").json()

    asked["look"] = look
    assert main(["serve", str(run), "--port", "0", "--fidelity-model", "none", "--search-calls", "99"]) == 0
    name, text, usage, about = asked["got"]
    assert name == run.name and text and usage.prompt_tokens == 2
    assert about["task_models"] == [f"hf:{toy / 'model'}"] and about["calls"] == 99
    printed = capsys.readouterr()
    assert "/v1, model first; Ctrl-C stops)" in printed.out and "stay in this process" in printed.err


def test_several_task_models_are_offered(run, toy, asked):
    asked["look"] = lambda address: httpx.get(f"{address}/about").json()["task_models"]
    models = [f"hf:{toy / 'model'}"]
    flags = ["--task-model", models[0], "--task-model", models[0] + "/", "--fidelity-model", "none"]
    assert main(["serve", str(run), "--port", "0", *flags]) == 0
    assert asked["got"] == [models[0], models[0] + "/"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none"], "RUN is 'none'"),
        (["RUN", "--port", "70000"], "port 70000 cannot be used on 127.0.0.1"),
        (["RUN", "--task-model", "embedded", "--task-model", "embedded"], "--task-model embedded is given twice"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_served_is_told(run, words, told, capsys):
    assert main(["serve", *(str(run) if word == "RUN" else word for word in words)]) == 2
    assert told in capsys.readouterr().err
