"""Whitening of advantages: mean 0 and variance 1 within every group of rows."""

from __future__ import annotations

import torch
from accelerate import Accelerator


def whiten(
    values: torch.Tensor, mask: torch.Tensor, groups: torch.Tensor, count: int, accelerator: Accelerator
) -> torch.Tensor:
    """`values` (B, T) less their group's mean, over its standard deviation; 0 outside of `mask` (B, T).

    `groups` (B,) numbers the group of each row, below `count`. A group's tokens on all processes count together, so
    this is a collective call. With one group it is TRL's whitening.
    """
    group_of_token = groups[:, None].expand_as(mask)[mask]
    picked = values[mask].double()
    sums = torch.zeros(3, count, dtype=torch.float64, device=mask.device)
    sums.index_add_(1, group_of_token, torch.stack([picked, picked.square(), torch.ones_like(picked)]))
    total, squares, tokens = accelerator.reduce(sums, "sum")
    mean = total / tokens
    variance = (squares / tokens - mean.square()).clamp(min=0) * tokens / (tokens - 1).clamp(min=1)  # of equal values
    mean, variance = mean[groups, None].to(values.dtype), variance[groups, None].to(values.dtype)
    return ((values - mean) * torch.rsqrt(variance + 1e-8)).masked_fill(~mask, 0.0)
