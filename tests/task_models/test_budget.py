"""Budgets are never exceeded, not by one call; counts are right."""

import threading

import pytest

from prewrite.errors import BudgetExceededError, ConfigError
from prewrite.task_models.budget import Budget, BudgetTaskModel, Price, estimate
from prewrite.task_models.cache import AnswerCache
from prewrite.task_models.counting import CountingTaskModel, Usage
from prewrite.task_models.ledger import Spent
from prewrite.task_models.registry import wrap_task_model
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import Reply, StreamedTaskModel


class Metered(StreamedTaskModel):
    """Takes 10 input and 2 output tokens a prompt, holds 50 and 5, and fails `fail_first` times before each answer."""

    name = identity = "metered"
    capabilities = frozenset({"generate"})

    def __init__(self, fail_first=0, billed=False):
        self.fail_first, self.billed, self.sent = fail_first, billed, 0

    def stream(self, batch):
        for row, prompt in enumerate(batch.prompts):
            for attempt in range(self.fail_first + 1):
                batch.sending(row, 50, 5)
                self.sent += 1
                if attempt < self.fail_first:
                    batch.failed(row, self.billed)
            yield row, Reply(prompt.upper(), 10, 2)


def test_a_batch_that_does_not_fit_is_refused_whole_and_nothing_is_sent():
    model = Metered()
    task_model = BudgetTaskModel(model, Budget(max_calls=10))
    task_model.generate(list("abcdefg"))
    with pytest.raises(
        BudgetExceededError, match=r"max_task_calls is 10: 7 calls used or under way, the next needs 4"
    ):
        task_model.generate(list("hijk"))
    assert model.sent == 7
    assert task_model.generate(list("xyz")) == ["X", "Y", "Z"]
    assert model.sent == 10


def test_retries_count_as_calls():
    model = Metered(fail_first=1)
    task_model = BudgetTaskModel(model, Budget(max_calls=5))
    with pytest.raises(BudgetExceededError):
        task_model.generate(list("abc"))  # needs 6
    assert model.sent == 5 and task_model.budget.spent.calls == 5


def test_tokens_are_held_at_their_most_and_settled_at_what_they_were():
    task_model = BudgetTaskModel(Metered(), Budget(max_tokens=91))
    assert task_model.generate(list("abc"))  # 3 x 12 = 36 used; the fourth may take up to 55, 36 + 55 = 91
    assert task_model.generate(["d"])
    with pytest.raises(BudgetExceededError, match="max_task_tokens is 91: 48 tokens"):
        task_model.generate(["e"])
    assert task_model.budget.spent == Spent(4, 40, 8, task_model.budget.spent.seconds)


@pytest.mark.parametrize(("billed", "tokens"), [(True, 55 + 12), (False, 12)])
def test_a_failed_attempt_costs_tokens_only_if_it_may_have_been_billed(billed, tokens):
    task_model = BudgetTaskModel(Metered(fail_first=1, billed=billed), Budget(max_tokens=1000))
    task_model.generate(["a"])
    spent = task_model.budget.spent
    assert (spent.calls, spent.input_tokens + spent.output_tokens) == (2, tokens)


def test_dollars_follow_the_price_table(tmp_path):
    table = tmp_path / "prices.yaml"
    table.write_text("small: {input: 100000, output: 1000000}\n")  # 10 tokens in are $1, 2 out are $2
    budget = Budget(max_usd=13, price=Price.load(table, "small"))
    task_model = BudgetTaskModel(Metered(), budget)
    task_model.generate(["a"])  # holds 50 x 0.1 + 5 x 1 = $10, takes $3
    assert budget.usd == pytest.approx(3)
    task_model.generate(["b"])  # 3 + 10 = 13 fits
    with pytest.raises(BudgetExceededError, match=r"max_usd is 13: \$6\.0000"):
        task_model.generate(["c"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {input: 1, output: 2}", "has no model 'small' .it has: other."),
        ("small: {input: 1}", "needs `input` and `output`"),
        ("small: {input: -1, output: 2}", "0 or more"),
        ("small: [", "cannot be read"),
    ],
)
def test_a_price_table_that_does_not_tell_is_an_error(tmp_path, text, message):
    table = tmp_path / "prices.yaml"
    table.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Price.load(table, "small")


def test_max_usd_without_a_price_is_an_error():
    with pytest.raises(ConfigError, match="there is no price"):
        Budget(max_usd=1)


def test_time_runs_out_between_attempts():
    now = [0.0]
    task_model = BudgetTaskModel(Metered(), Budget(max_minutes=1, clock=lambda: now[0]))
    task_model.generate(["a"])
    now[0] = 61
    with pytest.raises(BudgetExceededError, match=r"max_minutes is 1: 1\.0 minutes"):
        task_model.generate(["b"])


def test_what_was_spent_before_a_resume_counts():
    task_model = BudgetTaskModel(Metered(), Budget(max_calls=10, spent=Spent(**Spent(calls=9).as_dict())))
    task_model.generate(["a"])
    with pytest.raises(BudgetExceededError):
        task_model.generate(["b"])


def test_threads_together_do_not_exceed_the_budget():
    model = Metered()
    task_model = BudgetTaskModel(model, Budget(max_calls=100))
    refused = []

    def ask():
        for _ in range(30):
            try:
                task_model.generate(["a"])
            except BudgetExceededError:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert task_model.budget.spent.calls == 100 and len(refused) == 50


def test_an_abandoned_batch_gives_back_the_calls_it_did_not_make():
    task_model = BudgetTaskModel(Metered(), Budget(max_calls=10))
    from prewrite.task_models.stream import Batch

    replies = task_model.stream(Batch("generate", tuple("abcdefgh")))
    next(replies)
    replies.close()
    assert task_model.generate(list("abcdefghi"))[-1] == "I"


def test_cached_answers_cost_nothing(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    counted = wrap_task_model(Metered(), cache=cache, budget=Budget(max_calls=2))
    assert counted.generate(["a", "b"]) == counted.generate(["b", "a"])[::-1]
    with pytest.raises(BudgetExceededError):
        counted.generate(["a", "c"])
    cache.close()


def test_usage_counts_calls_retries_and_tokens_and_reads_back():
    counted = CountingTaskModel(Metered(fail_first=2))
    counted.generate(list("ab"))
    usage = counted.usage
    assert (usage.prompts, usage.calls, usage.retries) == (2, 6, 4)
    assert (usage.input_tokens, usage.output_tokens, usage.uncounted) == (20, 4, 0)
    again = Usage(**usage.as_dict())
    assert again == usage


def test_a_backend_that_tells_no_tokens_is_counted_as_such():
    counted = CountingTaskModel(ScriptedTaskModel(str.upper))
    counted.generate(["a", "b"])
    assert counted.usage.uncounted == 2 and counted.usage.calls == 2


def test_the_estimate_names_calls_tokens_and_dollars():
    line = estimate(["x" * 400], 1000, output_tokens=10, price=Price(1.0, 2.0))
    assert line == (  # 100 tokens x 1,000 at $1 per million, 10 x 1,000 at $2
        "at most 1,000 task-model calls, about 100,000 input and up to 10,000 output tokens, about $0.12"
    )
