import numpy as np
import pytest

from prewrite.choosing.stats import holm, mcnemar_exact, mean_interval, paired_bootstrap
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
