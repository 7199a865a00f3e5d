"""How long each phase of an update took."""

from __future__ import annotations

import time


class Clock:
    """Seconds per phase of an update."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def metrics(self) -> dict[str, float]:
        """The seconds so far, as `time/<phase>`."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}
