"""The supervised phase before RL: what it learns, and when it is made without being asked for."""

import json

import peft
import pytest
import torch
from toy import toy_model

from prewrite.cli.main import main
from prewrite.errors import ConfigError
from prewrite.rewriter import starter
from prewrite.rewriter.starter import load_base, starter_adapter
from prewrite.run.build import resolved
from prewrite.run.config import TrainConfig
from prewrite.train import warm_start as module
from prewrite.train.warm_start import Pair, adapter_for, make_adapter, warm_start

PAIRS = [Pair(f"solve the task {word}", f"now {word} step") for word in ("step", "now", "the", "task", "solve")]


@pytest.fixture
def base(tmp_path, monkeypatch, one_thread):
    """A folder with a tiny model, a cache of its own, and a corpus of five pairs."""
    model, tokenizer = toy_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("PREWRITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "load_pairs", lambda: PAIRS)
    return str(tmp_path / "model")


def test_it_learns_the_pairs_and_the_saved_adapter_is_what_was_learned(base, tmp_path):
    model, tokenizer = load_base(base)
    adapted, losses = warm_start(model, tokenizer, PAIRS, epochs=60, learning_rate=5e-2, held_out=0.2)
    assert losses["train/last"] < losses["held_out/before"] - 0.2
    assert losses["held_out/after"] < losses["held_out/before"] - 0.1
    ids = tokenizer("solve the task step", return_tensors="pt").input_ids.to(model.device)
    with torch.no_grad():
        learned = adapted(ids).logits
        module.save_half(adapted, tmp_path / "adapter", base_model=base)
        merged, _ = load_base(base, warm_start=tmp_path / "adapter")
        assert torch.allclose(merged(ids).logits, learned, atol=5e-2)  # it is kept in half precision
        assert not torch.allclose(load_base(base)[0](ids).logits, learned, atol=5e-2)


def test_saving_asks_no_hub_about_the_embedded_model(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda *args: asked.append(args))
    adapted, _ = warm_start(*load_base(base), PAIRS, epochs=1)
    module.save_half(adapted, tmp_path / "adapter", base_model="embedded")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert asked == []
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"  # no place on this machine


def test_auto_makes_one_for_a_small_model_once(base, monkeypatch):
    monkeypatch.setattr(module, "AUTO_ABOVE", 0)
    folder = adapter_for("auto", base)
    assert (folder / "adapter_config.json").is_file()
    monkeypatch.setattr(module, "make_adapter", None)  # a second one would fail here
    assert adapter_for("auto", base) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing half made is left


def test_another_model_or_meta_prompt_gets_another(base, monkeypatch):
    monkeypatch.setattr(module, "AUTO_ABOVE", 0)
    first = adapter_for("auto", base)
    assert adapter_for("auto", base, "reasoning") != first
    toy_model(seed=1)[0].save_pretrained(base)
    assert adapter_for("auto", base) != first


def test_auto_leaves_toys_and_large_models_alone_and_a_choice_is_a_choice(base, monkeypatch):
    assert adapter_for("auto", base) is None  # far below 30M
    monkeypatch.setattr(module, "AUTO_ABOVE", 0)
    monkeypatch.setattr(module, "SMALL", 10)
    assert adapter_for("auto", base) is None
    assert adapter_for("none", "embedded") is None
    starter = starter_adapter("embedded")
    assert adapter_for("auto", "embedded") == adapter_for(str(starter), base) == starter


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--output-dir", "adapter", "--epochs", "0"], "--epochs is 0; it must be above 0"),
        (["--output-dir", "adapter", "--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--output-dir", "adapter", "--meta-family", "nowhere.txt"], "nowhere.txt"),
        (["--output-dir", "."], "output_dir '.' exists"),
        ([], "no output_dir: give the folder that the adapter goes to"),
    ],
)
def test_settings_of_an_adapter_that_cannot_work_are_named(tmp_path, capsys, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    assert main(["warm-start", *flags]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_layers_have_other_names_is_adapted_on_all_linear_layers(tmp_path, monkeypatch, one_thread):
    from transformers import GPT2Config, GPT2LMHeadModel

    _, tokenizer = toy_model()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "load_pairs", lambda: PAIRS)
    losses = make_adapter(str(tmp_path / "model"), tmp_path / "adapter", epochs=1)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file() and losses["train/last"] > 0


def test_a_small_rewriter_samples_at_a_lower_temperature_unless_told_otherwise(base, monkeypatch):
    assert resolved(TrainConfig(dataset=["demo"], base_model=base)).temperature == 0.7
    assert resolved(TrainConfig(dataset=["demo"], base_model=base, temperature=0.9)).temperature == 0.9
    monkeypatch.setattr(starter, "SMALL", 10)
    assert resolved(TrainConfig(dataset=["demo"], base_model=base)).temperature == 1
    with pytest.raises(ConfigError, match="temperature is 0"):
        TrainConfig(dataset=["demo"], base_model=base, temperature=0)
