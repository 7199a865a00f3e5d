"""The files of a run: their names, atomic writing, reading. A report is built from these files alone."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prewrite.errors import RunFolderError, without_keys
from prewrite.files import LOCK, damage_of, locked, remove_unfinished, to_json, why_unreadable, write_atomic, writing
from prewrite.text import check_json, parse_json

logger = logging.getLogger(__name__)


REWRITER_FILE = "rewriter.json"
"""What makes a folder a rewriter's."""


class RunFolder:
    """One training or search run on disk.

    `create` refuses a folder that already holds a run; `open` refuses one that does not.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.splits = path / "splits.json"
        self.metrics = path / "metrics.jsonl"
        self.rollouts = path / "rollouts.jsonl"
        self.rewrites = path / "rewrites.jsonl"
        self.items = path / "items.jsonl"
        self.result = path / "result.json"
        self.prompt = path / "prompt.json"
        self.candidates = path / "candidates.jsonl"
        self.evals = path / "evals.jsonl"
        self.budget = path / "budget.bin"
        self.checkpoints = path / "checkpoints"
        self.rewriter = path / "rewriter"
        self.report_html = path / "report.html"
        self.report_md = path / "report.md"

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> RunFolder:
        """A new run folder.

        Raises `RunFolderError` as `check_new`, or if `path` cannot be made.
        """
        run = cls.check_new(path, overwrite=overwrite)
        if run.config.exists():
            run._remove_files()
        run._make()
        return run

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"output_dir {str(self.path)!r} cannot be made ({error.strerror}); give a folder where you may write"
            ) from None

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keeps other runs out of the folder, which is made where it is missing, and tidies up after a killed one.

        Raises `RunFolderError` where another run is writing there.
        """

        def taken(who: str) -> RunFolderError:
            return RunFolderError(
                f"output_dir {str(self.path)!r} is in use: another run writes there ({who}); wait until it ends, stop "
                "it, or choose another folder"
            )

        self._make()
        with locked(self.path, taken=taken):
            for folder in (self.path, self.checkpoints):
                remove_unfinished(folder)
            for folder in self.checkpoints.glob("checkpoint-*"):  # GRPO and RLOO write there, see `grpo.py`
                shutil.rmtree(folder)
            yield

    @classmethod
    def check_new(cls, path: str | Path, *, overwrite: bool = False) -> RunFolder:
        """What `create` would make, and nothing made or removed yet.

        Raises `RunFolderError` if `path` is a file, or holds a run and `overwrite` is off. A run that ended before its
        first update is none: nothing is lost with it.
        """
        run = cls(Path(path))
        if os.path.exists(path) and not os.path.isdir(path):
            raise RunFolderError(f"output_dir {str(path)!r} is a file; give a folder that can be created")
        run._check_links()
        if os.path.exists(run.config):
            begun = any(path.exists() for path in (run.checkpoints, run.rewriter, run.result))
            begun = begun or any(row.get("step") != 0 for row in run.read_rows(run.metrics))
            if begun and not overwrite:
                raise RunFolderError(
                    f"output_dir {str(path)!r} already holds a run; pass --resume to go on with it, "
                    "--overwrite to replace it, or choose another folder"
                )
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder. Raises `RunFolderError` if `path` holds no run."""
        run = cls(Path(path))
        if not os.path.exists(run.config):
            raise RunFolderError(f"{str(path)!r} is not a run folder: it has no config.json; give the folder of a run")
        run._check_links()
        return run

    @classmethod
    def find_rewriter(cls, path: str | Path) -> Path:
        """The folder of a rewriter: `path` itself, or the one in the run folder `path`.

        Raises `RunFolderError` where there is none.
        """
        folders = (Path(path), cls(Path(path)).rewriter)
        if found := [folder for folder in folders if os.path.isfile(folder / REWRITER_FILE)]:
            return found[0]
        raise RunFolderError(
            f"{str(path)!r} holds no trained rewriter (no rewriter/{REWRITER_FILE}); give the --output_dir of a "
            "finished training run"
        )

    def _check_links(self) -> None:
        """Raise `RunFolderError` where what a run writes, reads or deletes here is a link to a place elsewhere."""
        inside = [*self._files, self.checkpoints, self.rewriter, self.path / LOCK]
        if self.checkpoints.is_dir():
            inside += self.checkpoints.iterdir()
        for path in inside:
            if os.path.islink(path) and not path.resolve().is_relative_to(self.path.resolve()):
                raise RunFolderError(
                    f"{path} is a link that leads out of the run folder, to {path.resolve()}; put the file itself "
                    "there, or take the link away"
                )

    @property
    def _files(self) -> tuple[Path, ...]:
        """Every file that a run writes beside its checkpoints and its rewriter."""
        return (
            self.config, self.splits, self.metrics, self.rollouts, self.rewrites, self.items, self.result, self.prompt,
            self.candidates, self.evals, self.budget, self.report_html, self.report_md,
        )  # fmt: skip

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after update `step` goes."""
        return self.checkpoints / f"step-{step:05d}"

    def checkpoints_by_step(self) -> dict[int, Path]:
        """The folders of checkpoints by their updates, the earliest first."""
        numbered = ((path.name.removeprefix("step-"), path) for path in self.checkpoints.glob("step-*"))
        return dict(sorted((int(number), path) for number, path in numbered if number.isdecimal()))

    def newest_checkpoint(self) -> Path | None:
        """The last whole checkpoint, with a warning about damaged ones after it; None where none was written.

        Raises `RunFolderError` where all of them are damaged.
        """
        damaged: list[str] = []
        for path in reversed(self.checkpoints_by_step().values()):
            damage = damage_of(path)
            if damage is None:
                for told in damaged:
                    logger.warning("checkpoint %s; going on from %s", told, path.name)
                return path
            damaged.append(f"{path} is damaged ({damage})")
        if damaged:
            raise RunFolderError(
                f"checkpoint {damaged[0]}, and there is no other to go on from; start again with --overwrite, answers "
                "are in the cache"
            )
        return None

    def _remove_files(self) -> None:
        """Delete what a run writes, and nothing else that the user may keep beside it."""
        for folder in (self.checkpoints, self.rewriter):
            if folder.exists():
                shutil.rmtree(folder)
        for file in reversed(self._files):  # config.json last: what is left after a kill still is a run's
            file.unlink(missing_ok=True)

    @staticmethod
    def write_json(path: Path, value: Mapping[str, Any]) -> None:
        """Atomically write one JSON object. NaN and infinity are refused: they are not JSON."""
        write_atomic(path, to_json(value, indent=2) + "\n")

    @staticmethod
    def read_json(path: Path, shape: Any = dict) -> dict[str, Any]:
        """Read one JSON object of a shape (`text.check_json`).

        Raises `RunFolderError` naming the file, and the field, if it is missing or broken.
        """
        try:
            value = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(f"{path} is missing; was the run stopped before it wrote it?") from None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read ({why_unreadable(error)})") from None
        except ValueError as error:  # of the encoding too
            raise RunFolderError(f"{path} is not valid JSON ({error}); the file was changed or cut off") from None
        if not isinstance(value, dict):
            raise RunFolderError(f"{path} holds a {type(value).__name__}, not an object")
        check_shape(value, shape, str(path))
        return value

    @staticmethod
    def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a JSONL file, flushed to disk before this returns."""
        text = "".join(to_json(row) + "\n" for row in rows)
        check_there(path.parent)
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(without_keys(text, guess=False))
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read_rows(cls, path: Path) -> Iterator[dict[str, Any]]:
        """Rows of a JSONL file; see `read_placed_rows`."""
        for _, row in cls.read_placed_rows(path):
            yield row

    @staticmethod
    def read_placed_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows of a JSONL file, each with its place `file:line`; none if the file is missing.

        A last line without its line break is being written, or was cut off by a crash: it is left out. Raises
        `RunFolderError` for any other line that is not one JSON object.
        """
        if not path.exists():
            return
        try:
            opened = path.open("rb")
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read ({why_unreadable(error)})") from None
        with opened as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                if not line.endswith(b"\n"):
                    return
                try:
                    row = parse_json(line.decode("utf-8"))
                except ValueError as error:  # of the encoding too
                    raise RunFolderError(f"{where} is not valid JSON ({error}); the file was changed") from None
                if not isinstance(row, dict):
                    raise RunFolderError(f"{where} holds a {type(row).__name__}, not an object")
                yield where, row

    @contextmanager
    def replacing_result(self) -> Iterator[None]:
        """Drop what an earlier choice and test wrote, so that a run resumed after them holds each once.

        If the block that writes the new result fails, the earlier one is put back.
        """
        files = (self.rewrites, self.items, self.result, self.prompt, self.candidates, self.evals)
        earlier = {file: file.read_text(encoding="utf-8") for file in files if file.exists()}
        if self.rewrites.exists():
            rows = [row for row in self.read_rows(self.rewrites) if "step" in row]
            write_atomic(self.rewrites, "".join(to_json(row) + "\n" for row in rows))
        for file in (self.items, self.result, self.prompt, self.candidates, self.evals):
            file.unlink(missing_ok=True)
        try:
            yield
        except BaseException:
            if self.result in earlier:
                for file, text in earlier.items():
                    write_atomic(file, text)
            raise

    def truncate_all(self, *, after_step: int) -> None:
        """Drop what training logged beyond `after_step`, so that a resumed run does not log an update twice."""
        for path in (self.metrics, self.rollouts, self.rewrites):
            if path.exists():
                rows = [row for row in self.read_rows(path) if row.get("step", 0) <= after_step]
                write_atomic(path, "".join(to_json(row) + "\n" for row in rows))


def check_there(folder: Path) -> None:
    """Raise `RunFolderError` where the folder of a run that is being written is gone: it is not made a second time,
    since what came before would be missing in it."""
    if not folder.is_dir():
        raise RunFolderError(
            f"run folder {str(folder)!r} is gone: it was deleted or moved while the run wrote there; start again "
            "(answers are in the cache), or put it back and pass --resume"
        )


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Raise `RunFolderError` that names the place and the field where a value is not of the shape."""
    try:
        check_json(value, shape)
    except ValueError as error:
        raise RunFolderError(f"{where}: {error}; the file was changed or is of another version") from None
