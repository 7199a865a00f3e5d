"""Small random models of families that run through transformers: their logits are scaled or capped after the
projection, their attention slides, or their parts go by other names than Llama's."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

FAMILIES = {
    "gemma2": {"final_logit_softcapping": 3.0, "head_dim": 8, "sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {},
    "mistral": {"sliding_window": 4},
}


def model_of_family(family: str, **shape) -> torch.nn.Module:
    """A model of `family` whose config has `shape` and the family's own settings."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **FAMILIES[family])).eval()
