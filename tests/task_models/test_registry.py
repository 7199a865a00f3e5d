"""Names of task models."""

import json
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from prewrite.cli.main import main
from prewrite.errors import CapabilityError, ConfigError
from prewrite.task_models import registry
from prewrite.task_models.checks import check_task_model
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.registry import TaskModelSpec, destination, open_task_model, parse_task_model
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import Batch, Wrapper, stream
from prewrite.types import Conversation, Turn


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("demo", TaskModelSpec("hf", "embedded")),
        ("embedded", TaskModelSpec("hf", "embedded")),
        ("hf:org/name", TaskModelSpec("hf", "org/name")),
        ("hf:C:\\models\\m", TaskModelSpec("hf", "C:\\models\\m")),
        ("hf:/models/a@b", TaskModelSpec("hf", "/models/a@b")),
        ("ollama:gemma3:4b", TaskModelSpec("ollama", "gemma3:4b")),
        ("ollama:gemma3:4b@http://gpu:11434", TaskModelSpec("ollama", "gemma3:4b", "http://gpu:11434")),
        ("openai:org/m@http://127.0.0.1:8000/v1", TaskModelSpec("openai", "org/m", "http://127.0.0.1:8000/v1")),
        ("openai:gpt-4o-mini", TaskModelSpec("openai", "gpt-4o-mini")),
    ],
)
def test_names_are_read_and_written_back(text, spec):
    assert parse_task_model(text) == spec
    assert parse_task_model(str(spec)) == spec


@pytest.mark.parametrize("text", ["", "gemma3:4b", "hf:", "hf", "llama:x", ":x"])
def test_other_names_are_refused_with_the_backends(text):
    with pytest.raises(ConfigError, match="hf, ollama, openai, openvino, vllm"):
        parse_task_model(text)


@pytest.mark.parametrize(
    "address", ["http://me:sk-secret@host/v1", "http://sk-secret@host/v1", "http://host/v1?key=sk-secret"]
)
def test_a_key_in_the_address_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        parse_task_model(f"openai:m@{address}")
    assert "sk-secret" not in str(caught.value)


MODULE = """
class Mine:
    capabilities = frozenset({"generate"})

    def __init__(self, model, *, address="http://127.0.0.1:1", answer="yes"):
        self.name, self.identity, self.answer = f"mine:{model}", f"{model} at {address}", answer

    def generate(self, prompts):
        return [self.answer for _ in prompts]
"""


def test_a_new_task_model_is_a_module_and_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_of_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.BACKENDS, "mine", ("mine_of_test", "Mine"))
    rows = tmp_path / "rows.jsonl"
    lines = [{"instruction": "Is it?", "input": str(n), "output": "nope", "task": "qa"} for n in range(10)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["eval", "--data", str(rows), "--task-model", "mine:m", "--no-cache", "--json"]
    assert main([*flags, "--task-model-options", "answer=nope"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["instructions"]["initial"]["mean"] == 1.0
    assert shown.err.startswith("Task model mine:m: rows and prompts stay in this process.")


def test_a_new_server_says_where_data_go_as_the_others_do(monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "mine", ("mine_of_test", "Mine"))
    monkeypatch.setitem(registry.SERVERS, "mine", registry.openai_address)
    spec = parse_task_model("mine:m@https://models.example/v1")
    assert destination(spec).startswith("rows and prompts go to https://models.example/v1")


def test_a_backend_in_this_process_takes_no_address():
    with pytest.raises(ConfigError, match="takes no address"):
        parse_task_model("hf:m@http://host:1")


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown option 'temprature'; ollama has chat, max_new_tokens, num_ctx"):
        open_task_model("ollama:m", options={"temprature": 1})


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hf:.", {"max_new_tokens": "ten"}, "task model hf:.: max_new_tokens is 'ten'; it must be a whole number"),
        ("hf:.", {"max_new_tokens": 2.5}, r"max_new_tokens is 2\.5; it must be a whole number"),
        ("hf:.", {"chat": "maybe"}, "chat is 'maybe'; it must be true or false"),
        ("openai:m", {"retry": 3}, "retry is 3; it must be a .* or none"),
        ("openai:m", {"chat": "maybe"}, "chat is 'maybe'; it must be true or false or none"),
        ("ollama:m", {"keep_alive": True}, "keep_alive is True; it must be text or a number"),
        ("openvino:m", {"threads": "all"}, "threads is 'all'; it must be a whole number or none"),
        ("vllm:.", {"gpu_memory_utilization": "half"}, "gpu_memory_utilization is 'half'; it must be a number"),
    ],
)
def test_an_option_of_another_type_is_refused_before_anything_is_loaded(name, options, told):
    with pytest.raises(ConfigError, match=told):
        open_task_model(name, options=options)


def test_an_option_is_read_as_the_type_that_its_backend_states(monkeypatch):
    class Backend:
        def __init__(
            self, model: str, *, timeout: float = 1.0, tokens: int | None = 5, alive: str | float = "1m", tag: str = ""
        ):
            self.got = (timeout, tokens, alive, tag)

    monkeypatch.setitem(sys.modules, "prewrite.task_models.ollama", SimpleNamespace(OllamaTaskModel=Backend))
    options = {"timeout": "1e2", "tokens": "none", "alive": 10, "tag": 3}
    assert open_task_model("ollama:m", options=options).got == (100.0, None, 10.0, "3")
    assert open_task_model("ollama:m", options={"alive": "5m", "tokens": 7}).got == (1.0, 7, "5m", "")


def test_options_and_address_reach_the_backend(monkeypatch):
    class Backend:
        def __init__(self, model, *, address=None, chat=True):
            self.got = (model, address, chat)

    monkeypatch.setitem(sys.modules, "prewrite.task_models.ollama", SimpleNamespace(OllamaTaskModel=Backend))
    task_model = open_task_model("ollama:m@http://h:1", options={"chat": False})
    assert task_model.got == ("m", "http://h:1", False)


def test_a_wrapper_has_the_name_identity_and_capabilities_of_what_it_wraps():
    inner = ScriptedTaskModel(str.upper, name="inner")
    wrapper = Wrapper.__new__(type("Plain", (Wrapper,), {"stream": lambda self, batch: stream(self.inner, batch)}))
    wrapper.inner = inner
    assert (wrapper.name, wrapper.identity, wrapper.capabilities) == ("inner", "inner", inner.capabilities)
    assert wrapper.generate(["a"]) == ["A"] and wrapper.generate([]) == []
    assert wrapper.label_logprobs([], ["x", "y"]).shape == (0, 2)


def test_what_a_backend_cannot_do_is_an_error_before_anything_is_asked():
    asked = []
    model = ScriptedTaskModel(lambda prompt: asked.append(prompt) or "x")
    with pytest.raises(
        CapabilityError, match=r"scripted cannot do 'target_logprobs' .it can do: constrained, generate"
    ):
        list(stream(model, Batch("target_logprobs", ("p",), targets=("t",))))
    assert asked == []


def test_a_conversation_is_refused_before_a_model_without_turns_is_asked():
    asked = []
    model = CountingTaskModel(ScriptedTaskModel(lambda prompt: asked.append(prompt) or "x"))
    with pytest.raises(CapabilityError, match="scripted cannot do 'turns'"):
        model.generate(["p", Conversation((Turn("user", "p"),))])
    assert asked == []


def test_doctor_tells_whether_company_changes_an_answer():
    def swayed(nats):
        """A scripted model whose batches move the log-probability by `nats` per further prompt."""
        model = ScriptedTaskModel(lambda prompt: "positive")
        plain = model.label_logprobs
        model.label_logprobs = lambda prompts, labels: plain(prompts, labels) - nats * (len(prompts) - 1)
        return check_task_model(model)[-1]

    assert swayed(0.0)[:3] == ("alone and in a batch", True, "log-probabilities 0.000 nats apart: the same")
    assert "0.400 nats apart: labels that close can change places" in swayed(0.1).detail


def test_doctor_compares_texts_where_labels_are_not_scored():
    class Writer:
        name = identity = "writer"
        capabilities = frozenset({"generate"})

        def generate(self, prompts):
            return [f"one of {len(prompts)}" for _ in prompts]

    assert "'one of 1' and 'one of 5'" in check_task_model(Writer())[-1].detail


@pytest.mark.parametrize("name", ["hf:./no/such/folder", "vllm:./no/such/folder"])
def test_a_model_that_is_not_there_is_told_before_torch_is_imported(name):
    code = f"""
        import sys
        from prewrite.errors import ModelNotFoundError
        from prewrite.task_models.registry import open_task_model
        try:
            open_task_model({name!r})
        except ModelNotFoundError as error:
            print(error, "torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("model './no/such/folder': no such folder") and done.stdout.endswith("False\n")
