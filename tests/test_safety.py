"""What the package never does, whatever it is given: unpickle, run a model's code, or listen beyond this machine."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "prewrite"
NEVER = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load", "joblib.load", "shelve.open",
}  # fmt: skip
MODELS = ("AutoModelForCausalLM", "AutoModelForSequenceClassification")


def calls(tree):
    """(name as it is written, keyword arguments as they are written, line) of every call in the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), given, node.lineno


def faults_in(source):
    """What a piece of source does that it must not, with its line."""
    for name, given, line in calls(ast.parse(source)):
        owner, _, method = name.rpartition(".")
        if name in NEVER:
            yield f"{line}: {name}"
        if name == "torch.load" and given.get("weights_only") != "True":
            yield f"{line}: {name} without weights_only"
        if method in ("from_pretrained", "from_config") and owner.startswith("Auto") and "gguf_file" not in given:
            if given.get("trust_remote_code") != "False":
                yield f"{line}: {name} without trust_remote_code=False"
            if owner in MODELS and method == "from_pretrained" and given.get("use_safetensors") != "True":
                yield f"{line}: {name} without use_safetensors"
        if given.get("shell") == "True":
            yield f"{line}: {name} through a shell"


@pytest.mark.parametrize(
    "source",
    [
        "yaml.load(text)",
        "pickle.loads(data)",
        "torch.load(file, map_location='cpu')",
        "AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)",
        "AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(folder, trust_remote_code=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_each_fault_is_seen(source):
    assert list(faults_in(source))


def test_nothing_that_is_read_is_run():
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = [f"{file.relative_to(SOURCE)}:{fault}" for file in files for fault in faults_in(file.read_text())]
    assert found == []


def test_servers_of_ours_listen_on_this_machine_alone():
    kinds = ("HTTPServer", "TCPServer", "start_server", "create_server", "uvicorn.run", ".bind")
    listening = {
        f"{file.relative_to(SOURCE).as_posix()}: {ast.unparse(node.args[0]) if node.args else ''}"
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(kinds)
        if ast.unparse(node.func) != "signature.bind"
    }
    from prewrite.report.loopback import HOST

    assert HOST == "127.0.0.1" and listening == {"report/watch.py: (HOST, port)", "serve/app.py: (HOST, port)"}
