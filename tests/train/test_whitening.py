"""Advantages are whitened within each instruction, over its sampled tokens alone."""

import pytest
import torch
from accelerate import Accelerator

from prewrite.train.whitening import whiten


def test_each_group_has_mean_0_and_variance_1_over_its_tokens():
    torch.manual_seed(0)
    groups = torch.tensor([0, 0, 0, 2, 2, 2])  # group 1 has no row in this update
    values = torch.randn(6, 5)
    values[3:] = 50 * values[3:] + 9
    mask = torch.rand(6, 5) > 0.2
    white = whiten(values, mask, groups, 3, Accelerator())
    for group in (0, 2):
        picked = white[groups == group][mask[groups == group]]
        assert picked.mean().item() == pytest.approx(0, abs=1e-5)
        assert picked.var().item() == pytest.approx(1, abs=1e-4)
    assert (white[~mask] == 0).all()


def test_equal_values_become_0():
    white = whiten(torch.full((2, 3), 7.0), torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 0]), 1, Accelerator())
    assert white.tolist() == [[0.0] * 3] * 2
