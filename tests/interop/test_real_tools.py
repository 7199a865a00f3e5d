"""Exports load in the tools that they are for. `make test-interop` has them; elsewhere these tests are skipped."""

import json
import os
import subprocess

import pytest

from interop.prompts import HARD, INPUT, TURNS
from prewrite.interop.formats import export

PROMPTFOO = os.environ.get("PREWRITE_PROMPTFOO", "")
LATER = "not installed; `make test-interop` has an environment with it"


@pytest.mark.parametrize("prompt", [HARD, TURNS])
def test_langchain_loads_the_prompt_and_fills_it(prompt):
    load = pytest.importorskip("langchain_core.load", reason=f"langchain-core is {LATER}")
    template = load.loads(export(prompt, "langchain").text, allowed_objects="core")
    roles = {"human": "user", "ai": "assistant"}
    messages = [{"role": roles[part.type], "content": part.content} for part in template.format_messages(input=INPUT)]
    assert messages == prompt.messages(INPUT)


@pytest.mark.parametrize("prompt", [HARD, TURNS])
def test_dspy_loads_the_prompt_and_asks_with_it(prompt, tmp_path, caplog):
    dspy = pytest.importorskip("dspy", reason=f"dspy is {LATER}")
    (tmp_path / "program.json").write_text(export(prompt, "dspy").text, encoding="utf-8")
    program = dspy.Predict("input -> output")
    program.load(str(tmp_path / "program.json"))
    assert caplog.records == []
    lm = dspy.utils.DummyLM([{"output": "yes"}])
    with dspy.context(lm=lm):
        assert program(input=INPUT).output == "yes"
    sent = [message["content"] for message in lm.history[0]["messages"]]
    assert "".join(prompt.full_instruction.split()) in "".join(sent[0].split())  # DSPy indents its lines
    for exemplar, question, answer in zip(prompt.exemplars, sent[1::2], sent[2::2], strict=False):
        assert exemplar.input in question and exemplar.output in answer
    assert INPUT in sent[-1]


@pytest.mark.skipif(not PROMPTFOO, reason=f"promptfoo is {LATER} (PREWRITE_PROMPTFOO names its command)")
@pytest.mark.parametrize("prompt", [HARD, TURNS])
def test_promptfoo_validates_the_config_and_sends_the_prompt(prompt, tmp_path):
    (tmp_path / "config.yaml").write_text(export(prompt, "promptfoo").text, encoding="utf-8")
    off = ("TELEMETRY", "UPDATE", "REMOTE_GENERATION", "SHARING")
    env = os.environ | {f"PROMPTFOO_DISABLE_{name}": "1" for name in off}
    env["PROMPTFOO_CONFIG_DIR"] = str(tmp_path)

    def promptfoo(*words):
        return subprocess.run([PROMPTFOO, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    checked = promptfoo("validate", "-c", "config.yaml")
    assert checked.returncode == 0 and "Configuration is valid" in checked.stdout + checked.stderr
    promptfoo("eval", "-c", "config.yaml", "--no-cache", "--no-table", "-o", "out.json")
    [row] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["results"]["results"]
    sent, placeholder = row["prompt"]["raw"], row["vars"]["input"]
    assert (json.loads(sent) if prompt.in_turns else sent) == (
        prompt.messages(placeholder) if prompt.in_turns else prompt.render(placeholder)
    )
