"""What a run has used of its budget, in a file that outlives a process that is killed.

The file holds four whole numbers and is mapped into memory: writing to it calls no operating system and takes well
under a microsecond, and what is written stays when the process ends in any way. Numbers grow before an attempt is sent
and shrink after it is settled, each in one store, so a process that is killed leaves at least what it has used: what
was under way counts as used. After a power cut the file may be some seconds old; a checkpoint holds the count too.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from prewrite.errors import RunFolderError
from prewrite.files import whole_bytes, why_unreadable, writing

_FIELDS = struct.Struct("=4q")
"""Calls, input tokens, output tokens, milliseconds."""


@dataclass(slots=True)
class Spent:
    """What a run has used of its budget; kept in its checkpoints too."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Plain numbers; `Spent(**d)` reads them back."""
        return asdict(self)


class Ledger:
    """The file at `path`, which is made where it is missing and open until the `with` block ends.

    Raises `RunFolderError` for a file that is no ledger, `StorageError` for one that cannot be written.
    """

    def __init__(self, path: Path):
        self.known = read(path)
        """What the file held when it was opened."""
        if not path.exists():
            whole_bytes(path, _FIELDS.pack(0, 0, 0, 0))
        with writing(path), path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FIELDS.size)
        self._numbers = memoryview(self._map).cast("q")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._numbers.release()
        self._map.close()

    def write(self, calls: int, input_tokens: int, output_tokens: int, seconds: float) -> None:
        """Replace what the file holds."""
        numbers = self._numbers
        numbers[0], numbers[1], numbers[2], numbers[3] = calls, input_tokens, output_tokens, round(seconds * 1000)


def read(path: Path) -> Spent:
    """What the ledger at `path` holds; nothing where there is none. Raises `RunFolderError` for another file."""
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        return Spent()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({why_unreadable(error)})") from None
    numbers = _FIELDS.unpack(held) if len(held) == _FIELDS.size else (-1,)
    if min(numbers) < 0:
        raise RunFolderError(
            f"{path} does not tell what the run has used of its budget: it must hold four numbers of 8 bytes, 0 or "
            f"more, and holds {len(held):,} bytes; it was changed; delete it to count on from the last checkpoint"
        )
    calls, input_tokens, output_tokens, milliseconds = numbers
    return Spent(calls, input_tokens, output_tokens, milliseconds / 1000)
