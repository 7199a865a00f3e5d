"""Who leaves the race: the test of each candidate against the others, at a few fixed looks.

At each look, candidate i is tested against a field: the mean score of the others, weighted towards the leaders as they
stood at the look before. If i were the best, no such field could beat it on average, whatever the weights; so there is
one test per candidate and no correction over pairs, and only the best candidate's own test must not fail. The looks
are few and fixed, and the limit is Pocock's, which the highest of all looks passes with the stated probability: "Group
sequential methods in the design and analysis of clinical trials", Biometrika 64 (1977). Testing against a weighted
field, not against each rival, is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from prewrite.choosing.stats import Floats

LOOKS_GROWTH = 1.4
"""Ratio of items from one look to the next: few looks keep the limit low, and clear losers still leave early."""
FIELD_SHARPNESS = 4.0
"""How fast a rival's weight in the field falls with its distance to the leader, in that distance's standard errors."""
PRIOR_ITEMS = 1.0
"""Items, half won and half lost, added to every test: they keep the variance above zero where few items differ."""


class Elimination:
    """Who is still in, and each candidate's lead or lag against its field, item by item."""

    def __init__(self, count: int, looks: Sequence[int], error: float):
        self.alive = np.ones(count, dtype=bool)
        self.limit = pocock_limit(tuple(looks), error)
        self.lag = np.zeros((count, looks[-1]))  # field's score minus the candidate's, per item, in [-1, 1]
        self.weights = np.full((count, count), 1 / max(1, count - 1))
        np.fill_diagonal(self.weights, 0)
        self.seen = 0
        self.z = np.zeros(count)

    def limit_at(self, items: int) -> float:
        """Limit of the test statistic after so many items: a look's own, or with rows left out the next look's."""
        return self.limit[min(look for look in self.limit if look >= items)]

    def judge(self, scores: Floats) -> list[int]:
        """Test every candidate still in on all items so far, (candidate, item); stop and return those that fail."""
        alive, count = np.flatnonzero(self.alive), scores.shape[1]
        fresh = scores[alive, self.seen :]
        self.lag[alive, self.seen : count] = self.weights[np.ix_(alive, alive)] @ fresh - fresh
        self.seen = count
        lag = self.lag[alive, :count]
        mean = lag.sum(axis=1) / (count + PRIOR_ITEMS)
        variance = ((lag**2).sum(axis=1) + PRIOR_ITEMS) / (count + PRIOR_ITEMS) - mean**2
        self.z[alive] = mean * np.sqrt((count + PRIOR_ITEMS) / variance)
        means = scores[alive].mean(axis=1)
        leader = alive[np.argmax(means)]
        out = [int(i) for i in alive if self.z[i] >= self.limit_at(count) and i != leader]
        self.alive[out] = False
        self._weigh(scores)
        return out

    def _weigh(self, scores: Floats) -> None:
        """Weights of the next field, from the items so far."""
        alive = np.flatnonzero(self.alive)
        means = scores[alive].mean(axis=1)
        for place, i in enumerate(alive):
            rivals = np.delete(alive, place)
            if len(rivals):
                best = rivals[np.argmax(np.delete(means, place))]
                behind = scores[best] - scores[rivals]
                deviation = np.sqrt((behind.var(axis=1) + PRIOR_ITEMS / scores.shape[1]) / scores.shape[1])
                weight = np.exp(-FIELD_SHARPNESS * behind.mean(axis=1) / deviation)
                self.weights[i] = 0
                self.weights[i, rivals] = weight / weight.sum()


@lru_cache(maxsize=32)
def pocock_limit(looks: tuple[int, ...], error: float) -> dict[int, float]:
    """Limit of the test statistic at each look, by items seen.

    Pocock's constant is the quantile of the highest of all looks at a random walk without drift; found by simulation
    with a fixed seed (its own error is about 0.01), then widened from the normal to Student's distribution.
    """
    from scipy.special import ndtr, stdtrit

    steps = np.diff(np.array([0, *looks]))
    walks = np.cumsum(np.random.default_rng(0).standard_normal((100_000, len(looks))) * np.sqrt(steps), axis=1)
    constant = np.quantile((walks / np.sqrt(np.array(looks))).max(axis=1), 1 - error)
    return {look: float(stdtrit(look - 1, ndtr(constant))) for look in looks}


def looks_at(first: int, limit: int) -> list[int]:
    """Items seen at each look, growing by `LOOKS_GROWTH`, the last at the limit."""
    looks = [min(first, limit)]
    while looks[-1] < limit:
        following = max(looks[-1] + 1, round(looks[-1] * LOOKS_GROWTH))
        # A last block of a few items is not worth a look.
        looks.append(limit if following * (1 + LOOKS_GROWTH) / 2 > limit else following)
    return looks


def expected_loss(scores: Floats) -> float:
    """What taking the leader now costs on average: sum over rivals of E[max(0, true score - the leader's)].

    Normal approximation of each paired difference; a sum bounds the mean of the largest.
    """
    if len(scores) < 2:
        return 0.0
    from scipy.special import ndtr

    leader = int(scores.mean(axis=1).argmax())
    lag = scores[leader] - np.delete(scores, leader, axis=0)
    count = scores.shape[1]
    deviation = np.sqrt((lag.var(axis=1) + PRIOR_ITEMS / count) / count)
    z = lag.mean(axis=1) / deviation
    return float((deviation * (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - z * ndtr(-z))).sum())
