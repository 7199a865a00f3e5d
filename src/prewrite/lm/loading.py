"""Models, tokenizers and adapters from a folder: safetensors only, and no code that a model brings along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from prewrite.errors import ConfigError, ModelNotFoundError
from prewrite.lm.embedded import HUB_ID, is_embedded, resolve_model
from prewrite.lm.llama import MODEL_TYPES, has_bf16
from prewrite.lm.tokens import give_pad_token
from prewrite.lm.trunk import is_known

LOADING_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError, SafetensorError)
"""What transformers, tokenizers, safetensors and PEFT raise for files that do not fit, beside OSError."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(dtype: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """`auto` is bf16 where the device has the instructions for it, else fp32. Raises `ConfigError` for other names."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"dtype {dtype!r} is unknown; choose one of auto, {', '.join(DTYPES)}")
        return DTYPES[dtype]
    device = device or pick_device()
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if has_bf16() else torch.float32


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of a model, with a pad token, and with decoding that leaves spaces as they were written."""
    if not (Path(folder) / "config.json").is_file():  # transformers would guess a tokenizer, and fail somewhere in it
        raise ModelNotFoundError(
            f"model {folder!r} could not be loaded: its folder has no config.json; it must hold config.json, "
            "*.safetensors and the tokenizer's files"
        )
    file = Path(folder) / "tokenizer.json"
    with loading(folder):
        if file.is_file():
            json.loads(file.read_bytes())  # for a file that is cut off tokenizers raises a bare Exception
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.clean_up_tokenization_spaces = False
    give_pad_token(tokenizer)
    return tokenizer


def load_causal_lm(folder: str, dtype: torch.dtype) -> Any:
    """A causal language model in `dtype`; safetensors only, so that no file can run code.

    Raises `ModelNotFoundError`, and `ConfigError` for a family whose logits `trunk.logits_of` does not give.
    """
    with loading(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    if model.config.model_type not in MODEL_TYPES and not is_known(model):
        raise ConfigError(
            f"model {folder!r}: its family, {model.config.model_type!r}, makes logits in a way that is not "
            "known here; serve it (ollama:, openai:, vllm:) or choose another model"
        )
    return model


def parameter_count(model: str) -> int:
    """How many parameters a model has, told from its config without loading weights."""
    folder = resolve_model(model)
    with loading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with loading(folder), torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in empty.parameters())


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Turns what the libraries raise for a model that is absent, broken or unknown into `ModelNotFoundError`."""
    try:
        yield
    except OSError as error:
        raise ModelNotFoundError(
            f"model {model!r} could not be loaded ({_reason(error)}); its folder must hold config.json, *.safetensors "
            "and the tokenizer's files"
        ) from None
    except LOADING_ERRORS as error:
        raise ModelNotFoundError(
            f"model {model!r} could not be loaded ({_reason(error)}); its files must be whole, and of a family that "
            "transformers knows: code that a model brings along is never run"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`; safetensors only, so that no file can run code.

    Raises `ModelNotFoundError` if there is none, or if it is another model's.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelNotFoundError(f"adapter {str(folder)!r} has no adapter_model.safetensors; make it again")
    with loading(str(folder)):
        return PeftModel.from_pretrained(model, str(folder))


def save_adapter(model: PeftModel, folder: Path, *, base_model: str) -> None:
    """Write the adapter of `model`; the folder names the base model as the user did, not where it was found."""
    model.peft_config["default"].base_model_name_or_path = HUB_ID if is_embedded(base_model) else base_model
    model.save_pretrained(folder, save_embedding_layers=False)  # `auto` would ask the hub about the base model
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
