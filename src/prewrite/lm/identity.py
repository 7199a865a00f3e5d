"""What a model's answers depend on, told by content: weights, configs, tokenizer, chat template.

A name says little: a branch of the hub moves on, weights are overwritten in place. So files are read whole, a GB or
two a second, and what came out is kept in the cache folder with their size and time, so that it costs nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from prewrite.errors import StorageError
from prewrite.files import cache_dir, to_json, write_atomic

SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Files of a model's folder that can change an answer; not its README, nor what training left there."""
_WORTH_REMEMBERING = 1 << 20  # bytes
_SETTLED = 2.0  # seconds; a file that has just been written may be written again within the resolution of its time


def folder_digest(folder: Path) -> str:
    """16 hexadecimal digits that stand for the content of every file in `folder` that an answer depends on."""
    parts = [f"{file.name} {file_digest(file)}" for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises `FileNotFoundError`."""
    place, stat = str(file.resolve()), file.stat()
    size, changed = stat.st_size, stat.st_mtime_ns
    if size < _WORTH_REMEMBERING:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    memory = cache_dir() / "digests.json"
    if (known := _recall(memory).get(place)) and known[:2] == [size, changed]:
        return str(known[2])
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    if time.time() - changed / 1e9 > _SETTLED:
        _remember(memory, place, [size, changed, digest.hexdigest()])
    return digest.hexdigest()


def _recall(memory: Path) -> dict[str, list[int | str]]:
    """By path: size, time of the last change in nanoseconds, digest."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or it was cut off: it only saves time
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, place: str, entry: list[int | str]) -> None:
    known = {other: value for other, value in _recall(memory).items() if Path(other).exists()}
    with suppress(StorageError):  # a cache folder that cannot be written costs a second at every start, and no more
        write_atomic(memory, to_json(known | {place: entry}, indent=1))
