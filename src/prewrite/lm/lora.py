"""A Llama-style model with LoRA on a CPU in fp32 or bf16: prompts and completions in one pass, gradients by hand.

What it computes is what transformers and PEFT compute (`tests/rewriter/test_policy.py`). What makes it fast:
- only real tokens are multiplied: prompts and completions are packed into one list, (N, D), and padded for attention;
- in fp32 adapters are merged into the weights for the pass (W + s BA costs as much as 10 tokens), so that forward and
  the gradient of the input are one product per layer input; the adapters' gradients need products of their rank only;
- a layer keeps 9 D floats per token for the backward pass (SmolLM2: 21 KB); what is cheap is computed again;
- no gradient is computed for frozen weights, nor below the first layer.
In bf16 (as in `llama`) the operands of products are bf16; the residual stream, its gradient, the norms and the softmax
over the vocabulary are fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from prewrite.lm.attention import Heads, Norms, angles, rms_norm
from prewrite.lm.linear import Projection, projections
from prewrite.lm.packing import Completions, PackedLayout, Prompts
from prewrite.lm.trunk import SOFTMAX_ROWS, runs_fast


def computes(model: nn.Module) -> bool:
    """Whether this module can run `model`'s forward pass, and its gradient if gradients are on."""
    if not runs_fast(model):
        return False
    if torch.is_grad_enabled() and any(p.requires_grad and ".lora_" not in n for n, p in model.named_parameters()):
        return False
    return all(_is_plain(module) for layer in model.model.layers for module in projections(layer))


def _is_plain(module: nn.Module) -> bool:
    if type(module) is nn.Linear:
        return True
    dropout = any(getattr(drop, "p", 0.0) > 0 for drop in module.lora_dropout.values())
    return not (module.merged or module.fan_in_fan_out or (dropout and module.training))


class Block:
    """One transformer block on packed tokens, forward and back."""

    def __init__(self, layer: nn.Module, config: Any, layout: PackedLayout, cos: torch.Tensor, sin: torch.Tensor):
        attention, mlp = layer.self_attn, layer.mlp
        self.layout, self.cos, self.sin, self.dtype = layout, cos, sin, cos.dtype
        self.heads, self.norms = Heads.of(config), Norms.of(layer, config)
        self.qkv = Projection([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = Projection([attention.o_proj])
        self.gate_up = Projection([mlp.gate_proj, mlp.up_proj])
        self.down = Projection([mlp.down_proj])

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Every trainable tensor, in the order in which `backward` answers."""
        return [p for part in (self.qkv, self.out, self.gate_up, self.down) for p in part.parameters]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(N, D) -> (N, D), and what `backward` needs."""
        qkv = self.qkv.linear()(self.norms(x, self.norms.attention, self.dtype))
        middle = x + self.out.linear()(self.attend(qkv))
        gate_up = self.gate_up.linear()(self.norms(middle, self.norms.feed_forward, self.dtype))
        gate, up = gate_up.chunk(2, 1)
        out = middle + self.down.linear()(F.silu(gate).mul_(up))
        return out, (x, qkv, middle, gate_up)

    def backward(
        self,
        upstream: torch.Tensor,
        x: torch.Tensor,
        qkv: torch.Tensor,
        middle: torch.Tensor,
        gate_up: torch.Tensor,
        *,
        wants_input: bool,
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The gradient of the input (None if not wanted) and those of `parameters`."""
        gate, up = gate_up.chunk(2, 1)
        sigmoid = gate.sigmoid()
        silu = gate * sigmoid
        low = upstream.to(self.dtype)
        down = self.down.gradients(silu * up, low) if self.down.parameters else []
        inner = self.down.linear().input_gradient(low)
        # d silu(g) / dg = sigmoid(g) (1 + g (1 - sigmoid(g))) = sigmoid + silu (1 - sigmoid)
        slope = sigmoid.addcmul_(silu, 1 - sigmoid)
        inner = torch.cat([slope.mul_(up).mul_(inner), silu.mul_(inner)], dim=1)
        normed, rate = self._normed_and_rate(middle, self.norms.feed_forward)
        both = self.gate_up.gradients(normed, inner)
        step = self._norm_backward(self.gate_up.linear().input_gradient(inner), middle, rate, self.norms.feed_forward)
        upstream = upstream + step

        with torch.enable_grad():
            leaf = qkv.detach().requires_grad_()
            attended = self.attend(leaf)
        low = upstream.to(self.dtype)
        out = self.out.gradients(attended.detach(), low)
        (inner,) = torch.autograd.grad(attended, leaf, self.out.linear().input_gradient(low))
        normed, rate = self._normed_and_rate(x, self.norms.attention)
        three = self.qkv.gradients(normed, inner)
        if wants_input:
            step = self._norm_backward(self.qkv.linear().input_gradient(inner), x, rate, self.norms.attention)
            return upstream + step, [*three, *out, *both, *down]
        return None, [*three, *out, *both, *down]

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """(N, heads and keys and values) -> (N, heads * size). Completions see their prompt, and themselves so far."""
        layout, heads, count = self.layout, self.heads, self.layout.prompt_count
        parts = heads.queries_keys_values(
            qkv.view(len(qkv), heads.queries + 2 * heads.keys, -1), self.norms, self.cos, self.sin
        )
        queries, keys, values = (layout.prompts.pad(part[:count]).transpose(1, 2) for part in parts)
        prompts = layout.prompts.pack(heads.attend(queries, keys, values, layout.prompt_bias))
        if layout.completions.count == 0:
            return prompts
        own_queries, own_keys, own_values = (layout.completions.pad(part[count:]).transpose(1, 2) for part in parts)
        keys = torch.cat([keys.index_select(0, layout.rows), own_keys], dim=2)
        values = torch.cat([values.index_select(0, layout.rows), own_values], dim=2)
        own = layout.completions.pack(heads.attend(own_queries, keys, values, layout.completion_bias))
        return torch.cat([prompts, own])

    def _normed_and_rate(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rate = torch.rsqrt(x.square().mean(1, keepdim=True) + self.norms.eps)
        return (x * rate * weight).to(self.dtype), rate

    def _norm_backward(
        self, upstream: torch.Tensor, x: torch.Tensor, rate: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """y = x r w with r = (mean x^2 + eps)^-1/2, so dx = r (g - x r^2 mean(g x)) with g = w dy."""
        scaled = upstream * weight
        inner = (scaled * x).mean(1, keepdim=True) * rate.square()
        return scaled.addcmul_(x, -inner).mul_(rate)


class _BlockFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Block, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        out, kept = block.forward(x)
        ctx.block = block
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        step, gradients = ctx.block.backward(upstream, *ctx.saved_tensors, wants_input=ctx.needs_input_grad[1])
        return None, step, *gradients


def completion_states(model: nn.Module, prompts: Prompts, completions: Completions) -> torch.Tensor:
    """The state before each completion token, and after a row's last; (B, T, D), 0 further on."""
    trunk, config = model.model, model.config
    layout = PackedLayout(prompts, completions, Heads.of(config), model.dtype)
    with torch.no_grad():
        embedded = trunk.embed_tokens(layout.ids)
        cos, sin = (part[0] for part in angles(trunk.rotary_emb, embedded[None], layout.positions[None]))
    x = embedded.float()
    for layer in trunk.layers:
        block = Block(layer, config, layout, cos, sin)
        x = _BlockFunction.apply(block, x, *block.parameters)
    return layout.gather_states(rms_norm(x, trunk.norm.weight.detach().float(), config.rms_norm_eps, x.dtype))


class _LogprobFunction(torch.autograd.Function):
    """Log-probabilities under a frozen vocabulary projection; the gradient is computed with them, chunk by chunk.

    `chunk` tokens are multiplied at a time; of those, a few at a time go through the softmax, in memory that stays in
    the processor's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, temperature: float, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count, width = len(states), len(weight)
        logprobs, entropy, totals = states.new_empty((3, count))
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        block = weight.new_empty(min(chunk, count), width)
        logits, exps = states.new_empty((2, SOFTMAX_ROWS, width))
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            whole = torch.mm(states[part].to(weight.dtype), weight.t(), out=block[: part.stop - start])
            for at in range(start, part.stop, SOFTMAX_ROWS):
                few = slice(at, min(at + SOFTMAX_ROWS, part.stop))
                size = few.stop - at
                low = whole[at - start : few.stop - start]
                shifted = logits[:size].copy_(low)
                if temperature != 1:
                    shifted /= temperature
                shifted -= shifted.amax(1, keepdim=True)
                weights = torch.exp(shifted, out=exps[:size])
                total = totals[few] = weights.sum(1)
                norm = total.log()
                logprobs[few] = shifted.gather(1, tokens[few, None]).squeeze(1) - norm
                entropy[few] = norm - torch.linalg.vecdot(shifted, weights) / total
                if slopes is not None:
                    low.copy_(weights)
            if slopes is not None:  # d log p(token) / d state = (row of the token - mean row) / temperature
                mean = (whole @ weight).float() / totals[part, None]
                slopes[part] = (weight[tokens[part]] - mean) / temperature
        ctx.mark_non_differentiable(entropy)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None] * slopes, None, None, None, None


def token_logprobs(
    weight: torch.Tensor, states: torch.Tensor, tokens: torch.Tensor, temperature: float, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (without gradient) per token, (N,) each; `weight` (V, D) must be frozen."""
    return _LogprobFunction.apply(states, weight, tokens, temperature, chunk)
