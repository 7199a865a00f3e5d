"""What was asked within a budget is known after any end of the process, and nothing is counted twice."""

import multiprocessing
import os
import signal
from itertools import pairwise

import pytest

from prewrite.errors import BudgetExceededError, RunFolderError
from prewrite.task_models.budget import Budget, BudgetTaskModel
from prewrite.task_models.ledger import Ledger, Spent, read
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import Reply, StreamedTaskModel


class OneByOne(StreamedTaskModel):
    """Answers prompts one after the other, and takes 10 input and 2 output tokens of the 50 and 5 that it holds.

    It notes what the ledger says while each prompt is under way, and dies at the prompt "die".
    """

    name = identity = "one by one"
    capabilities = frozenset({"generate"})

    def __init__(self, ledger):
        self.ledger, self.seen = ledger, []

    def stream(self, batch):
        for row, prompt in enumerate(batch.prompts):
            batch.sending(row, 50, 5)
            if prompt == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.append(read(self.ledger))
            yield row, Reply(prompt.upper(), 10, 2)


def without_seconds(spent):
    return (spent.calls, spent.input_tokens, spent.output_tokens)


def test_what_is_under_way_is_in_the_file_before_it_is_sent_and_what_is_unsent_is_not(tmp_path):
    file = tmp_path / "budget.bin"
    budget, model = Budget(max_calls=10), OneByOne(file)
    with budget.kept_in(file):
        BudgetTaskModel(model, budget).generate(list("abc"))
    assert [without_seconds(spent) for spent in model.seen] == [(1, 50, 5), (2, 60, 7), (3, 70, 9)]
    assert without_seconds(read(file)) == (3, 30, 6)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize(
    ("model", "left"),
    [
        (OneByOne, (3, 70, 9)),  # two answered, one under way; "d" was never sent
        (
            lambda _: ScriptedTaskModel(lambda prompt: os.kill(os.getpid(), 9) if prompt == "die" else prompt),
            (4, 42, 0),
        ),
    ],
)
def test_a_killed_process_leaves_what_it_asked_and_the_next_one_counts_on(tmp_path, model, left):
    file, prompts = tmp_path / "budget.bin", ["a", "b", "die", "d"]

    def ask():
        budget = Budget(max_calls=10)
        with budget.kept_in(file):
            BudgetTaskModel(model(file), budget).generate(prompts)

    process = multiprocessing.get_context("fork").Process(target=ask)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    calls, input_tokens, output_tokens = without_seconds(read(file))
    assert (calls, output_tokens) == (left[0], left[2]) and input_tokens >= left[1]
    budget = Budget(max_calls=left[0] + 1)
    with budget.kept_in(file):
        task_model = BudgetTaskModel(OneByOne(file), budget)
        with pytest.raises(BudgetExceededError, match=rf"max_task_calls is {left[0] + 1}: {left[0]} calls used"):
            task_model.generate(["e", "f"])
        assert task_model.generate(["e"]) == ["E"]
    assert read(file).calls == left[0] + 1


@pytest.mark.parametrize(
    ("ledger", "checkpoint", "counted"),
    [
        (Spent(9, 90, 18, 60.0), Spent(7, 70, 14, 50.0), (9, 90, 18, 60.0)),  # asked after the checkpoint was written
        (Spent(), Spent(7, 70, 14, 50.0), (7, 70, 14, 50.0)),  # a run of an earlier version, or the file was deleted
        (Spent(5, 90, 14, 50.0), Spent(7, 70, 14, 60.0), (7, 90, 14, 60.0)),  # the power went: each is at least this
    ],
)
def test_ledger_and_checkpoint_together_count_everything_once(tmp_path, ledger, checkpoint, counted):
    file = tmp_path / "budget.bin"
    with Ledger(file) as written:
        written.write(ledger.calls, ledger.input_tokens, ledger.output_tokens, ledger.seconds)
    budget = Budget(max_calls=100)
    with budget.kept_in(file):
        budget.count_earlier(checkpoint)
        assert budget.spent == Spent(*counted)
    assert read(file) == Spent(*counted)


def test_without_a_ledger_what_a_checkpoint_tells_is_added():
    budget = Budget(max_calls=100, spent=Spent(calls=1))
    budget.count_earlier(Spent(calls=7))
    assert budget.spent.calls == 8


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 32, b"\0" * 31, b"\0" * 33])
def test_a_file_that_is_no_ledger_is_refused_and_stays(tmp_path, content):
    file = tmp_path / "budget.bin"
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"budget.bin does not tell .* delete it"):
        Ledger(file)
    assert file.read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "budget.bin").mkdir()
    with pytest.raises(RunFolderError, match=r"budget.bin cannot be read"):
        Ledger(tmp_path / "budget.bin")


def test_the_file_never_shows_less_than_was_asked(tmp_path):
    file = tmp_path / "budget.bin"
    budget, model = Budget(max_tokens=10**6), OneByOne(file)
    with budget.kept_in(file):
        BudgetTaskModel(model, budget).generate(list("abcdefgh"))
    assert all(before.calls + 1 == after.calls for before, after in pairwise(model.seen))


def test_a_budget_goes_on_after_its_ledger_was_closed_by_an_error(tmp_path):
    budget = Budget(max_calls=10)
    with pytest.raises(ZeroDivisionError), budget.kept_in(tmp_path / "budget.bin"):
        raise ZeroDivisionError
    BudgetTaskModel(ScriptedTaskModel(str.upper), budget).generate(["a"])  # what was under way may end later
    assert budget.spent.calls == 1 and read(tmp_path / "budget.bin").calls == 0
