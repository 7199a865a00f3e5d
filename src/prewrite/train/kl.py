"""The coefficient of the KL penalty: fixed, or adapted towards a target."""

from __future__ import annotations

from prewrite.errors import ConfigError


def check_kl(coefficient: float, target: float | None) -> None:
    """Raise `ConfigError` for a coefficient below 0, or a target that none can be adapted to."""
    if coefficient < 0:
        raise ConfigError(f"kl_coef is {coefficient}; it must be at least 0")
    if target is not None and (target <= 0 or coefficient == 0):
        raise ConfigError(f"target_kl is {target} with kl_coef {coefficient}; both must be above 0 to adapt")


class KLController:
    """`coefficient` multiplies the per-token KL that is taken off the reward.

    With a target it follows Ziegler et al. (arXiv 1909.08593, section 2.2): after each update,
    beta <- beta (1 + K clip((KL - target) / target, -0.2, 0.2)), with K = 0.1 there per 256 episodes; an update of a
    rewriter has far fewer, so K = 1 here per update.
    """

    def __init__(self, coefficient: float, *, target: float | None = None):
        check_kl(coefficient, target)
        self.coefficient = coefficient
        self.target = target

    def update(self, kl: float) -> None:
        """Adapt to the mean KL per completion of the last update, in nats."""
        if self.target is not None:
            error = (kl - self.target) / self.target
            self.coefficient *= 1 + min(max(error, -0.2), 0.2)
