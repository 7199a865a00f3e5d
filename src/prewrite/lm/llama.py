"""Llama-style models (llama, qwen2, qwen3) on a CPU in fp32 or bf16, without the overhead of a general forward pass.

Same numbers as transformers up to rounding, for inference only. What makes it fast: queries, keys and values are one
product, gate and up another; keys and values are written into memory reserved beforehand; in fp32 LoRA adapters are
merged into a copy of the weights; the last layer computes only the states that are asked for. With `rows` the copy is
laid out the way oneDNN multiplies few rows fastest (SmolLM2's vocabulary projection at 16 rows: 2x; at 128 rows and
more nothing in fp32, and a fifth in bf16).

In bf16 the weights, the operands of products and the cache are bf16; the residual stream and the norms are fp32, so
that the result is nearer to fp32 than that of a model run wholly in bf16.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import torch
from torch import nn

from prewrite.lm.attention import Heads, Norms, add_rows, angles, causal, rms_norm
from prewrite.lm.cache import Cache
from prewrite.lm.linear import Gated, Linear, Projection, can_merge, projections
from prewrite.lm.packing import Padding

MODEL_TYPES = ("llama", "qwen2", "qwen3")
MANY_ROWS = 512  # in bf16 one layout is right for any number of rows
ROPE_TYPES = ("default", "linear", "llama3")  # those whose angles do not depend on the length of the text


def is_supported(model: nn.Module) -> bool:
    """Whether `model`, a transformers causal language model, possibly with PEFT's LoRA inside, can be run here."""
    config = model.config
    rope = getattr(config, "rope_scaling", None) or {}
    return (
        config.model_type in MODEL_TYPES
        and type(model.lm_head) is nn.Linear
        and type(model.model.embed_tokens) is nn.Embedding
        and model.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and (model.dtype == torch.float32 or (model.dtype == torch.bfloat16 and has_bf16()))
        and config.hidden_act == "silu"
        and getattr(config, "pretraining_tp", 1) == 1
        and not getattr(config, "use_sliding_window", False)
        and rope.get("rope_type", rope.get("type", "default")) in ROPE_TYPES
        and all(can_merge(module) for layer in model.model.layers for module in projections(layer))
    )


def has_bf16() -> bool:
    """Whether the CPU has instructions for bf16, and torch uses them.

    With AVX-512 alone torch offers bf16 too, by way of fp32, which is slower than fp32 itself.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    emulated = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and not emulated


class Layer(NamedTuple):
    """One transformer block's weights."""

    qkv: Linear
    out: Linear
    gated: Gated
    down: Linear
    norms: Norms


class Llama:
    """A copy of `model`'s weights, adapters included; `rows` lays them out for that many tokens at a time.

    `owned`: nobody else uses `model`, whose weights are given up as they are copied, so that memory never holds both.
    """

    window = math.inf  # every token attends to all tokens before it
    stems = sys.maxsize
    branches = True

    def __init__(self, model: nn.Module, *, rows: int | None = None, owned: bool = False):
        config = model.config
        self.heads = Heads.of(config)
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.heads.queries
        trunk = model.model
        self.embedding = trunk.embed_tokens.weight.detach()
        self.dtype = self.embedding.dtype
        if self.dtype == torch.bfloat16 and rows is None:
            rows = MANY_ROWS
        self.layers = []
        for layer in trunk.layers:
            self.layers.append(_layer(layer, config, rows))
            if owned:
                for module in projections(layer):
                    del module.weight
        self.norm, self.eps = trunk.norm.weight.detach().float(), config.rms_norm_eps
        self.lm_head = Projection([model.lm_head]).linear(rows)
        self.rotary = trunk.rotary_emb

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` rows of up to `capacity` tokens."""
        shape = (rows, self.heads.keys, capacity, self.head_size)
        return Cache(
            [self.embedding.new_empty(shape) for _ in self.layers],
            [self.embedding.new_empty(shape) for _ in self.layers],
            0,
        )

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        mask: torch.Tensor | None = None,
        *,
        keep: int | None = None,
    ) -> torch.Tensor:
        """Last hidden states (B, keep, D), of the last `keep` tokens (all by default); `cache` grows by T tokens.

        ids, positions (B, T). `mask` (B, S) is True at the cached and new tokens of a row's own that may be looked at;
        None: all. Tokens of a stem are seen by all its rows. New tokens that may not be looked at are padding: they
        cost no products, and their states mean nothing. A mask (B, T, S) says it of each new token apart, none of
        which is padding.
        """
        count, width = ids.shape
        keep = width if keep is None else keep
        real = ids.new_ones(ids.shape, dtype=torch.bool)
        if mask is not None and mask.dim() == 3:
            allowed = mask
        else:
            allowed = None if mask is None and width == 1 else causal(width, cache.length)[None]
            if mask is not None:
                allowed, real = allowed & mask.bool()[:, None], mask[:, -width:].bool()
        bias = None if allowed is None else self.heads.bias_of(allowed, self.dtype)
        padding = Padding(real)
        cos, sin = angles(self.rotary, self.embedding, padding.pack(positions)[None])
        x = self.embedding[padding.pack(ids)].float()  # (N, D), real tokens only
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.norms(x, layer.norms.attention, self.dtype)).view(len(x), -1, self.head_size)
            parts = self.heads.queries_keys_values(qkv, layer.norms, cos[0], sin[0])
            queries, keys, values = (padding.pad(part).transpose(1, 2) for part in parts)
            own = cache.write(index, keys, values)
            if index == last and keep == 0:
                break
            if index == last and keep < width:  # nothing looks at the other tokens' last states
                queries, x = queries[:, :, width - keep :], padding.pad(x)[:, width - keep :].flatten(0, 1)
                bias = None if allowed is None else self.heads.bias_of(allowed[:, width - keep :], self.dtype)
                padding = Padding(ids.new_ones(count, keep, dtype=torch.bool))
            add_rows(x, layer.out(padding.pack(self.heads.attend(queries, *own, bias, cache.shared(index)))), out=x)
            add_rows(x, layer.down(layer.gated(layer.norms(x, layer.norms.feed_forward, self.dtype))), out=x)
        cache.length += width
        if keep == 0:
            return x.new_empty(count, 0, len(self.norm))
        return padding.pad(rms_norm(x, self.norm, self.eps, self.dtype))


def _layer(layer: nn.Module, config: Any, rows: int | None) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        Projection([attention.q_proj, attention.k_proj, attention.v_proj]).linear(rows),
        Projection([attention.o_proj]).linear(rows),
        Gated(mlp.gate_proj, mlp.up_proj, rows),
        Projection([mlp.down_proj]).linear(rows),
        Norms.of(layer, config),
    )
