"""When to ask again, how long to wait, and when to stop asking."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime

from prewrite.errors import ConfigError, TaskModelError


class AttemptFailed(Exception):
    """One attempt gave no answer, for a reason that may pass. It is retried, or stops the run as a `TaskModelError`.

    `billed` says whether the server may have done the work, so that a budget counts it; `retry_after` how many seconds
    the server asks to wait; `loading` that it is still loading its model.
    """

    def __init__(
        self,
        reason: str,
        *,
        billed: bool,
        retry_after: float | None = None,
        status: int | None = None,
        loading: bool = False,
    ):
        super().__init__(reason)
        self.billed, self.retry_after, self.status, self.loading = billed, retry_after, status, loading


class Refused(TaskModelError):
    """The server will not take this request, however often it is sent (HTTP 4xx).

    `parameter` is the field that the server names as the reason; `too_long` says that the prompt is, `cut` that the
    output limit was reached before there was an answer.
    """

    def __init__(self, *args: object, parameter: str = "", too_long: bool = False, cut: bool = False):
        super().__init__(*args)
        self.parameter, self.too_long, self.cut = parameter, too_long, cut


class NoAccess(TaskModelError):
    """The key is missing, wrong, or out of credit: no request will pass."""


class NotFound(Refused):
    """HTTP 404: no such model, or no such endpoint."""


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """How long a response asks to wait: `retry-after-ms`, or Retry-After as seconds or as a date; None if it does not.

    A date is taken from the server's own clock (`Date`) where it tells that, and one that has passed means 0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or not value:
        return seconds
    at = _timestamp(value)
    if at is None:
        return None
    now = _timestamp(headers.get("date"))
    return max(0.0, at - (time.time() if now is None else now))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _timestamp(text: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be with a server. Times in seconds."""

    attempts: int = 8
    """Times that one request is sent before the run stops."""
    first_delay: float = 0.25
    longest_delay: float = 20.0
    longest_retry_after: float = 300.0
    """A server that asks for a longer wait stops the run."""
    breaker_failures: int = 10
    """The run stops after this many failures in a row, on all connections together ..."""
    breaker_seconds: float = 20.0
    """... if they also span this long: one short outage fails every open connection at once."""
    loading_seconds: float = 120.0
    """How long a server may say that it is still loading its model. That counts as no failure."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.breaker_failures < 1:
            raise ConfigError(
                f"retry: attempts {self.attempts} and breaker_failures {self.breaker_failures} must be >= 1"
            )

    def delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after the `failures`-th failure of one request: doubling, up to half taken off at random.

        A server's own Retry-After is waited out in full, plus jitter so that not all connections come back at once.
        """
        if retry_after is not None:
            return retry_after + random.uniform(0, self.first_delay)
        ceiling = min(self.longest_delay, self.first_delay * 2.0 ** (failures - 1))
        return random.uniform(ceiling / 2, ceiling)


@dataclass
class Breaker:
    """Counts failures in a row over all connections to one server; `failure` raises when it is time to stop."""

    server: str
    remedy: str
    policy: RetryPolicy
    clock: Callable[[], float] = time.monotonic
    row: int = field(default=0, init=False)
    since: float = field(default=0.0, init=False)
    loading_since: float | None = field(default=None, init=False)

    def success(self) -> None:
        """An answer came: the row ends."""
        self.row, self.loading_since = 0, None

    def loading(self, error: AttemptFailed) -> float:
        """Seconds since the server first said that it is loading. Raises `TaskModelError` at the policy's limit."""
        now = self.clock()
        self.loading_since = now if self.loading_since is None else self.loading_since
        waited = now - self.loading_since
        if waited >= self.policy.loading_seconds:
            raise TaskModelError(
                f"{self.server} is still loading its model after {waited:.0f} s ({error}); wait until it is ready, "
                "then run again: answers so far are in the cache"
            )
        return waited

    def failure(self, error: AttemptFailed) -> None:
        """Raise `TaskModelError` with server, count, last error and remedy when the limit is reached."""
        now = self.clock()
        if self.row == 0:
            self.since = now
        self.row += 1
        if error.retry_after is not None and error.retry_after > self.policy.longest_retry_after:
            raise TaskModelError(
                f"{self.server} asks to wait {error.retry_after:.0f} s ({error}); stopped. Run again after that: "
                "answers so far are in the cache"
            )
        if self.row >= self.policy.breaker_failures and now - self.since >= self.policy.breaker_seconds:
            raise TaskModelError(
                f"{self.server} failed {self.row} times in a row over {now - self.since:.0f} s; last error: {error}. "
                f"{self.remedy}"
            )

    def exhausted(self, error: AttemptFailed) -> TaskModelError:
        """The error for one request that used up its attempts."""
        return TaskModelError(
            f"{self.server} failed {self.policy.attempts} times on one request; last error: {error}. {self.remedy}"
        )
