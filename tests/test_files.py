"""Files and folders are written whole or not at all, and the cache folder is where the system keeps caches."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import platformdirs
import pytest

from prewrite.errors import PrewriteError, StorageError
from prewrite.files import cache_dir, give_name, made_once, publish, whole_folder, write_atomic

needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows knows neither permission bits nor these limits")


def tree(folder):
    """Every file below `folder`, hidden ones too, with its text."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "runs" / "rewriter") as folder:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights").write_text("new")
        assert not (tmp_path / "runs" / "rewriter").exists()
    assert tree(tmp_path) == {"runs/rewriter/adapter/weights": "new"}


def test_an_older_folder_stays_until_the_new_one_is_whole_and_is_then_replaced(tmp_path):
    (tmp_path / "rewriter").mkdir()
    (tmp_path / "rewriter" / "old").write_text("old")
    with whole_folder(tmp_path / "rewriter") as folder:
        (folder / "weights").write_text("new")
        assert (tmp_path / "rewriter" / "old").read_text() == "old"
    assert tree(tmp_path) == {"rewriter/weights": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_older_folder_and_nothing_half_written(tmp_path, error):
    (tmp_path / "rewriter").mkdir()
    (tmp_path / "rewriter" / "old").write_text("old")
    with pytest.raises(error), whole_folder(tmp_path / "rewriter") as folder:
        (folder / "weights").write_text("new")
        raise error
    assert tree(tmp_path) == {"rewriter/old": "old"}
    assert os.listdir(tmp_path) == ["rewriter"]


def test_an_older_folder_is_put_back_if_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = Path.rename

    def refuse(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        publish(tmp_path / "new", tmp_path / "old")
    assert tree(tmp_path) == {"old/file": "old", "new/file": "new"}


def test_of_two_that_make_a_folder_once_the_first_stays(tmp_path):
    def make(folder):
        (folder / "copy").write_text("slow")
        made_once(tmp_path / "model", lambda faster: (faster / "copy").write_text("fast"))

    assert made_once(tmp_path / "model", make) == tmp_path / "model"
    assert tree(tmp_path) == {"model/copy": "fast"}
    made_once(tmp_path / "model", lambda folder: pytest.fail("it is there already"))


def test_what_a_killed_process_left_is_deleted_a_day_later(tmp_path):
    for name, age in ((".model.writing-0a", 25 * 3600), (".model.writing-0b", 0)):
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    with whole_folder(tmp_path / "other"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".model.writing-0b", "other"]


def test_a_file_in_the_way_is_one_line_that_names_the_place(tmp_path):
    (tmp_path / "file").write_text("")
    told = r"file/result' cannot be written \((Not a directory|File exists)\); free space or allow writing there"
    with pytest.raises(StorageError, match=told):
        write_atomic(tmp_path / "file" / "result", "x")
    with pytest.raises(StorageError, match=told), whole_folder(tmp_path / "file" / "result"):
        pytest.fail("there is no folder to write into")


def test_the_cache_s_own_setting_is_named_for_a_place_in_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREWRITE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="or set PREWRITE_CACHE_DIR to another place"):
        made_once(cache_dir() / "model", lambda folder: None)


def test_errors_of_other_kinds_pass_as_they_are(tmp_path):
    for error in (PrewriteError("ours"), OSError("of a hub"), RuntimeError("of a model")):
        with pytest.raises(type(error)) as caught, whole_folder(tmp_path / "model"):
            raise error
        assert caught.value is error


@needs_posix
@pytest.mark.parametrize(
    "writes",
    [
        "safetensors.torch.save_file({'a': torch.zeros(99999)}, folder / 'a')",
        "torch.save({'a': torch.zeros(99999)}, folder / 'a')",
        "(folder / 'a').write_text('a' * 99999)",
        "shutil.copytree(source, folder / 'a')",
    ],
)
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path, writes):
    pytest.importorskip("torch")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_text("a" * 99999)
    code = f"""
        import resource, shutil, signal, sys, safetensors.torch, torch
        from pathlib import Path
        from prewrite.errors import StorageError
        from prewrite.files import whole_folder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))  # a file ends here, as on a full disk
        source = Path({str(tmp_path / "source")!r})
        try:
            with whole_folder(Path({str(tmp_path / "rewriter")!r})) as folder:
                {writes}
        except StorageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rewriter' cannot be written (" in done.stdout and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == ["source"]


def test_a_file_gets_the_permissions_that_the_user_s_mask_allows(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("system", "below"),
    [("unix.Unix", ".cache/prewrite"), ("macos.MacOS", "Library/Caches/prewrite")],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path, system, below):
    module, name = system.split(".")
    monkeypatch.setattr(
        platformdirs, "PlatformDirs", getattr(pytest.importorskip(f"platformdirs.{module}"), name)
    )  # what platformdirs takes on that system
    for variable in ("PREWRITE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / below


def test_one_variable_moves_the_whole_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PREWRITE_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path


def test_a_file_gets_a_second_name_where_links_are_forbidden_too(tmp_path, monkeypatch):
    (tmp_path / "first").write_text("weights", encoding="utf-8")
    give_name(tmp_path / "first", tmp_path / "linked")

    def forbidden(*_, **__):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", forbidden)
    give_name(tmp_path / "first", tmp_path / "copied")
    assert (tmp_path / "linked").read_text(encoding="utf-8") == "weights"
    assert (tmp_path / "copied").read_text(encoding="utf-8") == "weights"
    assert not (tmp_path / "copied").is_symlink()
