"""Running a causal language model over tokens and a cache, by whichever way is fastest for it.

`open_trunk` gives `llama.Llama` where that knows the model, else the transformers model behind the same few methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import DynamicCache

from prewrite.lm import llama
from prewrite.lm.cache import Cache as OwnCache

SOFTMAX_ROWS = 8  # tokens whose softmax over the vocabulary a CPU computes at once: 8 x 49,152 x 4 bytes = 1.6 MB

# Names of the setting that says how many tokens back some layers attend to.
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")


class TransformersCache:
    """A `DynamicCache` with the methods of `cache.Cache`; what rows share is copied."""

    def __init__(self, cache: DynamicCache | None = None):
        self.cache = cache or DynamicCache()

    @property
    def length(self) -> int:
        """Tokens so far."""
        return int(self.cache.get_seq_length())

    def branch(self, lengths: Sequence[int], counts: Sequence[int], *, room: int) -> TransformersCache:
        """As `cache.Cache.branch`, of one row, all of it."""
        return self.select(torch.zeros(counts[0], dtype=torch.long), room=room)

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


Cache = OwnCache | TransformersCache


class Trunk(Protocol):
    """A model that runs over tokens and a cache of its own; what `open_trunk` gives."""

    window: float
    """How many tokens back every layer looks at least."""
    stems: int
    """How many different beginnings the rows of a batch may share at most."""
    branches: bool
    """Whether a mask may be (B, T, S), so that new tokens of a row are several texts that go on from the same ones."""

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` rows of up to `capacity` tokens."""
        ...

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
        mask: torch.Tensor | None = None,
        *,
        keep: int | None = None,
    ) -> torch.Tensor:
        """Last hidden states (B, keep, D); see `llama.Llama.__call__`."""
        ...

    @property
    def lm_head(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Logits (..., V) of states (..., D)."""
        ...


class Transformers:
    """Any transformers causal language model, on its device and in its dtype."""

    stems = 1
    branches = False

    def __init__(self, model: nn.Module):
        self.model = model
        config = model.config.get_text_config()
        self.window: float = next((w for name in WINDOWS if (w := getattr(config, name, None))), math.inf)

    def new_cache(self, rows: int, capacity: int) -> TransformersCache:
        """An empty cache."""
        return TransformersCache()

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: TransformersCache,
        mask: torch.Tensor | None = None,
        *,
        keep: int | None = None,
    ) -> torch.Tensor:
        """As `llama.Llama.__call__`."""
        own = ids.new_ones(len(ids), 0) if mask is None else mask.long()  # some families compute with it
        shared = cache.length + ids.shape[1] - own.shape[1]  # tokens that all rows see
        mask = torch.cat([own.new_ones(len(ids), shared), own], dim=1)
        output = backbone(self.model)(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache.cache, use_cache=True
        )
        hidden = output.last_hidden_state
        return hidden if keep is None else hidden[:, hidden.shape[1] - keep :]

    def lm_head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., D)."""
        return logits_of(self.model, states)


def context_of(config: Any) -> float:
    """How many tokens a model with this config was made to read at once; infinity if it does not say."""
    text = config.get_text_config()
    return next(
        (n for name in ("max_position_embeddings", "n_positions") if (n := getattr(text, name, None))), math.inf
    )


def backbone(model: nn.Module) -> nn.Module:
    """The part of a causal language model that ends at the last states."""
    decoder = model.get_decoder()
    return model.base_model if decoder is model else decoder  # transformers 4 knows no decoder of GPT-2 or GPT-NeoX


def logits_of(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Logits (..., V) of last states (..., D); some families scale or cap what the projection gives."""
    logits, config = model.get_output_embeddings()(states), model.config.get_text_config()
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2 and later
        logits = cap * torch.tanh(logits / cap)
    return logits


@torch.no_grad()
def is_known(model: nn.Module) -> bool:
    """Whether `backbone` and `logits_of` give `model`'s own logits; tried on three tokens."""
    ids = torch.arange(3, device=model.device)[None]
    theirs = model(input_ids=ids).logits.float()
    ours = logits_of(model, backbone(model)(input_ids=ids).last_hidden_state).float()
    return bool(torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2))


def open_trunk(model: nn.Module, *, rows: int | None = None, owned: bool = False) -> Trunk:
    """`model` as it is now; `rows` says that about so many tokens will go through at a time, if they are few.

    `owned` says that nobody else uses `model`, so that its weights may be freed as they are copied.
    """
    return llama.Llama(model, rows=rows, owned=owned) if runs_fast(model) else Transformers(model)


def runs_fast(model: nn.Module) -> bool:
    """Whether `llama.Llama` runs `model`."""
    return llama.is_supported(model) and not torch.is_autocast_enabled("cpu")
