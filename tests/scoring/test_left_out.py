"""A row that the task model gives no answer to: named, or left out of every comparison for all prompts alike."""

import json
import re

import numpy as np
import pytest

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.race import corrected_estimate, select
from prewrite.choosing.search import search_prompt
from prewrite.cli.main import main
from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError, NoAnswerError
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.cache import AnswerCache
from prewrite.task_models.registry import wrap_task_model
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import NoAnswer, Reply, StreamedTaskModel, no_answer
from prewrite.train.dev_stopping import DevStopping
from prewrite.types import RewriteExample
from servers.http_server import HTTPServer, as_json
from servers.openai_server import OpenAIApp

FILTERED = NoAnswer("the server's content filter stopped it")


class Filtering(StreamedTaskModel):
    """Knows the sum of "1 + N", when told to be careful; else it is off by one for odd numbers. Says nothing where the
    prompt holds all of `refuses`."""

    name = identity = "filtering"
    capabilities = frozenset({"generate", "target_logprobs"})

    def __init__(self, refuses):
        self.refuses, self.asked = refuses, []

    def stream(self, batch):
        for row, prompt in enumerate(batch.prompts):
            self.asked.append(prompt)
            number = int(re.search(r"1 \+ (\d+)", prompt)[1])
            if all(word in prompt for word in self.refuses):
                yield row, Reply(FILTERED, 0, 0)
            elif batch.method == "target_logprobs":
                yield row, Reply(-1.0 if "careful" in prompt else -2.0)
            else:
                yield row, Reply(str(number + 1 + (number % 2 and "careful" not in prompt)))


def rows(count):
    return [
        RewriteExample("Add.", f"1 + {n}", str(n + 1), "math", place=f"sums.jsonl, row {n + 1}") for n in range(count)
    ]


def evaluator(refuses=("Be careful", "1 + 3\n"), skip=1, **options):
    return Evaluator(Filtering(refuses), skip_refused_rows=skip, **options)


def test_a_row_without_an_answer_stops_the_run_and_is_named():
    with pytest.raises(
        NoAnswerError,
        match=r"filtering gave no answer to the row that begins '1 \+ 3' \(sums.jsonl, row 4\): the server's content "
        r"filter stopped it\. --skip-refused-rows N leaves up to N rows out, for every instruction alike",
    ):
        evaluator(skip=0).score(["Be careful and add."], rows(6))


def test_one_more_row_than_is_allowed_stops_the_run():
    with pytest.raises(NoAnswerError, match=r"2 such rows are left out already"):
        evaluator(("careful",), skip=2).score(["Be careful and add."], rows(6))


def test_rows_that_may_be_left_out_are_a_number():
    with pytest.raises(ConfigError, match="skip_refused_rows is -1; it must be at least 0"):
        evaluator(skip=-1)


def test_a_row_is_left_out_for_every_prompt_alike_from_then_on():
    scorer = evaluator()
    first = scorer.score(["Add.", "Be careful and add."], rows(6))
    assert np.array_equal(first, [[1, 0, 1, np.nan, 1, 0], [1, 1, 1, np.nan, 1, 1]], equal_nan=True)
    asked = len(scorer.task_model.asked)
    later = scorer.score(["Add up."], rows(6))
    assert np.isnan(later[0, 3]) and len(scorer.task_model.asked) == asked + 5
    assert scorer.left_out.to_json() == [
        {"input": "1 + 3", "at": "sums.jsonl, row 4", "reason": "the server's content filter stopped it"}
    ]


def test_what_is_left_out_is_written_down_and_read_back():
    scorer, after_resume = evaluator(), evaluator()
    scorer.score(["Be careful and add."], rows(6))
    after_resume.left_out.restore(json.loads(json.dumps(scorer.left_out.state())))
    assert after_resume.left_out.reasons == scorer.left_out.reasons
    assert np.isnan(after_resume.score(["Add."], rows(6))[0, 3])


def test_a_model_in_this_process_that_cannot_take_a_prompt_is_asked_for_the_others():
    class Short(ScriptedTaskModel):
        def generate(self, prompts):
            for row, prompt in enumerate(prompts):
                if "1 + 3\n" in prompt:
                    raise no_answer("short", prompts, row, "its 9,000 tokens are more than the 8,192 that it reads")
            return super().generate(prompts)

    scorer = Evaluator(Short(lambda prompt: "1"), decoding="generate", skip_refused_rows=1)
    assert np.array_equal(scorer.score(["Add."], rows(5)), [[1, 0, 0, np.nan, 0]], equal_nan=True)
    assert list(scorer.left_out.reasons.values()) == ["its 9,000 tokens are more than the 8,192 that it reads"]


def test_a_model_in_this_process_that_thinks_aloud_is_read_without_its_thoughts():
    said = {"a": "<think>1? No.</think>2", "b": "plain", "c": "<think>1? No, wait"}
    model = wrap_task_model(ScriptedTaskModel(said.__getitem__))
    assert model.generate(["a", "b"]) == ["2", "plain"]
    with pytest.raises(NoAnswerError, match="prompt 2 of 2, 'c': ran out of tokens while thinking"):
        model.generate(["a", "c"])


def test_given_texts_too_are_scored_without_the_row():
    found = evaluator().target_logprobs(["Add.", "Be careful and add."], rows(5))
    assert np.array_equal(found, [[-2, -2, -2, np.nan, -2], [-1, -1, -1, np.nan, -1]], equal_nan=True)


def test_the_cache_keeps_no_answer_for_such_a_row(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    model = wrap_task_model(Filtering(("1 + 3\n",)), cache=cache)
    Evaluator(model, skip_refused_rows=1).score(["Add."], rows(6))
    assert cache.info().entries == 5 and model.usage.no_answers == 1
    cache.close()


def test_an_evaluation_is_on_the_rows_that_all_instructions_got_answers_to():
    found = evaluate(evaluator(), {"initial": "Add.", "careful": "Be careful and add."}, rows(6))
    assert found.n == 5 and len(found.items()) == 5
    # without 1 + 3 the plain instruction is right on 0, 2 and 4 of 0, 1, 2, 4 and 5
    assert (found.results["initial"].mean, found.results["careful"].mean) == (3 / 5, 1.0)
    assert found.to_json()["left_out"] == [
        {"input": "1 + 3", "place": "sums.jsonl, row 4", "reason": "the server's content filter stopped it"}
    ]
    assert "on 5 test rows (1 left out: no answer)" in found.verdict("careful")


def test_an_evaluation_without_any_answer_is_an_error():
    with pytest.raises(NoAnswerError, match="none of the 2 test rows got an answer"):
        evaluate(evaluator(("Add",), skip=9), {"initial": "Add."}, rows(2))


def test_a_race_goes_on_without_the_row():
    candidates = [Candidate("Add.", "initial"), Candidate("Be careful and add.", "sample")]
    found = select(candidates, evaluator().score, rows(40), complete=True, seed=0)
    assert found.rewrite == "Be careful and add."
    assert 3 not in found.raced and np.isnan(found.scores[:, 3]).all()
    assert found.mean(1) == 1.0
    estimate = corrected_estimate(found)
    assert estimate.n == 39 and estimate.score > 0.99


def test_a_race_without_any_answer_is_an_error():
    with pytest.raises(NoAnswerError, match="nothing to choose on"):
        select([Candidate("Add.", "initial")], evaluator(("Add",), skip=99).score, rows(20))


def test_a_search_of_whole_prompts_goes_on_without_the_row():
    scorer = evaluator()
    texts = [Candidate("Be careful and add.", "sample"), Candidate("Add up.", "sample")]
    found = search_prompt(scorer, TaskPrompt("Add."), rows(40), wordings=texts, parts=["instruction"], calls=400)
    assert found.prompt.instruction == "Be careful and add." and found.dev_scores["prompt"] == 1.0
    assert len(scorer.left_out.reasons) == 1 and found.rows < 40


def test_a_search_without_any_answer_is_an_error():
    with pytest.raises(NoAnswerError, match="nothing to choose on"):
        search_prompt(evaluator(("Add",), skip=99), TaskPrompt("Add."), rows(20), parts=["exemplars"], calls=100)


@pytest.mark.parametrize("mode", ["auto", "exact_match", "perplexity", "soft"])
def test_a_reward_is_the_mean_over_the_rows_that_got_answers(mode):
    reward = TaskReward(evaluator(), mode=mode, guards=())
    plain, careful = reward(["Add.", "Be careful and add."], "Add.", rows(6))
    # three of five right against five of five; -2 against -1 nats; no gain and a gain of one nat
    expected = {"auto": (3 / 5, 1), "exact_match": (3 / 5, 1), "perplexity": (-2, -1), "soft": (0.5, 1)}[mode]
    assert (plain.reward.total, careful.reward.total) == pytest.approx(expected)
    assert all(len(graded.scores) in (0, 5) for graded in (plain, careful))


def test_dev_stopping_compares_with_the_best_on_the_same_rows():
    # With all six rows "Add." scores 3/6. The next rewrite gets no answer to 1 + 3 and scores 4/5 in place of 4/6;
    # the best so far then counts as 3/5.
    dataset = PRewriteDataset.from_examples(rows(6))
    scorer = evaluator()
    dev = DevStopping(dataset, TaskReward(scorer, guards=()), every=1, patience=0, limit=6, seed=0)
    first = dev.evaluate(1, lambda instruction: "Add.")
    assert first.score == pytest.approx(3 / 6)
    second = dev.evaluate(2, lambda instruction: "Be careful and add.")
    assert (second.score, second.is_best, second.rows[0]["n"]) == (pytest.approx(1.0), True, 5)
    third = dev.evaluate(3, lambda instruction: "Add.")
    assert (third.score, third.is_best) == (pytest.approx(3 / 5), False)


def test_eval_on_the_command_line_names_the_row_and_leaves_it_out_when_told_to(tmp_path, capsys, monkeypatch):
    class Moderated(OpenAIApp):
        async def __call__(self, request):
            if b"1 + 3" in request.body:
                return as_json({"error": {"message": "flagged", "code": "content_filter"}}, 400)
            return await super().__call__(request)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for first, name in ((0, "train"), (10, "dev"), (20, "test")):
        sums = [{"input": f"1 + {n}", "output": str(n + 1), "task": "math"} for n in range(first, first + 6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    with HTTPServer(Moderated(can=frozenset({"chat"}))) as server:
        flags = ["eval", "--data", str(tmp_path), "--instruction", "Add.", "--split", "train", "--json"]
        flags += ["--task-model", f"openai:toy@{server.url}/v1"]
        assert main(flags) == 2
        error = capsys.readouterr().err
        assert (
            "the row that begins '1 + 3'" in error
            and "train.jsonl, row 4): the server refused it: HTTP 400: flagged" in error
        )
        assert main([*flags, "--skip-refused-rows", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 5
