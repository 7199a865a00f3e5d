import numpy as np
import pytest

from prewrite.choosing.selection_bias import correct_for_selection


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
