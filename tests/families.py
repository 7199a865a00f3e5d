"""Small random models of families that run through transformers: their logits are scaled or capped after the
projection, their attention slides, they see pictures too, or their parts go by other names than Llama's."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

FAMILIES = {
    "gemma2": {"final_logit_softcapping": 3.0, "head_dim": 8, "sliding_window": 4},
    "gemma3": {"head_dim": 8, "sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {},
    "mistral": {"sliding_window": 4},
}
EYES = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def model_of_family(family: str, **shape) -> torch.nn.Module:
    """A model of `family` whose config has `shape` and the family's own settings."""
    torch.manual_seed(0)
    settings = shape | FAMILIES[family]
    if family == "gemma3":
        settings = {"text_config": settings, "vision_config": EYES, "mm_tokens_per_image": 4}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
