import numpy as np
import pytest

from prewrite.choosing.labels import batch_calibrate, label_probabilities, reliability


def test_reliability_of_overconfident_answers():
    found = reliability([0.95] * 10 + [0.55] * 10, [1] * 6 + [0] * 4 + [1] * 5 + [0] * 5)
    assert [(b.count, b.accuracy) for b in found.bins] == [(10, 0.5), (10, 0.6)]
    assert found.ece == pytest.approx((0.35 + 0.05) / 2)
    assert found.brier == pytest.approx((6 * 0.05**2 + 4 * 0.95**2 + 5 * 0.45**2 + 5 * 0.55**2) / 20)


def test_confidence_of_exactly_zero_and_one_falls_into_the_outer_bins():
    found = reliability([0.0, 1.0], [0, 1])
    assert [(b.low, b.high) for b in found.bins] == [(0.0, 0.1), (0.9, 1.0)]
    assert found.ece == 0


def test_label_probabilities_sum_to_one_for_tiny_likelihoods():
    found = label_probabilities([[-1000.0, -1001.0]])
    assert found[0] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_batch_calibration_divides_each_label_by_its_mean_probability():
    # means 0.8 and 0.2: 0.9 / 0.8 > 0.1 / 0.2, but 0.7 / 0.8 < 0.3 / 0.2; a row's own total does not matter
    logprobs = np.log([[0.9, 0.1], [0.7, 0.3]]) + np.array([[-5.0], [0.0]])
    ratios = np.exp(batch_calibrate(logprobs) - np.array([[-5.0], [0.0]]))
    np.testing.assert_allclose(ratios, [[1.125, 0.5], [0.875, 1.5]])
