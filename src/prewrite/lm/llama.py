"""Llama-style models (llama, qwen2, qwen3) on a CPU in fp32 or bf16, without the overhead of a general forward pass.

Same numbers as transformers up to rounding, for inference only. What it saves: queries, keys and values are one
product, gate and up another; keys and values go into room laid out beforehand; in fp32 LoRA adapters are merged into a
copy; the last layer computes only the states that are asked for. With `rows` the copy is laid out the way oneDNN
multiplies few rows fastest (SmolLM2's vocabulary projection at 16 rows: 2x; at 128 rows and more nothing in fp32, and
a fifth in bf16).

In bf16 the weights, the operands of products and the cache are bf16; the stream that layers add to is fp32, as are the
norms, so that it is nearer to fp32 than a model run wholly in bf16.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from prewrite.lm.linear import Linear, can_merge, fused, projections

MODEL_TYPES = ("llama", "qwen2", "qwen3")
MANY_ROWS = 512  # in bf16 one layout serves all numbers of rows
MOST_SCORES = 2**24  # attention scores held at once, 32 MB in bf16
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
    gate_up: Linear
    down: Linear
    norms: tuple[torch.Tensor, torch.Tensor]  # before attention, before the feed-forward part
    qk_norms: tuple[torch.Tensor, torch.Tensor] | None  # qwen3: per head, of queries and of keys


class Cache:
    """Keys and values of the tokens so far, (B, key heads, capacity, head size) per layer."""

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor], length: int):
        self.keys, self.values, self.length = keys, values, length

    def select(self, rows: torch.Tensor, *, room: int = 0) -> Cache:
        """A copy of some rows (repetitions allowed), with room for `room` more tokens."""
        length = self.length

        def copy(block: torch.Tensor) -> torch.Tensor:
            _, heads, _, size = block.shape
            new = block.new_empty(len(rows), heads, length + room, size)
            new[:, :, :length] = block[rows, :, :length]
            return new

        return Cache([copy(block) for block in self.keys], [copy(block) for block in self.values], length)

    def crop(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = length

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a layer's keys and values (B, heads, T, size); returns those of all tokens. `length` stays."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class Llama:
    """A copy of `model`'s weights, adapters included; `rows` lays them out for that many tokens at a time.

    `owned`: nobody else uses `model`, whose weights are given up as they are copied, so that memory never holds both.
    """

    window = math.inf  # every token looks all the way back

    def __init__(self, model: nn.Module, *, rows: int | None = None, owned: bool = False):
        config = model.config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        trunk = model.model
        self.embedding = trunk.embed_tokens.weight.detach()
        if self.embedding.dtype == torch.bfloat16 and rows is None:
            rows = MANY_ROWS
        self.layers = []
        for layer in trunk.layers:
            self.layers.append(self._layer(layer, rows))
            if owned:
                for module in projections(layer):
                    del module.weight
        self.norm = trunk.norm.weight.detach().float()
        self.lm_head = fused([model.lm_head], rows)
        self.rotary = trunk.rotary_emb

    def _layer(self, layer: nn.Module, rows: int | None) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        qk_norms = None
        if hasattr(attention, "q_norm"):
            qk_norms = attention.q_norm.weight.detach().float(), attention.k_norm.weight.detach().float()
        return Layer(
            fused([attention.q_proj, attention.k_proj, attention.v_proj], rows),
            fused([attention.o_proj], rows),
            fused([mlp.gate_proj, mlp.up_proj], rows),
            fused([mlp.down_proj], rows),
            (layer.input_layernorm.weight.detach().float(), layer.post_attention_layernorm.weight.detach().float()),
            qk_norms,
        )

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` rows of up to `capacity` tokens."""
        shape = (rows, self.key_heads, capacity, self.head_size)
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

        ids, positions (B, T). `mask` (B, S) is True at the cached and new tokens that may be looked at; None: all.
        """
        count, width = ids.shape
        keep = width if keep is None else keep
        allowed = self._allowed(width, cache.length, mask)
        bias = self._bias(allowed)
        cos, sin = self._angles(positions)
        x = self.embedding[ids].view(count * width, -1).float()
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            queries, keys, values = self._queries_keys_values(layer, x, cos, sin, (count, width))
            keys, values = cache.write(index, keys, values)
            if index == last and keep < width:  # nothing looks at the other tokens' last states
                queries, x = queries[:, :, width - keep :], x.view(count, width, -1)[:, width - keep :].flatten(0, 1)
                bias = self._bias(None if allowed is None else allowed[:, :, width - keep :])
            if keep == 0 and index == last:
                break
            x = x + layer.out(self._attend(queries, keys, values, bias))
            gate, up = layer.gate_up(self._normed(x, layer.norms[1])).chunk(2, -1)
            x = x + layer.down(F.silu(gate).mul_(up))
        cache.length += width
        return self._normed(x, self.norm).view(count, keep, x.shape[1])

    def _queries_keys_values(self, layer: Layer, x, cos, sin, shape):
        """(B, heads, T, size) each; positions are rotated in."""
        turned = self.heads + self.key_heads
        qkv = layer.qkv(self._normed(x, layer.norms[0])).view(*shape, turned + self.key_heads, self.head_size)
        qk = qkv[:, :, :turned]
        if layer.qk_norms is not None:
            q, k = qk.split((self.heads, self.key_heads), dim=2)
            qk = torch.cat([self._normed(q, layer.qk_norms[0]), self._normed(k, layer.qk_norms[1])], dim=2)
        qk = torch.addcmul(qk * cos, qk.roll(self.head_size // 2, -1), sin).transpose(1, 2)
        return qk[:, : self.heads], qk[:, self.heads :], qkv[:, :, turned:].transpose(1, 2)

    def _attend(self, queries, keys, values, bias) -> torch.Tensor:
        """(B * T, heads * size). The queries that share a key head are treated as one head's longer text."""
        count, _, width, size = queries.shape
        grouped = queries.reshape(count, self.key_heads, -1, size)
        out = attention(grouped, keys, values, bias)
        return out.view(count, self.heads, width, size).transpose(1, 2).reshape(count * width, -1)

    def _allowed(self, width: int, before: int, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Which tokens each token may look at, (B or 1, 1, T, S); None: all."""
        if mask is None and width == 1:
            return None
        allowed = torch.ones(width, before + width, dtype=torch.bool).tril(before)[None, None]
        return allowed if mask is None else allowed & mask.bool()[:, None, None]

    def _bias(self, allowed: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to the attention scores of grouped queries: 0 where one may look, else the lowest number."""
        if allowed is None:
            return None
        low = torch.finfo(self.embedding.dtype).min  # finite: a padded row sees nothing, and must not become NaN
        bias = torch.zeros(allowed.shape, dtype=self.embedding.dtype).masked_fill_(~allowed, low)
        return bias.repeat(1, 1, self.heads // self.key_heads, 1)

    def _angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (B, T, 1, size); the first half of the sines negated, as `roll` swaps the halves."""
        cos, sin = self.rotary(self.embedding, positions)
        half = self.head_size // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        return cos[:, :, None], sin[:, :, None]

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Computed in fp32, returned in the weights' dtype."""
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(self.embedding.dtype)


def attention(queries, keys, values, bias: torch.Tensor | None) -> torch.Tensor:
    """softmax(Q K' / sqrt(size) + bias) V; (B, heads, T, size).

    In bf16 torch's fused kernel takes twice as long as its parts, and five times as long there and back, so it is left
    to texts whose scores would need much room.
    """
    count, heads, width, size = queries.shape
    if queries.dtype == torch.float32 or count * heads * width * keys.shape[2] > MOST_SCORES:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    scores = (queries * size**-0.5) @ keys.transpose(2, 3)
    return (scores if bias is None else scores + bias).softmax(-1) @ values
