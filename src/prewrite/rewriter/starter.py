"""The rewriter before RL: the base model, and the starter adapter that makes a small one write sane English."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from prewrite.lm.embedded import is_embedded, resolve_model
from prewrite.lm.loading import load_adapter, load_causal_lm, load_tokenizer, parameter_count, pick_device, pick_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMALL = 1e9
"""Parameters below which a rewriter gets a warm start and a lower temperature by default."""


def starter_adapter(base_model: str) -> Path | None:
    """The warm-start adapter that ships for `base_model`, or None."""
    if is_embedded(base_model):
        folder = Path(str(files("prewrite.rewriter").joinpath("starter_adapter")))
        return folder if (folder / "adapter_config.json").is_file() else None
    return None


def default_temperature(base_model: str) -> float:
    """1 as in the paper (section 3.1), and 0.7 for a small model, most of whose samples at 1 wander off the task."""
    return 0.7 if parameter_count(base_model) < SMALL else 1.0


def load_base(
    base_model: str, *, dtype: str = "auto", warm_start: str | Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) of a rewriter before RL: the base model with the warm-start adapter merged in, if any."""
    folder = resolve_model(base_model)
    device = pick_device()
    tokenizer = load_tokenizer(folder)
    tokenizer.padding_side = "left"
    model = load_causal_lm(folder, pick_dtype(dtype, device)).to(device)
    if warm_start is not None:
        model = load_adapter(model, Path(warm_start)).merge_and_unload()
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
