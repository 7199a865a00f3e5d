"""A saved rewriter holds what it needs and nothing of the machine it was made on."""

import json

import pytest

peft = pytest.importorskip("peft")

from toy import toy_model  # noqa: E402

from prewrite.rewriter.rewriter import RewriterSettings, save_rewriter  # noqa: E402


@pytest.mark.parametrize(
    ("base_model", "named"),
    [("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("someone/model", "someone/model")],
)
def test_its_adapter_names_the_base_model_as_the_user_did_and_no_hub_is_asked(
    tmp_path, monkeypatch, base_model, named
):
    asked = []
    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda *args: asked.append(args))
    model, tokenizer = toy_model()
    model.name_or_path = "/home/someone/.cache/snapshots/0123"
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear"))
    save_rewriter(tmp_path / "rewriter", adapted, RewriterSettings(base_model), warm_start=None, tokenizer=tokenizer)
    written = json.loads((tmp_path / "rewriter" / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == named
    assert asked == []
    assert sorted(file.name for file in (tmp_path / "rewriter" / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
