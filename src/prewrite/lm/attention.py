"""Norms, positions and attention of a Llama-style block, for the passes in `llama` and `lora` alike.

Heads stand in the last dimension but one, (..., heads, size), whatever stands before it: rows and tokens, or tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

LONG = 400  # queries of one key head beyond which the fused kernel is the faster one
BLOCK_ROWS = 256  # tokens that elementwise operations go through at a time
MOST_SCORES = 2**24  # attention scores held at once, 32 MB in bf16


class Heads(NamedTuple):
    """How many heads a model's attention has; several of the queries share one of the keys and values."""

    queries: int
    keys: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """Those of a model with this config."""
        return cls(config.num_attention_heads, config.num_key_value_heads)

    def queries_keys_values(
        self, qkv: torch.Tensor, norms: Norms, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parts of a fused projection (..., all heads, size), positions rotated into the first two."""
        turned = self.queries + self.keys
        qk, values = qkv[..., :turned, :], qkv[..., turned:, :]
        if norms.queries is not None:
            queries, keys = qk.split((self.queries, self.keys), dim=-2)
            qk = torch.cat([norms(queries, norms.queries, qkv.dtype), norms(keys, norms.keys, qkv.dtype)], dim=-2)
        qk = torch.addcmul(qk * cos, qk.roll(qk.shape[-1] // 2, -1), sin)
        return qk[..., : self.queries, :], qk[..., self.queries :, :], values

    def projection_gradient(
        self,
        parts: Sequence[torch.Tensor],
        qkv: torch.Tensor,
        norms: Norms,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """The gradient of `qkv` for `parts`, those of the three that `queries_keys_values` gives."""
        queries, keys, values = parts
        if norms.queries is not None:
            with torch.enable_grad():
                leaf = qkv.detach().requires_grad_()
                given = self.queries_keys_values(leaf, norms, cos, sin)
            return torch.autograd.grad(given, leaf, (queries, keys, values))[0]
        qk = torch.cat([queries, keys], dim=-2)
        turned = (qk * sin).roll(qk.shape[-1] // 2, -1)
        return torch.cat([turned.addcmul_(qk, cos), values], dim=-2)

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        bias: torch.Tensor | None,
        shared: Iterable[tuple[slice, torch.Tensor, torch.Tensor]] = (),
    ) -> torch.Tensor:
        """(B, T, heads * size) of queries (B, heads, T, size), keys and values (B, key heads, S, size).

        The queries that share a key head are treated as one head's longer text; so is `bias`, see `bias_of`. `shared`
        are keys and values (key heads, P, size) that stand before the own ones of some rows.
        """
        rows, _, width, size = queries.shape
        longer = queries.reshape(rows, self.keys, -1, size)
        parts = [
            attention_after(longer[some], keys_before, values_before, keys[some], values[some], _of_rows(bias, some))
            for some, keys_before, values_before in shared
        ]
        out = torch.cat(parts) if parts else attention(longer, keys, values, bias)
        return out.view(rows, self.queries, width, size).transpose(1, 2).reshape(rows, width, -1)

    def bias_of(self, allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What is added to attention scores where (B or 1, T, S) tokens may or may not look: 0, or the lowest number.

        (B or 1, 1, queries per key head * T, S). The lowest number is finite: a padded row sees nothing, and must not
        become NaN.
        """
        bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        return bias[:, None].repeat(1, 1, self.queries // self.keys, 1)


class Norms(NamedTuple):
    """The weights of a block's norms, in fp32; those per head, of queries and keys, only where a family has them."""

    attention: torch.Tensor
    feed_forward: torch.Tensor
    queries: torch.Tensor | None
    keys: torch.Tensor | None
    eps: float

    @classmethod
    def of(cls, layer: nn.Module, config: Any) -> Norms:
        """Those of a transformers block."""

        def weight(module: nn.Module | None) -> torch.Tensor | None:
            return None if module is None else module.weight.detach().float()

        attention = layer.self_attn
        return cls(
            weight(layer.input_layernorm),
            weight(layer.post_attention_layernorm),
            weight(getattr(attention, "q_norm", None)),
            weight(getattr(attention, "k_norm", None)),
            config.rms_norm_eps,
        )

    def __call__(self, x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`x` with its root mean square brought to `weight`; computed in fp32, returned in `dtype`."""
        return rms_norm(x, weight, self.eps, dtype)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """x / sqrt(mean x^2 + eps) * weight over the last dimension; computed in fp32, returned in `dtype`."""
    if len(x) <= BLOCK_ROWS or (x.requires_grad and torch.is_grad_enabled()):
        return F.rms_norm(x.float(), weight.shape, weight, eps).to(dtype)
    out = x.new_empty(x.shape, dtype=dtype)
    for part, result in in_blocks(x, out):
        result.copy_((part * inverse_rms(part, eps)).mul_(weight))
    return out


def inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean x^2 + eps) over the last dimension, which stays as one of 1; in fp32."""
    x = x.float()
    return torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)


def add_rows(x: torch.Tensor, step: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """x + step into `out`, which may be `x`; sums of fp32 and bf16 copy what they add, here no more than a block."""
    for parts in in_blocks(x, step, out):
        torch.add(*parts[:2], out=parts[2])
    return out


def in_blocks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same rows of each of `tensors`, few enough at a time to stay in the processor's cache."""
    return zip(*(tensor.split(BLOCK_ROWS) for tensor in tensors), strict=True)


def angles(rotary: nn.Module, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (B, T, 1, size) in `like`'s dtype; of the sines the first half is negated.

    That is for `roll`, which swaps the halves of a head and keeps their sign.
    """
    cos, sin = rotary(like, positions)
    half = cos.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[:, :, None], sin[:, :, None]


def causal(width: int, before: int) -> torch.Tensor:
    """(width, before + width): each of `width` new tokens may look at those before it and at itself."""
    return torch.ones(width, before + width, dtype=torch.bool).tril(before)


def attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """softmax(Q K' / sqrt(size) + bias) V; (B, heads, T, size).

    In bf16 torch's fused kernel takes as long as its parts for short texts, and half as long for long ones (measured
    on one core with AMX); with its backward pass it takes five times as long.
    """
    count, heads, width, size = queries.shape
    fused = queries.dtype == torch.float32 or count * heads * width * keys.shape[2] > MOST_SCORES
    if fused or (width > LONG and not queries.requires_grad):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    scores = (queries * size**-0.5) @ keys.transpose(2, 3)
    return (scores if bias is None else scores + bias).softmax(-1) @ values


def attention_after(
    queries: torch.Tensor,
    keys_before: torch.Tensor,
    values_before: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """`attention` of rows that all see the same P tokens, (heads, P, size), before their own.

    What is shared is multiplied by the queries of all rows at once, where there is room for their scores.
    """
    count, heads, width, size = queries.shape
    before = keys_before.shape[1]
    if count * heads * width * (before + keys.shape[2]) > MOST_SCORES:
        keys = torch.cat([keys_before.expand(count, -1, -1, -1), keys], dim=2)
        values = torch.cat([values_before.expand(count, -1, -1, -1), values], dim=2)
        return attention(queries, keys, values, bias if bias is None else F.pad(bias, (before, 0)))
    together = (queries * size**-0.5).transpose(0, 1)  # (heads, B, T, size)
    flat = together.reshape(heads, -1, size)
    own = together @ keys.permute(1, 0, 3, 2)
    own = own if bias is None else own + bias.transpose(0, 1)
    scores = torch.cat([(flat @ keys_before.transpose(1, 2)).view(heads, count, width, -1), own], dim=-1).softmax(-1)
    out = (scores[..., :before].reshape(heads, -1, before) @ values_before).view(heads, count, width, size)
    return (out + scores[..., before:] @ values.transpose(0, 1)).transpose(0, 1)


def _of_rows(bias: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    """The part of a bias (B or 1, ...) that is for some rows."""
    return bias if bias is None or len(bias) == 1 else bias[rows]
