"""The linear layers of a transformers block, with or without LoRA, in as few matrix products as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Adapter(NamedTuple):
    """LoRA of one projection: W + scale * B A."""

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float


class LowRank(NamedTuple):
    """The adapters of projections of one input, side by side: x -> x A' B', scales included."""

    a: torch.Tensor  # (all r, in)
    b: torch.Tensor  # (out, all r), 0 where a column is not of the row's projection


class Linear:
    """x -> x W' + b for several projections of one input, side by side; optionally laid out for `rows` rows.

    Adapters that stand apart are then part of the product, [x | x A'] [W | B]'.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        rows: int | None = None,
        low_rank: LowRank | None = None,
    ):
        self.bias, self.low_rank, self.weight = bias, low_rank, weight
        self.packed = rows is not None
        if self.packed:
            wide = weight if low_rank is None else torch.cat([weight, low_rank.b], dim=1)
            self.weight = torch.ops.mkldnn._reorder_linear_weight(wide, rows)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in) -> (N, out), in the weights' dtype."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(self.widen(x), self.weight, self.bias, "none", [], "")
        out = F.linear(x, self.weight, self.bias)
        return out if self.low_rank is None else out.addmm_(x @ self.low_rank.a.t(), self.low_rank.b.t())

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """What a laid-out `weight` is multiplied by: (N, in), or with adapters that stand apart (N, in + all r)."""
        return x if self.low_rank is None else torch.cat([x, x @ self.low_rank.a.t()], dim=1)

    def halves(self, rows: int) -> list[Linear]:
        """The first and the second half of the outputs as two, laid out for `rows` rows; they widen x alike."""
        biases = (None, None) if self.bias is None else self.bias.chunk(2)
        lows: Sequence[LowRank | None] = (None, None)
        if self.low_rank is not None:
            lows = [LowRank(self.low_rank.a, b) for b in self.low_rank.b.chunk(2)]
        parts = zip(self.weight.chunk(2), biases, lows, strict=True)
        return [Linear(weight, bias, rows=rows, low_rank=low) for weight, bias, low in parts]


def projections(layer: nn.Module) -> list[nn.Module]:
    """The seven linear layers of a transformers block."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


def can_merge(module: nn.Module) -> bool:
    """A plain linear layer, or one with plain LoRA on it."""
    if type(module) is nn.Linear:
        return True
    return (
        hasattr(module, "lora_variant")
        and type(module.get_base_layer()) is nn.Linear
        and not module.lora_variant
        and not any(module.lora_bias.values())
    )


def adapters_of(module: nn.Module) -> list[Adapter]:
    """The LoRA adapters that are at work on a projection, beside its weight."""
    if type(module) is nn.Linear or module.disable_adapters or module.merged:
        return []
    names = [name for name in module.active_adapters if name in module.lora_A]
    return [Adapter(module.lora_A[n].weight, module.lora_B[n].weight, module.scaling[n]) for n in names]


def side_by_side(weights: list[torch.Tensor], adapters: list[list[Adapter]]) -> LowRank | None:
    """One low-rank product for the adapters of each of `weights`, in their dtype; None without adapters.

    bf16 adapters stay apart: a change of a weight below a part in 256 would be rounded away in it.
    """
    kind = weights[0].dtype
    all_a = [adapter.a.detach().to(kind) for group in adapters for adapter in group]
    if not all_a:
        return None
    b = weights[0].new_zeros(sum(map(len, weights)), sum(map(len, all_a)))
    row = column = 0
    for weight, group in zip(weights, adapters, strict=True):
        for adapter in group:
            b[row : row + len(weight), column : column + len(adapter.a)] = adapter.scale * adapter.b.detach()
            column += len(adapter.a)
        row += len(weight)
    return LowRank(torch.cat(all_a), b)


def fused_bias(bases: list[nn.Linear]) -> torch.Tensor | None:
    """The biases of projections side by side, 0 for those without one; None if none has one."""
    if all(base.bias is None for base in bases):
        return None
    return torch.cat([b.weight.new_zeros(len(b.weight)) if b.bias is None else b.bias.detach() for b in bases])


class Projection:
    """Projections of one input, side by side, each with or without an adapter."""

    def __init__(self, modules: list[nn.Module]):
        bases = [getattr(module, "base_layer", module) for module in modules]
        self.weights = [base.weight.detach() for base in bases]
        self.bias = fused_bias(bases)
        self.adapters = [adapters_of(module) for module in modules]

    @property
    def parameters(self) -> list[torch.Tensor]:
        """A and B of every adapter, in the order in which `gradients` answers."""
        return [tensor for group in self.adapters for adapter in group for tensor in (adapter.a, adapter.b)]

    def linear(self, rows: int | None = None) -> Linear:
        """All of them as one, adapters included: merged in fp32, apart in bf16; laid out for `rows` rows if given."""
        if self.weights[0].dtype == torch.float32:
            return Linear(self._merged(), self.bias, rows=rows)
        weight = self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)
        return Linear(weight, self.bias, rows=rows, low_rank=side_by_side(self.weights, self.adapters))

    def _merged(self) -> torch.Tensor:
        if len(self.weights) == 1 and not self.adapters[0]:
            return self.weights[0]
        merged = torch.cat(self.weights)
        for part, group in zip(merged.split([len(w) for w in self.weights]), self.adapters, strict=True):
            for adapter in group:
                part.addmm_(adapter.b.detach(), adapter.a.detach(), alpha=adapter.scale)
        return merged

    def backward(self, upstream: torch.Tensor) -> Backward:
        """What takes the gradient of the outputs (N, out) back through all of them."""
        return Backward(self, upstream)


class Backward:
    """The gradient of a projection's input, then those of its adapters."""

    def __init__(self, projection: Projection, upstream: torch.Tensor):
        self.linear = projection.linear()
        kind = projection.weights[0].dtype
        self.adapters = [adapter for group in projection.adapters for adapter in group]
        slices = zip(upstream.split([len(w) for w in projection.weights], dim=1), projection.adapters, strict=True)
        self.upstream = upstream
        self.parts = [part for part, group in slices for _ in group]  # (N, out) of each adapter
        if self.adapters:
            self.a = torch.cat([x.a.detach() for x in self.adapters]).to(kind)  # (all r, in)
            lows = [
                part @ (x.scale * x.b.detach()).to(kind) for part, x in zip(self.parts, self.adapters, strict=True)
            ]
            self.low = torch.cat(lows, dim=1)  # (N, all r)

    def input_gradient(self) -> torch.Tensor:
        """(N, in)."""
        found = self.upstream @ self.linear.weight
        return found if self.linear.low_rank is None else found.addmm_(self.low, self.a)

    def gradients(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Those of `Projection.parameters`, for inputs (N, in)."""
        if not self.adapters:
            return []
        ranks = [len(adapter.a) for adapter in self.adapters]
        all_a = (self.low.t() @ inputs).split(ranks)
        middles = (inputs @ self.a.t()).split(ranks, dim=1)
        found = []
        for x, part, a, middle in zip(self.adapters, self.parts, all_a, middles, strict=True):
            found += [a.to(x.a.dtype), (part.t() @ middle).to(x.b.dtype).mul_(x.scale)]
        return found


class Gated:
    """x -> silu(x G' + g) * (x U' + u), the first half of a block's feed-forward part.

    The function and the product are done by the matrix products as they write, if weights are laid out for rows.
    """

    def __init__(self, gate: nn.Module, up: nn.Module, rows: int | None):
        both = Projection([gate, up]).linear()
        self.both = both if rows is None else None
        self.halves = [] if rows is None else both.halves(rows)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in) -> (N, out), in the weights' dtype."""
        if self.both is not None:
            gate, up = self.both(x).chunk(2, -1)
            return F.silu(gate).mul_(up)
        first, second = self.halves
        x = first.widen(x)
        low = torch.ops.mkldnn._linear_pointwise(x, first.weight, first.bias, "swish", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, low, second.weight, second.bias, "mul")
