"""The answer cache: what is asked once is kept, by several processes, through kills and damage."""

import json
import logging
import multiprocessing
import os
import random
import sqlite3
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from prewrite.errors import StorageError, TaskModelError
from prewrite.task_models.cache import AnswerCache, CachedTaskModel, answer_key, default_cache_path
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.registry import wrap_task_model
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import Batch
from prewrite.types import Conversation, Turn, messages_of


@pytest.fixture
def cache(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    yield cache
    cache.close()


def recording(name="scripted"):
    """A task model that upper-cases, and the list of what it was asked."""
    asked = []

    def answer(prompt):
        asked.append(prompt)
        return prompt.upper()

    return ScriptedTaskModel(answer, name=name), asked


def test_a_prompt_is_asked_once_and_answers_keep_their_order(cache):
    model, asked = recording()
    cached = CachedTaskModel(model, cache)
    assert cached.generate(["a", "b", "a"]) == ["A", "B", "A"]
    assert cached.generate(["c", "b"]) == ["C", "B"]
    assert asked == ["a", "b", "c"]


def test_scores_come_back_from_the_cache_bit_for_bit(cache):
    values = np.array([[-0.1234567890123456, -7.0], [-1e300, -1e-300]])
    rows = {"x": values[0], "y": values[1]}
    model = ScriptedTaskModel(str, label_scores=lambda prompt, labels: rows[prompt])
    cached = CachedTaskModel(model, cache)
    first = cached.label_logprobs(["x", "y"], ["no", "yes"])
    second = CachedTaskModel(model, cache).label_logprobs(["y", "x"], ["no", "yes"])
    assert np.array_equal(first, values)
    assert np.array_equal(second, values[::-1])


def test_labels_targets_methods_and_models_have_keys_of_their_own():
    batches = [
        ("m", Batch("generate", ("p",))),
        ("n", Batch("generate", ("p",))),
        ("m", Batch("constrained", ("p",), labels=("a", "b"))),
        ("m", Batch("label_logprobs", ("p",), labels=("a", "b"))),
        ("m", Batch("label_logprobs", ("p",), labels=("b", "a"))),
        ("m", Batch("label_logprobs", ("p",), labels=("a, b",))),
        ("m", Batch("target_logprobs", ("p",), targets=("a",))),
        ("m", Batch("target_logprobs", ("p",), targets=("b",))),
    ]
    assert len({answer_key(identity, batch, 0) for identity, batch in batches}) == len(batches)


def test_a_conversation_has_a_key_that_no_text_has():
    one = Conversation((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
    other = Conversation((Turn("user", "a"), Turn("assistant", "b, c"), Turn("user", "")))
    as_json = json.dumps(messages_of(one))
    prompts = [one, other, Conversation((Turn("user", "a"),)), "a", str(one), as_json, repr(one)]
    assert len({answer_key("m", Batch("generate", (prompt,)), 0) for prompt in prompts}) == len(prompts)


def test_an_answer_is_on_disk_before_the_next_is_asked(cache):
    seen = []

    class Slow(CountingTaskModel):
        def stream(self, batch):
            for row, reply in super().stream(batch):
                yield row, replace(reply, more=False)
                seen.append(AnswerCache(cache.path).info().entries)

    model, _ = recording()
    CachedTaskModel(Slow(model), cache).generate(["a", "b", "c"])
    assert seen == [1, 2, 3]


def test_answers_that_were_computed_together_are_kept_together(cache):
    """A model in this process computes a batch at once, and in bf16 each answer depends on the others of it."""
    seen = []
    model = ScriptedTaskModel(str.upper)
    cached = CachedTaskModel(model, cache)
    for row, reply in cached.stream(Batch("generate", ("a", "b", "c"))):
        seen.append((row, reply.value, AnswerCache(cache.path).info().entries))
    assert seen == [(0, "A", 3), (1, "B", 3), (2, "C", 3)]

    class Killed(AnswerCache):
        def put(self, identity, answers, **settings):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CachedTaskModel(model, Killed(cache.path)).generate(["d", "e"])
    assert cache.info().entries == 3


def test_usage_tells_hits_from_calls(cache):
    model, _ = recording()
    counted = wrap_task_model(model, cache=cache)
    counted.generate(["a", "b", "a"])
    counted.generate(["a", "c"])
    assert (counted.usage.prompts, counted.usage.calls, counted.usage.cache_hits) == (5, 3, 2)


@pytest.mark.parametrize("damage", ["garbage", "header", "truncated"])
def test_a_damaged_file_is_set_aside_with_a_message_and_the_run_goes_on(cache, caplog, damage):
    model, asked = recording()
    CachedTaskModel(model, cache).generate([f"prompt {number}" for number in range(500)])
    cache.close()
    whole = cache.path.read_bytes()
    spoiled = {"garbage": b"not a database" * 500, "header": b"x" * 100 + whole[100:], "truncated": whole[:9000]}[
        damage
    ]
    cache.path.write_bytes(spoiled)
    with caplog.at_level(logging.WARNING):
        answers = CachedTaskModel(model, cache).generate([f"prompt {number}" for number in range(500)])
    assert answers[499] == "PROMPT 499"
    assert "is kept as" in caplog.text
    kept = [file for file in cache.path.parent.iterdir() if "set-aside" in file.name and "-wal" not in file.name]
    assert kept[0].read_bytes()[:14] == spoiled[:14]
    assert len(asked) == 1000 and cache.info().entries == 500


def test_a_file_of_another_version_is_set_aside(cache, caplog):
    model, _ = recording()
    CachedTaskModel(model, cache).generate(["a"])
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with caplog.at_level(logging.WARNING):
        assert CachedTaskModel(model, cache).generate(["a"]) == ["A"]
    assert "has format 99, this version writes 1" in caplog.text


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(TaskModelError, match="PREWRITE_ANSWER_CACHE"):
        AnswerCache(tmp_path / "folder").get([b"k"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="or set PREWRITE_ANSWER_CACHE to another place"):
        AnswerCache(tmp_path / "file" / "answers.sqlite").get([b"k"])


def test_the_path_follows_the_environment(monkeypatch, tmp_path):
    for name in ("PREWRITE_ANSWER_CACHE", "PREWRITE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_path() == tmp_path / "prewrite" / "answers.sqlite"
    monkeypatch.setenv("PREWRITE_ANSWER_CACHE", str(tmp_path / "mine.db"))
    assert default_cache_path() == tmp_path / "mine.db"


def _fill(path, start):
    model = ScriptedTaskModel(str.upper)
    CachedTaskModel(model, AnswerCache(path)).generate([f"p{number}" for number in range(start, start + 300)])


def test_several_processes_share_one_file(cache):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(cache.path, start)) for start in (0, 150, 300)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert cache.info().entries == 600  # 0..299, 150..449 and 300..599 overlap


def test_threads_share_one_instance(cache):
    cached = CachedTaskModel(ScriptedTaskModel(str.upper), cache)
    answers = {}

    def ask(start):
        answers[start] = cached.generate([f"p{number}" for number in range(start, start + 50)])

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 100, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[75][-1] == "P124" and cache.info().entries == 125


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_the_file_again(cache):
    cached = CachedTaskModel(ScriptedTaskModel(str.upper), cache)
    cached.generate(["a"])
    child = os.fork()
    if not child:
        os._exit(0 if cached.generate(["b"]) == ["B"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cached.generate(["c"]) == ["C"] and cache.info().entries == 3


def test_info_counts_by_model_and_clear_gives_the_space_back(cache):
    assert cache.info().entries == 0 and not cache.path.exists()
    for name, count in (("one", 700), ("two", 300)):
        CachedTaskModel(recording(name)[0], cache).generate([f"{'long ' * 100}{number}" for number in range(count)])
    info = cache.info()
    assert dict(info.by_model) == {"one": 700, "two": 300} and info.bytes > 150_000
    assert cache.clear() == 1000
    assert cache.info().entries == 0 and cache.info().bytes < 100_000


def test_a_thousand_of_100_000_entries_are_found_within_50_ms(cache):
    source = random.Random(0)
    keys = [source.randbytes(32) for _ in range(100_000)]
    cache.put("model", ((key, (-0.5, -1.5)) for key in keys))
    wanted = source.sample(keys, 1000)
    times = []  # of this process, so that a busy machine does not count
    for _ in range(3):
        start = time.process_time()
        assert len(cache.get(wanted)) == 1000
        times.append(time.process_time() - start)
    assert min(times) < 0.05


@pytest.mark.parametrize("kept", ["{", '"A', "null", "3", "[1, 2]", b"\xff\xfe"])
def test_what_cannot_be_an_answer_is_asked_again_once_and_replaced(cache, kept):
    model, asked = recording()
    CachedTaskModel(model, cache).generate(["a", "b"])
    cache.close()
    key = answer_key(model.identity, Batch("generate", ("a",)), 0)
    with sqlite3.connect(cache.path) as connection:
        assert connection.execute("UPDATE answers SET value = ? WHERE key = ?", (kept, key)).rowcount == 1
    connection.close()
    asked.clear()
    for _ in range(2):
        assert CachedTaskModel(model, cache).generate(["a", "b"]) == ["A", "B"]
    assert asked == ["a"] and cache.info().entries == 2


def test_an_answer_that_another_process_was_first_to_keep_stays(cache):
    key = b"k" * 32
    cache.put("model", [(key, "first")])
    cache.put("model", [(key, "second")])
    assert cache.get([key]) == {key: "first"}
    cache.put("model", [(key, "third")], replace=[key])
    assert cache.get([key]) == {key: "third"}
