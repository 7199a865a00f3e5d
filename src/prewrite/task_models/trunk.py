"""Running a causal language model over tokens and a cache, by whichever way is fastest for it.

`open_trunk` gives `llama.Llama` where that knows the model, else the transformers model behind the same few methods.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache

from prewrite.task_models import llama


class TransformersCache:
    """A `DynamicCache` with the methods of `llama.Cache`."""

    def __init__(self, cache: DynamicCache | None = None):
        self.cache = cache or DynamicCache()

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.cache.get_seq_length()

    def select(self, rows: torch.Tensor, *, room: int = 0) -> TransformersCache:
        """A copy of some rows, repetitions allowed; it grows by itself, so `room` is not needed."""
        copy = DynamicCache()
        for layer, keys_values in enumerate(self.cache):
            keys, values = keys_values[:2]
            copy.update(keys[rows], values[rows], layer)
        return TransformersCache(copy)

    def crop(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        if length < self.length:
            self.cache.crop(length - self.length)  # how many to forget: newer transformers take no positive length


Cache = llama.Cache | TransformersCache


class Transformers:
    """Any transformers causal language model, on its device and in its dtype."""

    def __init__(self, model: nn.Module):
        self.model = model

    def new_cache(self, rows: int, capacity: int) -> TransformersCache:
        """An empty cache."""
        return TransformersCache()

    def __call__(self, ids, positions, cache, mask=None, *, keep: int | None = None) -> torch.Tensor:
        """As `llama.Llama.__call__`."""
        if mask is None:
            mask = ids.new_ones(len(ids), cache.length + ids.shape[1])
        output = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache.cache, use_cache=True
        )
        hidden = output.last_hidden_state
        return hidden if keep is None else hidden[:, hidden.shape[1] - keep :]

    def lm_head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., D)."""
        return self.model.lm_head(states)


def open_trunk(model: nn.Module, *, rows: int | None = None) -> llama.Llama | Transformers:
    """`model` as it is now; `rows` says that about so many tokens will go through at a time, if they are few."""
    return llama.Llama(model, rows=rows) if runs_fast(model) else Transformers(model)


def runs_fast(model: nn.Module) -> bool:
    """Whether `llama.Llama` runs `model`."""
    return llama.is_supported(model) and not torch.is_autocast_enabled("cpu")
