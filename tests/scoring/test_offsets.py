"""Offsets take out what a task model says whatever the input is, and never where that would cost rows."""

import numpy as np
import pytest

from prewrite.scoring.offsets import (
    batch_offsets,
    calibrated_logprob,
    choose_offsets,
    clearly_better,
    fitted_offsets,
    gold_indices,
)


def rows(count, *, bias, share=0.5, signal=1.0, seed=0):
    """Log-probabilities of two labels: the right one `signal` nats likelier on average, the first `bias` on top."""
    rng = np.random.default_rng(seed)
    gold = (rng.random(count) >= share).astype(int)
    scores = rng.normal(0, 1, (count, 2))
    scores[np.arange(count), gold] += signal
    scores[:, 0] += bias
    return scores, gold


def accuracy(scores, offsets, gold):
    return float(((scores - offsets).argmax(axis=1) == gold).mean())


def test_batch_offsets_are_the_log_of_the_mean_probabilities():
    # mean probabilities 0.8 and 0.2: log 0.8 - log 0.2 = log 4 apart, mean 0
    found = batch_offsets(np.log([[0.9, 0.1], [0.7, 0.3]]))
    assert found.tolist() == pytest.approx([np.log(4) / 2, -np.log(4) / 2])


@pytest.mark.parametrize("bias", [3.0, -3.0])
def test_a_bias_towards_a_label_is_taken_out(bias):
    scores, gold = rows(200, bias=bias)
    fresh, fresh_gold = rows(2000, bias=bias, seed=1)
    found = choose_offsets(scores, gold)
    assert found.method == "fitted"
    assert accuracy(fresh, found.values, fresh_gold) > accuracy(fresh, 0, fresh_gold) + 0.1


def test_better_means_by_more_than_the_standard_error():
    # 3 gained and 1 lost of 4 that differ: 2 > sqrt(4) is false; 4 gained and 1 lost: 3 > sqrt(5)
    assert not clearly_better(np.array([1, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1]))
    assert clearly_better(np.array([1, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 0]))
    assert not clearly_better(np.ones(3), np.ones(3))


def test_without_a_bias_nothing_is_changed():
    scores, gold = rows(200, bias=0.0, signal=3.0)
    assert choose_offsets(scores, gold).method == "none"


def test_offsets_are_shipped_if_they_get_one_more_row_right_and_not_for_a_tie():
    gold = np.arange(100) % 2
    scores = np.where(gold[:, None] == np.arange(2), 1.2, 0.0) + np.array([0.9, 0.0])
    assert choose_offsets(scores, gold).method == "none"  # all rows are right already
    scores[1] = [1.3, 0.9]  # the bias makes this row wrong
    found = choose_offsets(scores, gold)
    assert (found.method, found.right.sum()) == ("fitted", 100)


def test_too_few_rows_choose_nothing():
    scores, gold = rows(19, bias=3.0)
    found = choose_offsets(scores, gold)
    assert (found.method, found.values.tolist()) == ("none", [0.0, 0.0])


def test_labels_of_unequal_frequency_are_fitted_not_made_even():
    scores, gold = rows(300, bias=0.0, share=0.9, signal=1.5)
    fresh, fresh_gold = rows(3000, bias=0.0, share=0.9, signal=1.5, seed=1)
    found = choose_offsets(scores, gold)
    assert accuracy(fresh, found.values, fresh_gold) > accuracy(fresh, batch_offsets(scores), fresh_gold) + 0.05


def test_what_is_right_is_told_of_rows_that_the_offsets_were_not_found_on():
    scores, gold = rows(200, bias=3.0)
    found = choose_offsets(scores, gold)
    assert set(found.right.tolist()) == {0.0, 1.0} and len(found.right) == 200
    fresh, fresh_gold = rows(5000, bias=3.0, seed=1)
    assert found.right.mean() == pytest.approx(accuracy(fresh, found.values, fresh_gold), abs=0.06)
    few, few_gold = rows(19, bias=3.0)
    assert choose_offsets(few, few_gold).right.tolist() == (few.argmax(axis=1) == few_gold).tolist()


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_fitted_offsets_serve_however_surely_labels_are_stated(scale):
    scores, gold = rows(400, bias=2.0)
    fresh, fresh_gold = rows(2000, bias=2.0, seed=1)
    best = accuracy(fresh, np.array([1.0, -1.0]), fresh_gold)  # the bias, halved between the two labels
    assert accuracy(scale * fresh, fitted_offsets(scale * scores, gold), fresh_gold) > best - 0.02


def test_offsets_do_not_change_with_a_constant_of_a_row():
    scores, gold = rows(50, bias=1.0)
    moved = scores + np.arange(50)[:, None]
    assert fitted_offsets(moved, gold) == pytest.approx(fitted_offsets(scores, gold), abs=1e-4)
    assert batch_offsets(moved) == pytest.approx(batch_offsets(scores))


def test_the_calibrated_logprob_is_that_of_the_right_label():
    # both rows have the mean probabilities: after calibration each label has one half
    logprobs = np.log([[0.8, 0.2], [0.8, 0.2]])
    assert calibrated_logprob(logprobs, np.array([0, 1])).tolist() == pytest.approx([np.log(0.5)] * 2)


def test_the_right_label_is_the_first_that_is_accepted():
    assert gold_indices(("a", "b", "c"), [("c",), ("b", "a")]).tolist() == [2, 0]
