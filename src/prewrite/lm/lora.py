"""A Llama-style trunk with LoRA on a CPU in fp32 or bf16: prompts and completions in one pass, gradients by hand.

What it computes is what transformers and PEFT compute (`tests/rewriter/test_policy.py`). What it saves:
- only real tokens are multiplied: prompts and completions are packed into one list, (N, D), and padded for attention;
- in fp32 adapters are merged into the weights for the pass (W + s BA costs as much as 10 tokens), so that forward and
  the gradient of the input are one product per layer input; the adapters' gradients need products of their rank only;
- a layer keeps 9 D floats per token for the way back (SmolLM2: 21 KB), the rest is computed again where it is cheap;
- no gradient is computed for frozen weights, nor below the first layer.
In bf16 (as in `llama`) the operands of products are bf16; the stream that layers add to, its gradient, the norms and
the softmax over the vocabulary are fp32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from prewrite.lm.linear import Linear, adapters_of, fused_bias, projections, side_by_side
from prewrite.lm.llama import attention
from prewrite.lm.trunk import runs_fast


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


class Layout:
    """Where tokens stand in a packed list of N: those of all prompts, then those of all completions."""

    def __init__(self, prompts, completions, queries_per_key: int, dtype: torch.dtype):
        prompt_mask, rows = prompts.mask.bool(), prompts.rows
        mask = completions.mask[:, :-1]  # no state is asked for after the last place
        lengths = prompt_mask.sum(1)
        self.prompt_count = int(lengths.sum())
        self.rows = rows
        self.ids = torch.cat([prompts.ids[prompt_mask], completions.ids[:, :-1][mask]])
        after = lengths[rows, None] + torch.arange(mask.shape[1])
        self.positions = torch.cat([(prompt_mask.cumsum(1) - 1)[prompt_mask], after[mask]])
        self.prompts = _Padding(prompt_mask)
        self.completions = _Padding(mask)
        seen = prompt_mask[:, None] & _causal(prompt_mask.shape[1], 0)
        self.prompt_bias = _bias(seen, queries_per_key, dtype)
        seen = torch.cat([prompt_mask[rows], mask], dim=1)[:, None] & _causal(mask.shape[1], prompt_mask.shape[1])
        self.completion_bias = _bias(seen, queries_per_key, dtype)
        # The state before a completion's first token is that of the prompt's last; those of the others follow.
        first = self.prompts.places[rows, -1:]
        places = self.completions.places
        beyond = self.prompt_count + self.completions.count
        self.states = torch.cat([first, torch.where(mask, places + self.prompt_count, beyond)], dim=1)

    def gather_states(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (B, T, D): the state before each completion token, and after a row's last; 0 further on."""
        padded = torch.cat([hidden, hidden.new_zeros(1, hidden.shape[1])])
        return padded.index_select(0, self.states.flatten()).view(*self.states.shape, -1)


class _Padding:
    """Between a packed list of tokens and a padded block."""

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.count = int(mask.sum())
        self.full = self.count == mask.numel()
        order = (mask.flatten().cumsum(0) - 1).view(mask.shape)
        self.places = torch.where(mask, order, self.count)  # the place after the last holds zeros
        self.flat = mask.flatten().nonzero().squeeze(1)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> (B, T, ...)."""
        if not self.full:
            packed = torch.cat([packed, packed.new_zeros(1, *packed.shape[1:])])
            packed = packed.index_select(0, self.places.flatten())
        return packed.view(*self.mask.shape, *packed.shape[1:])

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (n, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.flat)


def _causal(width: int, before: int) -> torch.Tensor:
    return torch.ones(width, before + width, dtype=torch.bool).tril(before)


def _bias(allowed: torch.Tensor, queries_per_key: int, dtype: torch.dtype) -> torch.Tensor:
    """(B, T, S) -> (B, 1, queries_per_key * T, S), what is added to attention scores.

    Finite numbers, since a padded row sees nothing and must not become NaN.
    """
    bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    return bias[:, None].repeat(1, 1, queries_per_key, 1)


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

    def linear(self) -> Linear:
        """All of them as one, adapters included; made for each use, since a copy of every layer would be the model."""
        if self.weights[0].dtype == torch.float32:
            return Linear(self._merged(), self.bias)
        weight = self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)
        return Linear(weight, self.bias, low_rank=side_by_side(self.weights, self.adapters))

    def _merged(self) -> torch.Tensor:
        if len(self.weights) == 1 and not self.adapters[0]:
            return self.weights[0]
        merged = torch.cat(self.weights)
        for part, group in zip(merged.split([len(w) for w in self.weights]), self.adapters, strict=True):
            for adapter in group:
                part.addmm_(adapter.b.detach(), adapter.a.detach(), alpha=adapter.scale)
        return merged

    def gradients(self, inputs: torch.Tensor, upstream: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of `parameters`, for inputs (N, in) and the gradient of the outputs (N, out)."""
        found, kind = [], inputs.dtype
        for part, group in zip(upstream.split([len(w) for w in self.weights], dim=1), self.adapters, strict=True):
            for adapter in group:
                found.append((part @ (adapter.scale * adapter.b).to(kind)).t() @ inputs)
                found.append(part.t() @ (inputs @ (adapter.scale * adapter.a).to(kind).t()))
        return [gradient.to(p.dtype) for gradient, p in zip(found, self.parameters, strict=True)]


class Block:
    """One transformer block on packed tokens, forward and back."""

    def __init__(self, layer: nn.Module, config, layout: Layout, cos: torch.Tensor, sin: torch.Tensor):
        attention, mlp = layer.self_attn, layer.mlp
        self.layout, self.cos, self.sin = layout, cos, sin
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps, self.dtype = config.rms_norm_eps, cos.dtype
        self.norms = tuple(
            norm.weight.detach().float() for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self.qk_norms = None
        if hasattr(attention, "q_norm"):
            self.qk_norms = tuple(norm.weight.detach().float() for norm in (attention.q_norm, attention.k_norm))
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
        qkv = self.qkv.linear()(self._normed(x, self.norms[0]))
        middle = x + self.out.linear()(self.attend(qkv))
        gate_up = self.gate_up.linear()(self._normed(middle, self.norms[1]))
        gate, up = gate_up.chunk(2, 1)
        out = middle + self.down.linear()(F.silu(gate).mul_(up))
        return out, (x, qkv, middle, gate_up)

    def backward(self, upstream, x, qkv, middle, gate_up, *, wants_input: bool):
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
        normed, rate = self._normed_and_rate(middle, self.norms[1])
        both = self.gate_up.gradients(normed, inner)
        step = self._norm_backward(self.gate_up.linear().input_gradient(inner), middle, rate, self.norms[1])
        upstream = upstream + step

        with torch.enable_grad():
            leaf = qkv.detach().requires_grad_()
            attended = self.attend(leaf)
        low = upstream.to(self.dtype)
        out = self.out.gradients(attended.detach(), low)
        (inner,) = torch.autograd.grad(attended, leaf, self.out.linear().input_gradient(low))
        normed, rate = self._normed_and_rate(x, self.norms[0])
        three = self.qkv.gradients(normed, inner)
        if wants_input:
            step = self._norm_backward(self.qkv.linear().input_gradient(inner), x, rate, self.norms[0])
            return upstream + step, [*three, *out, *both, *down]
        return None, [*three, *out, *both, *down]

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """(N, heads and keys and values) -> (N, heads * size). Completions see their prompt, and themselves so far."""
        layout, turned = self.layout, self.heads + self.key_heads
        qkv = qkv.view(len(qkv), turned + self.key_heads, -1)
        qk, values = qkv[:, :turned], qkv[:, turned:]
        if self.qk_norms is not None:
            queries, keys = qk.split((self.heads, self.key_heads), dim=1)
            qk = torch.cat([self._normed(queries, self.qk_norms[0]), self._normed(keys, self.qk_norms[1])], dim=1)
        qk = torch.addcmul(qk * self.cos, qk.roll(qk.shape[2] // 2, -1), self.sin)
        count = layout.prompt_count
        queries, keys, values = (
            layout.prompts.pad(part[:count]).transpose(1, 2)
            for part in (qk[:, : self.heads], qk[:, self.heads :], values)
        )
        prompts = layout.prompts.pack(self._weigh(queries, keys, values, layout.prompt_bias))
        if layout.completions.count == 0:
            return prompts
        own_queries, own_keys, own_values = (
            layout.completions.pad(part[count:]).transpose(1, 2)
            for part in (qk[:, : self.heads], qk[:, self.heads :], qkv[:, turned:])
        )
        keys = torch.cat([keys.index_select(0, layout.rows), own_keys], dim=2)
        values = torch.cat([values.index_select(0, layout.rows), own_values], dim=2)
        own = layout.completions.pack(self._weigh(own_queries, keys, values, layout.completion_bias))
        return torch.cat([prompts, own])

    def _weigh(self, queries, keys, values, bias) -> torch.Tensor:
        """(B, T, heads * size). The queries that share a key head are treated as one head's longer text."""
        count, _, width, size = queries.shape
        grouped = queries.reshape(count, self.key_heads, -1, size)
        out = attention(grouped, keys, values, bias)
        return out.view(count, self.heads, width, size).transpose(1, 2).reshape(count, width, -1)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(self.dtype)

    def _normed_and_rate(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rate = torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps)
        return (x * rate * weight).to(self.dtype), rate

    def _norm_backward(self, upstream, x, rate, weight) -> torch.Tensor:
        """y = x r w with r = (mean x^2 + eps)^-1/2, so dx = r (g - x r^2 mean(g x)) with g = w dy."""
        scaled = upstream * weight
        inner = (scaled * x).mean(1, keepdim=True) * rate.square()
        return scaled.addcmul_(x, -inner).mul_(rate)


class _BlockFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: Block, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        out, kept = block.forward(x)
        ctx.block = block
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx, upstream):
        step, gradients = ctx.block.backward(upstream, *ctx.saved_tensors, wants_input=ctx.needs_input_grad[1])
        return None, step, *gradients


def completion_states(model: nn.Module, prompts, completions) -> torch.Tensor:
    """The state before each completion token, and after a row's last; (B, T, D), 0 further on."""
    trunk, config = model.model, model.config
    layout = Layout(prompts, completions, config.num_attention_heads // config.num_key_value_heads, model.dtype)
    with torch.no_grad():
        embedded = trunk.embed_tokens(layout.ids)
        cos, sin = (part[0, :, None] for part in trunk.rotary_emb(embedded[None], layout.positions[None]))
        half = cos.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)  # `roll` swaps the halves and keeps their sign
    x, norm = embedded.float(), trunk.norm.weight.detach().float()
    for layer in trunk.layers:
        block = Block(layer, config, layout, cos, sin)
        x = _BlockFunction.apply(block, x, *block.parameters)
    return layout.gather_states(F.rms_norm(x, norm.shape, norm, config.rms_norm_eps))


class _LogprobFunction(torch.autograd.Function):
    """Log-probabilities under a frozen vocabulary projection; the gradient is computed with them, chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, tokens, temperature: float, chunk: int):
        logprobs, entropy = states.new_empty(len(states)), states.new_empty(len(states))
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for at in range(0, len(states), chunk):
            part = slice(at, at + chunk)
            logits = (states[part].to(weight.dtype) @ weight.t()).float()
            if temperature != 1:
                logits /= temperature
            picked = logits.gather(1, tokens[part, None])
            top = logits.amax(1, keepdim=True)
            weights = (logits - top).exp_()
            total = weights.sum(1, keepdim=True)
            weights /= total
            norm = top + total.log_()
            logprobs[part] = (picked - norm).squeeze(1)
            entropy[part] = norm.squeeze(1) - logits.mul_(weights).sum(1)
            if slopes is not None:  # d log p(token) / d state = (row of the token - mean row) / temperature
                slopes[part] = (weight[tokens[part]] - weights.to(weight.dtype) @ weight) / temperature
        ctx.mark_non_differentiable(entropy)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, upstream, _):
        (slopes,) = ctx.saved_tensors
        return upstream[:, None] * slopes, None, None, None, None


def token_logprobs(
    weight: torch.Tensor, states: torch.Tensor, tokens: torch.Tensor, temperature: float, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (without gradient) per token, (N,) each; `weight` (V, D) must be frozen."""
    return _LogprobFunction.apply(states, weight, tokens, temperature, chunk)
