"""Answers kept on disk: asked once, paid for once. SQLite in WAL mode, safe for several processes on one machine.

The key is a digest of everything an answer depends on: the backend's identity (model digest, dtype, decoding
settings), the method, the full prompt, and the labels or the target. Values are JSON. Every answer is committed as it
arrives, so a killed run loses none that was there. A file that is broken or of another version is set aside, never
trusted or deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prewrite.errors import TaskModelError, without_keys
from prewrite.files import cache_dir, writing
from prewrite.task_models.base import TaskModel
from prewrite.task_models.stream import Batch, NoAnswer, Replies, Reply, Value, Wrapper, is_answer, stream
from prewrite.text import parse_json
from prewrite.types import messages_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

VERSION = 1
SUFFIX = ".sqlite"
"""Of a file that is ours to set aside even where nothing of it can be read."""
_APPLICATION = 0x70727774  # "prwt" in the file's header: this SQLite file is ours
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE models (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
CREATE TABLE answers (key BLOB PRIMARY KEY, model INTEGER NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
"""
_KEYS_PER_QUERY = 500  # below the 999 parameters that the oldest SQLite allows


def default_cache_path() -> Path:
    """`PREWRITE_ANSWER_CACHE` if set, else `answers.sqlite` in the user's cache folder."""
    override = os.environ.get("PREWRITE_ANSWER_CACHE")
    return Path(override) if override else cache_dir() / f"answers{SUFFIX}"


def answer_key(identity: str, batch: Batch, row: int) -> bytes:
    """Digest of everything that the answer to `row` depends on; 32 bytes."""
    target = batch.targets[row] if batch.targets else None
    prompt = batch.prompts[row]  # as messages a conversation has no key that a text could have
    shown = prompt if isinstance(prompt, str) else messages_of(prompt)
    parts = [identity, batch.method, shown, batch.labels, target]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache file holds."""

    path: Path
    entries: int
    bytes: int
    """On disk, the write-ahead log included."""
    by_model: Mapping[str, int]
    """Entries per backend identity, most first."""


class AnswerCache:
    """The file. One instance may be used from several threads, and survives `fork`."""

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path is not None else default_cache_path()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._inode: int | None = None
        self._model_ids: dict[str, int] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Value | None]:
        """The answers that are here, by key; None where what is kept cannot be read as one."""

        def read(connection: sqlite3.Connection) -> dict[bytes, Value | None]:
            found: dict[bytes, Value | None] = {}
            ordered = sorted(set(keys))  # neighbours in the tree share pages
            for start in range(0, len(ordered), _KEYS_PER_QUERY):
                part = ordered[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value FROM answers WHERE key IN ({marks})"
                found.update((key, _decode(text)) for key, text in connection.execute(query, part))
            return found

        return self._do(read)

    def put(self, identity: str, answers: Iterable[tuple[bytes, Value]], *, replace: Collection[bytes] = ()) -> None:
        """Keep answers, all in one transaction. An answer already there stays, unless its key is in `replace`."""
        identity = without_keys(identity, guess=False)
        rows = [(key, without_keys(json.dumps(value), guess=False)) for key, value in answers]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                model = self._model_id(connection, identity)
                spoiled = [(key,) for key, _ in rows if key in replace]
                connection.executemany("DELETE FROM answers WHERE key = ?", spoiled)
                connection.executemany(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", [(key, model, text) for key, text in rows]
                )
                connection.execute("COMMIT")
            except BaseException:
                self._model_ids.clear()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

        self._do(write)

    def info(self) -> CacheInfo:
        """Entries and size; does not create the file."""
        if not self.path.exists():
            return CacheInfo(self.path, 0, 0, {})

        def count(connection: sqlite3.Connection) -> dict[str, int]:
            names = dict(connection.execute("SELECT id, identity FROM models"))
            query = "SELECT model, count(*) FROM answers GROUP BY model ORDER BY count(*) DESC"
            return {names[model]: entries for model, entries in connection.execute(query)}

        by_model = self._do(count)
        size = sum(file.stat().st_size for file in self._files() if file.exists())
        return CacheInfo(self.path, sum(by_model.values()), size, by_model)

    def clear(self) -> int:
        """Delete all answers and give the space back; how many there were."""
        if not self.path.exists():
            return 0

        def empty(connection: sqlite3.Connection) -> int:
            count: int = connection.execute("DELETE FROM answers").rowcount
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return count

        return self._do(empty)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None
            self._model_ids.clear()

    def _model_id(self, connection: sqlite3.Connection, identity: str) -> int:
        if identity not in self._model_ids:
            connection.execute("INSERT OR IGNORE INTO models (identity) VALUES (?)", (identity,))
            row = connection.execute("SELECT id FROM models WHERE identity = ?", (identity,)).fetchone()
            self._model_ids[identity] = int(row[0])
        return self._model_ids[identity]

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the open file. A damaged file is set aside and `work` runs on the new, empty one."""
        with self._lock:
            try:
                try:
                    return work(self._open())
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError as error:
                    self._set_aside(f"is damaged ({error})")
                    return work(self._open())
            except sqlite3.DatabaseError as error:
                raise TaskModelError(
                    f"answer cache {self.path} cannot be used ({error}); free the disk or the file, point "
                    "PREWRITE_ANSWER_CACHE elsewhere, or turn the cache off"
                ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        self._model_ids.clear()
        self._pid = os.getpid()
        with writing(self.path, setting="PREWRITE_ANSWER_CACHE"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        _check_own(self.path)
        self._inode = _inode(self.path)
        self._connection = self._connect()
        if (found := _version(self._connection)) != VERSION:
            self._set_aside(f"has format {found}, this version writes {VERSION}")
            self._connection = self._connect()
        self._inode = _inode(self.path)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL keeps every commit when the process dies; only a power cut can lose the last ones.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA mmap_size = 1073741824")
            connection.execute("BEGIN IMMEDIATE")  # one process creates the tables, the others wait
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.strip().split(";\n"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, why: str) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._inode is None or _inode(self.path) != self._inode:
            return  # another process has set it aside already: use the file that it made
        kept = self.path.with_name(f"{self.path.name}.set-aside-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        logger.warning("answer cache %s %s; it is kept as %s and a new one is started", self.path, why, kept.name)
        for file in self._files():
            if file.exists():
                file.replace(kept.with_name(kept.name + file.name[len(self.path.name) :]))

    def _files(self) -> list[Path]:
        return [self.path, *(self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm"))]


def _check_own(path: Path) -> None:
    """Raise `TaskModelError` for a file that is somebody else's: nothing of it is changed, nor is it moved away."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        header = file.read(100)
    why = ""
    if not header.startswith(b"SQLite format 3\0"):
        why = "" if path.suffix == SUFFIX else f"it is no database, and its name does not end in {SUFFIX}"
    elif header[68:72] != _APPLICATION.to_bytes(4, "big") and not path.with_name(f"{path.name}-wal").exists():
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as found,
        ):
            if found.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                why = "it is the database of another program"
    if why:
        raise TaskModelError(f"{str(path)!r} is no answer cache: {why}; set PREWRITE_ANSWER_CACHE to another place")


def _version(connection: sqlite3.Connection) -> int:
    """Format of the file; -1 if it is not a cache of ours."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        return -1
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _decode(text: str) -> Value | None:
    """A stored answer; None for what is none, which is asked again."""
    try:
        value = parse_json(text)
    except (TypeError, ValueError):
        return None
    return tuple(value) if isinstance(value, list) else value


class CachedTaskModel(Wrapper):
    """Asks the wrapped model only what the cache does not hold, each question once, and keeps each answer at once;
    those that were computed together (`Reply.more`) in one transaction."""

    def __init__(self, inner: TaskModel, cache: AnswerCache):
        super().__init__(inner)
        self.cache = cache

    def stream(self, batch: Batch) -> Replies:
        """Hits first, then the wrapped model's answers as they arrive."""
        if batch.sampling:
            yield from stream(self.inner, batch)
            return
        identity = self.identity
        keys = [answer_key(identity, batch, row) for row in range(len(batch.prompts))]
        known = self.cache.get(keys)
        missing: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            value = known.get(key)
            if value is not None and is_answer(value, batch):
                yield row, Reply(value, cached=True)
            else:
                missing.setdefault(key, []).append(row)
        if not missing:
            return
        first_rows = [rows[0] for rows in missing.values()]
        together: list[tuple[bytes, Reply]] = []
        for position, reply in stream(self.inner, batch.rows(first_rows)):
            if not isinstance(reply.value, NoAnswer) and not is_answer(reply.value, batch):
                raise TaskModelError(f"{self.name}: {str(reply.value)[:80]!r} is no answer to {batch.method!r}")
            together.append((keys[first_rows[position]], reply))
            if reply.more:
                continue
            kept = [(key, answer.value) for key, answer in together if answer.known_model]
            if answers := [(key, value) for key, value in kept if not isinstance(value, NoAnswer)]:
                self.cache.put(identity, answers, replace=missing.keys() & known.keys())  # what is no answer to it
            for key, answer in together:
                first, *others = missing[key]
                yield first, answer
                for row in others:
                    yield row, Reply(answer.value, cached=True)
            together = []
