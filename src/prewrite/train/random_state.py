"""The generators that TRL's trainers draw from, which are the libraries' own and one for the whole process."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch


class RandomState(NamedTuple):
    """What the generators of Python, numpy, torch and of every GPU will draw next; some 10 kB."""

    python: Any
    numpy: Any
    torch: torch.Tensor
    devices: list[torch.Tensor]

    @classmethod
    def now(cls) -> RandomState:
        """The state as it is."""
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), devices)

    def put_back(self) -> None:
        """Draw again what was drawn since `now`."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.devices:
            torch.cuda.set_rng_state_all(self.devices)
