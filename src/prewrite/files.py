"""Where files of the user live, and how a file or folder is written: whole or not at all.

What the operating system refuses on the way (no permission, no space) is a `StorageError` of one line, and what was
there before stays.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from prewrite.errors import PrewriteError, StorageError, without_keys
from prewrite.text import is_valid_unicode

logger = logging.getLogger(__name__)

LOCK = ".lock"
CHECKSUMS = "checksums.json"
"""The file by which `damage_of` tells whether a folder is as it was written."""
_ABANDONED = 24 * 3600  # seconds after which a folder that is still being written belongs to a process that was killed


def cache_dir() -> Path:
    """The folder for everything that is made once and kept: answers, converted models, warm-start adapters.

    `PREWRITE_CACHE_DIR` if set, else `prewrite` where the system keeps a user's caches (`~/.cache` on Linux,
    `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows).
    """
    override = os.environ.get("PREWRITE_CACHE_DIR")
    return Path(override) if override else Path(platformdirs.user_cache_dir("prewrite", appauthor=False))


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, which `make(an empty folder)` fills on first use; it appears whole or not at all.

    Safe when several processes start at once: each may make one, and the first that is whole stays.
    """
    if not folder.is_dir():
        with whole_folder(folder, replace=False) as temporary:
            make(temporary)
    return folder


@contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to write into, which becomes `path` when the block ends; after an error nothing is left of it.

    A folder that is at `path` already stays until the new one is whole. With `replace` off it stays for good: another
    process was first.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.writing-{secrets.token_hex(4)}")
    with writing(path):
        temporary.mkdir(parents=True)
        try:
            _remove_abandoned(path.parent)
            yield temporary
            publish(temporary, path, replace=replace)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def publish(written: Path, path: Path, *, replace: bool = True) -> None:
    """Give the finished folder `written` the name `path`, beside it, once its files are safe from a power cut.

    An older folder at `path` is set aside first and put back if that fails; with `replace` off it stays, and
    `written` is left as it is.
    """
    with writing(path):
        for file in (*written.rglob("*"), written):
            _sync(file)
        aside = path.with_name(f".{path.name}.old-{secrets.token_hex(4)}")
        if replace and path.exists():
            path.rename(aside)
        try:
            written.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            if replace or not path.is_dir():
                raise
        _sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)


def give_name(source: Path, name: Path) -> None:
    """Make `source` readable as `name` too: by a link, or by a copy where links are not allowed, as on Windows."""
    try:
        name.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, name)


def write_checksums(folder: Path) -> None:
    """Note size and CRC-32 of every file in the finished `folder`; they tell damage, not tampering."""
    files = {
        str(file.relative_to(folder)): _checksum(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / CHECKSUMS
    }
    write_atomic(folder / CHECKSUMS, to_json({"files": files}, indent=2) + "\n")


def damage_of(folder: Path) -> str | None:
    """What is wrong with a folder that `write_checksums` sealed, in a few words; None where it is as it was."""
    try:
        noted = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["files"].items()
        for name, (size, checksum) in noted:
            found, now = _checksum(folder / name)
            if found != size:
                return f"{name} has {found:,} of {size:,} bytes"
            if now != checksum:
                return f"{name} was changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = isinstance(error, FileNotFoundError) and error.filename
        return f"{Path(missing).name} is missing" if missing else f"{CHECKSUMS} cannot be read ({error!r})"
    return None


def _checksum(file: Path) -> tuple[int, int]:
    """(bytes, CRC-32) of a file."""
    size = checksum = 0
    with file.open("rb") as read:
        while block := read.read(1 << 20):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left in `folder` of a file or folder that it was writing.

    Only for a folder that nobody else writes to; see `_remove_abandoned`.
    """
    for path in [*folder.glob(".*.writing-*"), *folder.glob(".*.old-*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, taken: Callable[[str], Exception]) -> Iterator[None]:
    """Keeps other processes that ask for the same lock out of `folder`; it ends with the process, however that ends.

    Where another one holds it, `taken(who)` is raised, `who` being what that one wrote about itself. Where the file
    system has no locks a warning is all that happens.
    """
    with writing(folder):
        file = (folder / LOCK).open("a+", encoding="utf-8")
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                file.seek(0)
                raise taken(file.read().strip()) from None
            logger.warning("%s cannot be locked (%s): start no second run on it", folder, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # closing it gives the lock back; it stays, since deleting it would let two in


def _lock(descriptor: int) -> None:
    """Raises `OSError` where another process has the lock."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never half of one.

    Keys of the environment are left out of it. Raises `StorageError` where that cannot be done.
    """
    whole_bytes(path, without_keys(text, guess=False).encode("utf-8"))


def whole_bytes(path: Path, content: bytes) -> None:
    """As `write_atomic`, for what is no text."""
    temporary = path.with_name(f".{path.name}.writing-{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, *, setting: str | None = None) -> Iterator[None]:
    """Turns what the operating system refuses in here into a `StorageError` that names `path`.

    `setting` is what the user can give another place by, where it is not `PREWRITE_CACHE_DIR`.
    """
    try:
        yield
    except PrewriteError:
        raise
    except Exception as error:  # tokenizers and safetensors raise bare ones for a full disk; all others go on
        if (reason := _refusal(error, path)) is None:
            raise
        setting = setting or ("PREWRITE_CACHE_DIR" if path.is_relative_to(cache_dir()) else None)
        remedy = f"set {setting} to" if setting else "give"
        raise StorageError(
            f"{str(path)!r} cannot be written ({reason}); free space or allow writing there, or {remedy} another place"
        ) from error


_REFUSED = re.compile(
    r"\[Errno \d+\] (?P<python>[^:'\"]+)|(?P<rust>[^:]+) \(os error \d+\)|(?P<torch>inline_container)"
)
"""How errors of the operating system read where a library passes them on as text: shutil, safetensors, torch."""


def _refusal(error: Exception, path: Path) -> str | None:
    """Why the operating system refused to write, or None if `error` is of another kind."""
    if isinstance(error, OSError) and error.strerror:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        return error.strerror if named.is_relative_to(path.parent) else f"{error.strerror}: {str(named)!r}"
    if not (told := _REFUSED.search(str(error))):
        return None
    return (told["python"] or told["rust"] or "the file was cut off").strip()


def _sync(path: Path) -> None:
    """Wait until a file or a folder's list of files is on the disk. Windows opens no folders."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    """Delete what `whole_folder` left in `parent` when a process was killed."""
    for folder in parent.glob(".*.writing-*"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Why a text file cannot be read, in a few words, with the remedy where there is one."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"byte 0x{byte:02x} at position {error.start} is not UTF-8 text; write it again in UTF-8"
    return error.strerror or str(error)


def to_json(value: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON as people read it; half a surrogate pair, which UTF-8 cannot hold, is escaped. NaN is refused."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return json.dumps(value, indent=indent, allow_nan=False) if not is_valid_unicode(text) else text
