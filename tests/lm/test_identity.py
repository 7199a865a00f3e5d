"""A model is told apart by what its files hold, and a file is read once."""

import json
import os

import pytest

from prewrite.lm.identity import file_digest, folder_digest

MILLION = 1 << 20
YEARS_AGO = 1_500_000_000


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREWRITE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path):
    """A file of three megabytes that was written years ago."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(3 * MILLION))
    os.utime(file, (YEARS_AGO, YEARS_AGO))
    return file


def change_middle(file, *, changed_at):
    """Overwrite one byte in the middle: the size and both ends stay."""
    with file.open("r+b") as stream:
        stream.seek(MILLION + MILLION // 2)
        stream.write(b"\1")
    os.utime(file, (changed_at, changed_at))


def test_weights_that_are_overwritten_in_place_are_other_weights(weights):
    before = file_digest(weights)
    change_middle(weights, changed_at=YEARS_AGO + 1)
    assert file_digest(weights) != before


def test_a_file_whose_size_and_time_are_known_is_not_read_again(weights):
    before = file_digest(weights)
    change_middle(weights, changed_at=YEARS_AGO)  # as if nothing had happened
    assert file_digest(weights) == before


def test_a_file_that_has_just_been_written_is_not_remembered(weights):
    os.utime(weights)
    before, stat = file_digest(weights), weights.stat()
    change_middle(weights, changed_at=0)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # written twice within the resolution of its time
    assert file_digest(weights) != before


def test_files_that_are_gone_are_forgotten_and_a_broken_memory_is_begun_again(weights, own_cache, tmp_path):
    own_cache.mkdir()
    (own_cache / "digests.json").write_text('{"cut off')
    digest = file_digest(weights)
    assert json.loads((own_cache / "digests.json").read_text())[str(weights)][2] == digest
    other = tmp_path / "other.gguf"
    weights.rename(other)
    assert file_digest(other) == digest
    assert list(json.loads((own_cache / "digests.json").read_text())) == [str(other)]


def test_a_cache_that_cannot_be_written_only_costs_the_time(weights, own_cache):
    before = file_digest(weights)
    (own_cache / "digests.json").unlink()
    own_cache.rmdir()
    own_cache.write_text("a file in the way")
    assert file_digest(weights) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "merges.txt", "tokenizer.model"])
def test_a_folder_is_told_by_every_file_that_an_answer_depends_on(weights, name):
    before = folder_digest(weights.parent)
    (weights.parent / "README.md").write_text("about it")
    assert folder_digest(weights.parent) == before
    (weights.parent / name).write_text("{}")
    with_file = folder_digest(weights.parent)
    (weights.parent / name).write_text("[]")
    assert len({before, with_file, folder_digest(weights.parent)}) == 3
