"""Which checkpoint is the newest, and which ones go."""

import pytest

from prewrite.errors import RunFolderError
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
    (run.checkpoints / "step-of-mine").mkdir()
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_the_newest_checkpoint_is_that_of_the_last_update(run_folder):
    assert run_folder.newest_checkpoint().name == "step-100000"


def test_a_checkpoint_that_is_not_whole_does_not_count(run_folder):
    (run_folder.checkpoints / "step-100000/trainer.json").unlink()
    assert run_folder.newest_checkpoint().name == "step-99999"


@pytest.mark.parametrize(
    ("saved", "left"),
    [
        (100_000, ["step-100000", "step-of-mine"]),
        (99_999, ["step-100000", "step-99999", "step-of-mine"]),
    ],
)
def test_earlier_checkpoints_go_and_nothing_else(run_folder, saved, left):
    checkpoint.remove_older(run_folder, saved)
    assert names(run_folder) == left


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match="--overwrite"):
        RunFolder(tmp_path).newest_checkpoint()
