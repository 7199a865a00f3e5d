import numpy as np
import pytest

from prewrite.choosing.stats import (
    batch_calibrate,
    correct_for_selection,
    holm,
    label_probabilities,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    reliability,
)
from prewrite.errors import ConfigError


def test_wilson_interval_of_8_right_in_10():
    interval = mean_interval([1] * 8 + [0] * 2)
    # z = 1.959964, p = 0.8, n = 10: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert interval.low == pytest.approx(0.4901625, abs=1e-6)
    assert interval.high == pytest.approx(0.9433178, abs=1e-6)
    assert interval.method == "wilson"


def test_all_right_does_not_claim_certainty():
    assert mean_interval([1] * 20).low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    assert mean_interval([1] * 20).high == pytest.approx(1.0)


def test_equal_fractional_scores_get_an_exact_bound():
    interval = mean_interval([0.5] * 10)
    share = 1 - 0.025**0.1
    assert interval.method == "exact"
    assert (interval.low, interval.high) == pytest.approx((0.5 - 0.5 * share, 0.5 + 0.5 * share))


def test_bootstrap_interval_is_close_to_the_normal_one_for_many_scores():
    scores = np.random.default_rng(0).uniform(0, 1, 400)
    interval = mean_interval(scores)
    reach = 1.96 * scores.std(ddof=1) / 20
    assert interval.method == "bca"
    assert (interval.low, interval.high) == pytest.approx((scores.mean() - reach, scores.mean() + reach), abs=0.003)


@pytest.mark.parametrize(
    ("scores", "level", "message"),
    [([], 0.95, "no scores"), ([1.0, float("nan")], 0.95, "NaN"), ([1.0], 95, "outside")],
)
def test_scores_that_cannot_give_an_interval_are_refused(scores, level, message):
    with pytest.raises(ConfigError, match=message):
        mean_interval(scores, level=level)


def test_paired_difference_counts_gained_and_lost_items():
    a = [1] * 60 + [1] * 25 + [0] * 5 + [0] * 10
    b = [1] * 60 + [0] * 25 + [1] * 5 + [0] * 10
    found = paired_bootstrap(a, b)
    assert (found.gained, found.lost, found.n) == (25, 5, 100)
    assert found.mean == pytest.approx(0.20)
    assert found.test == "mcnemar"
    # 2 P(X <= 5) for X ~ Binomial(30, 1/2)
    assert found.p_value == pytest.approx(0.000324934, rel=1e-4)
    assert 0.08 < found.low < 0.12 and 0.28 < found.high < 0.32
    assert found.significant


def test_swapping_the_sides_mirrors_the_difference():
    rng = np.random.default_rng(1)
    a, b = rng.random(80), rng.random(80) * 0.8
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high, abs=0.01)
    assert there.test == "sign-flip"
    assert there.p_value == pytest.approx(back.p_value)


def test_two_instructions_that_agree_everywhere_differ_by_nothing_but_not_for_certain():
    found = paired_bootstrap([1, 0, 1] * 50, [1, 0, 1] * 50)
    assert found.mean == 0 and found.p_value == 1 and not found.significant
    assert -0.03 < found.low < 0 < found.high < 0.03


def test_a_gain_on_every_item_stays_inside_its_bounds():
    found = paired_bootstrap([1] * 5, [0] * 5)
    assert found.mean == 1 and found.high == 1
    assert found.low == pytest.approx(1 - 2 * (1 - 0.025**0.2))


def test_the_p_value_of_partial_credit_counts_sign_patterns_as_far_from_zero():
    found = paired_bootstrap([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
    # Five items differ, all in one direction: 2 of the 2^5 sign patterns are as far from zero.
    assert found.test == "sign-flip" and found.p_value == pytest.approx(2 / 32, abs=0.01)


def test_five_gained_and_none_lost_is_not_yet_significant():
    found = paired_bootstrap([1] * 5 + [1] * 45, [0] * 5 + [1] * 45)
    assert found.p_value == pytest.approx(2 * 0.5**5)
    assert not found.significant


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ConfigError, match="3 and 2 items"):
        paired_bootstrap([1, 0, 1], [1, 0])


def test_mcnemar_refuses_partial_credit():
    with pytest.raises(ConfigError, match="scores of 0 and 1"):
        mcnemar_exact([0.5, 1], [0, 1])


def test_holm_of_three():
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1, made non-decreasing
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


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


def test_the_best_of_many_equal_candidates_is_corrected_down_to_the_truth():
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(40):
        scores = (rng.random((16, 100)) < 0.6).astype(float)
        chosen = int(scores.mean(axis=1).argmax())
        plain.append(scores[chosen].mean())
        corrected.append(correct_for_selection(scores, chosen, resamples=200).score)
    assert np.mean(plain) > 0.66
    assert np.mean(corrected) == pytest.approx(0.60, abs=0.015)


def test_a_clear_choice_is_hardly_corrected():
    rng = np.random.default_rng(0)
    scores = np.vstack([(rng.random(300) < 0.5), (rng.random(300) < 0.9)]).astype(float)
    found = correct_for_selection(scores, 1)
    assert found.score == pytest.approx(scores[1].mean(), abs=0.003)
    assert found.gain_low > 0.2
    assert found.verdict().startswith("+") and "no test rows" in found.verdict()


def test_choosing_the_baseline_gains_nothing():
    found = correct_for_selection((np.random.default_rng(0).random((3, 50)) < 0.5).astype(float), 0)
    assert found.gain == 0 and found.verdict().startswith("No significant gain")


def test_batch_calibration_divides_each_label_by_its_mean_probability():
    # means 0.8 and 0.2: 0.9 / 0.8 > 0.1 / 0.2, but 0.7 / 0.8 < 0.3 / 0.2; a row's own total does not matter
    logprobs = np.log([[0.9, 0.1], [0.7, 0.3]]) + np.array([[-5.0], [0.0]])
    ratios = np.exp(batch_calibrate(logprobs) - np.array([[-5.0], [0.0]]))
    np.testing.assert_allclose(ratios, [[1.125, 0.5], [0.875, 1.5]])
