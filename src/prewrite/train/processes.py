"""The processes of a run, as `accelerate launch` or `torchrun` start them.

All of them train one policy: each samples, grades and learns from its share of an update's rewrites. What has to be
done once, such as writing files, scoring dev rows and measuring the result, is done by the main process. Which process
this is, and how many there are, can be asked before torch is imported.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

T = TypeVar("T")


def count() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files and measures."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Connect to the other processes and take this process's GPU; call it before any model is loaded."""
    if count() > 1:
        from accelerate import PartialState

        PartialState()
    if not is_main():
        logging.getLogger("prewrite").setLevel(logging.ERROR)  # the main process warns for all


def leave() -> None:
    """Disconnect from the other processes, which may then end; only the main process has more to do. Collective.

    A process that has nothing more to do deletes its trainer first. If DDP were the last to hold the process group, it
    would destroy it with Python's lock held, while a gloo thread waits for this lock to free what the last collective
    sent. The group's own Python object releases the lock.
    """
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # nobody may leave while another still receives
        gc.collect()
        PartialState().destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does what is inside, then the others do; a collective call until `leave`."""
    import torch
    from accelerate import PartialState

    with PartialState().main_process_first() if torch.distributed.is_initialized() else nullcontext():
        yield


def from_main(compute: Callable[[], T]) -> T:
    """What `compute` gives in the main process, in all of them; a collective call."""
    if count() == 1:
        return compute()
    from accelerate.utils import broadcast_object_list

    found: T = broadcast_object_list([compute() if is_main() else None])[0]
    return found


def any_of(flag: bool) -> bool:
    """Whether `flag` is set in some process; a collective call."""
    from accelerate.utils import gather_object

    return any(gather_object([flag]))
