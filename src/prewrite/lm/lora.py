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

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from prewrite.lm.attention import Heads, Norms, add_rows, angles, in_blocks, inverse_rms, rms_norm
from prewrite.lm.linear import Projection, projections
from prewrite.lm.packing import Completions, PackedLayout, Padding, Prompts
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


class Section(NamedTuple):
    """Tokens that go through attention as one padded block."""

    padding: Padding
    bias: torch.Tensor
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # queries, keys, values (B, heads, T or more, size)


class Block:
    """One transformer block on packed tokens, forward and back."""

    def __init__(self, layer: nn.Module, config: Any, layout: PackedLayout, cos: torch.Tensor, sin: torch.Tensor):
        attention, mlp = layer.self_attn, layer.mlp
        self.layout, self.cos, self.sin, self.dtype = layout, cos, sin, cos.dtype
        self.heads, self.norms, self.size = Heads.of(config), Norms.of(layer, config), cos.shape[-1]
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
        middle = add_rows(x, self.out.linear()(self.attend(qkv)), out=torch.empty_like(x))
        gate_up = self.gate_up.linear()(self.norms(middle, self.norms.feed_forward, self.dtype))
        gate, up = gate_up.chunk(2, 1)
        out = add_rows(middle, self.down.linear()(F.silu(gate).mul_(up)), out=torch.empty_like(x))
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
        silu = F.silu(gate)
        last = self.down.backward(upstream.to(self.dtype))
        inner = last.input_gradient()
        down = last.gradients(silu * up)
        both = torch.cat([torch.ops.aten.silu_backward(inner * up, gate), silu.mul_(inner)], dim=1)
        two = self.gate_up.backward(both)
        step, normed = self._through_norm(two.input_gradient(), upstream, middle, self.norms.feed_forward)
        gate_up_gradients = two.gradients(normed)

        first = self.out.backward(step.to(self.dtype))
        attended, turned = self.attend_backward(qkv, first.input_gradient())
        out = first.gradients(attended)
        three = self.qkv.backward(turned)
        if wants_input:
            step, normed = self._through_norm(three.input_gradient(), step, x, self.norms.attention)
        else:
            normed = self.norms(x, self.norms.attention, self.dtype)
        gradients = [*three.gradients(normed), *out, *gate_up_gradients, *down]
        return step if wants_input else None, gradients

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """(N, heads and keys and values) -> (N, heads * size). Completions see their prompt, and themselves so far."""
        attended = [padding.pack(self.heads.attend(*parts, bias)) for padding, bias, parts in self._sections(qkv)]
        return torch.cat(attended)

    def attend_backward(self, qkv: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `attend` gives, and the gradient of `qkv` for that of what it gives."""
        heads, attended, done = self.heads, [], 0
        found = [qkv.new_empty(len(qkv), count, self.size) for count in (heads.queries, heads.keys, heads.keys)]
        for padding, bias, parts in self._sections(qkv):
            leaves = [part.detach().requires_grad_() for part in parts]
            with torch.enable_grad():
                result = heads.attend(leaves[0], leaves[1], leaves[2], bias)
            attended.append(padding.pack(result.detach()))
            here, width = slice(done, done + padding.count), padding.mask.shape[1]
            slopes = torch.autograd.grad(result, leaves, padding.spread(upstream[here]))
            for whole, slope in zip(found, slopes, strict=True):
                before, own = slope.split((slope.shape[2] - width, width), dim=2)
                whole[here] = padding.pack(own.transpose(1, 2))
                if before.shape[2]:  # the prompts' keys and values, which completions have looked at
                    whole[:done] += self.layout.sum_over_rows(before)
            done += padding.count
        gradient = heads.projection_gradient(found, self._heads_of(qkv), self.norms, self.cos, self.sin)
        return torch.cat(attended), gradient.view(qkv.shape)

    def _heads_of(self, qkv: torch.Tensor) -> torch.Tensor:
        return qkv.view(len(qkv), -1, self.size)

    def _sections(self, qkv: torch.Tensor) -> Iterator[Section]:
        """Queries, keys and values (B, heads, T, size) of the prompts, then of the completions after their prompts."""
        layout, count = self.layout, self.layout.prompt_count
        parts = self.heads.queries_keys_values(self._heads_of(qkv), self.norms, self.cos, self.sin)
        queries, keys, values = (layout.prompts.pad(part[:count]).transpose(1, 2) for part in parts)
        yield Section(layout.prompts, layout.prompt_bias, (queries, keys, values))
        if layout.completions.count:
            queries, *own = (layout.completions.pad(part[count:]).transpose(1, 2) for part in parts)
            pairs = zip((keys, values), own, strict=True)
            keys, values = (torch.cat([before.index_select(0, layout.rows), after], dim=2) for before, after in pairs)
            yield Section(layout.completions, layout.completion_bias, (queries, keys, values))

    def _through_norm(
        self, found: torch.Tensor, upstream: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`upstream` and the gradient of a norm's input `x`, whose output has the gradient `found`; and that output.

        y = x r w with r = (mean x^2 + eps)^-1/2, so dx = r (g - x r^2 mean(g x)) with g = w dy.
        """
        step, normed = torch.empty_like(x), found.new_empty(x.shape)
        for dy, above, here, result, output in in_blocks(found, upstream, x, step, normed):
            rate = inverse_rms(here, self.norms.eps)
            scaled = dy * weight
            inner = torch.linalg.vecdot(scaled, here)[:, None] * rate.square() / x.shape[1]
            torch.add(above, scaled.addcmul_(here, -inner).mul_(rate), out=result)
            output.copy_((here * rate).mul_(weight))
        return step, normed


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
