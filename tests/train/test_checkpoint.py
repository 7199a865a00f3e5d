"""Which checkpoint is the newest, which one goes on where that is damaged, and which ones go."""

import logging

import pytest

from prewrite.errors import RunFolderError
from prewrite.files import write_checksums
from prewrite.run_folder import RunFolder
from prewrite.train import checkpoint


@pytest.fixture
def run_folder(tmp_path):
    """A run with checkpoints on both sides of the 100,000th update, and a folder of the user's."""
    run = RunFolder(tmp_path)
    for step in (99_998, 99_999, 100_000):
        folder = run.checkpoint(step)
        folder.mkdir(parents=True)
        (folder / "trainer.json").write_text("{}")
        (folder / "policy.safetensors").write_bytes(bytes(1000))
        write_checksums(folder)
    (run.checkpoints / "step-of-mine").mkdir()
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_the_newest_checkpoint_is_that_of_the_last_update(run_folder):
    assert run_folder.newest_checkpoint().name == "step-100000"


def cut(folder):
    (folder / "policy.safetensors").write_bytes(bytes(100))


def flip(folder):
    (folder / "policy.safetensors").write_bytes(bytes(999) + b"1")


def lose(folder):
    (folder / "trainer.json").unlink()


def lose_checksums(folder):
    (folder / "checksums.json").unlink()


def spoil_checksums(folder):
    (folder / "checksums.json").write_text('{"files": {"trainer.json": 1}}')


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "policy.safetensors has 100 of 1,000 bytes"),
        (flip, "policy.safetensors was changed"),
        (lose, "trainer.json is missing"),
        (lose_checksums, "checksums.json is missing"),
        (spoil_checksums, "checksums.json cannot be read"),
    ],
)
def test_the_one_before_a_damaged_checkpoint_goes_on_and_that_is_said(run_folder, caplog, damage, told):
    damage(run_folder.checkpoint(100_000))
    with caplog.at_level(logging.WARNING):
        assert run_folder.newest_checkpoint().name == "step-99999"
    (record,) = caplog.records
    message = record.getMessage()
    assert "step-100000 is damaged" in message and told in message and message.endswith("going on from step-99999")


def test_where_all_are_damaged_that_is_the_error(run_folder):
    for folder in run_folder.checkpoints_by_step().values():
        cut(folder)
    with pytest.raises(RunFolderError, match=r"step-100000 is damaged .* no other .*--overwrite"):
        run_folder.newest_checkpoint()


@pytest.mark.parametrize(
    ("saved", "keep", "left"),
    [
        (100_000, 1, ["step-100000", "step-of-mine"]),
        (100_000, 2, ["step-100000", "step-99999", "step-of-mine"]),
        (100_000, 3, ["step-100000", "step-99998", "step-99999", "step-of-mine"]),
        (99_999, 1, ["step-100000", "step-99999", "step-of-mine"]),
    ],
)
def test_the_last_ones_stay_and_nothing_of_the_users_goes(run_folder, saved, keep, left):
    checkpoint.remove_older(run_folder, saved, keep=keep)
    assert names(run_folder) == left


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert RunFolder(tmp_path).newest_checkpoint() is None
