"""Where a rewrite meets the task: one call, no duplicates, the way of reading answers named and checked."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from prewrite.errors import CapabilityError, ConfigError, TaskModelError
from prewrite.scoring.evaluator import Evaluator, margin
from prewrite.scoring.fidelity import Fidelity
from prewrite.scoring.prompt import Exemplar, TaskPrompt
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.hf import HFTaskModel
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

CHOICES = ("ham", "spam")


def row(text, output, task="classification", choices=CHOICES):
    return RewriteExample("Is it spam?", text, output, task=task, choices=choices)


ROWS = [row("buy now", "spam"), row("see you at six", "ham")]


class Recording(ScriptedTaskModel):
    """Remembers the batches it was asked."""

    def __init__(self, answer, **options):
        super().__init__(answer, **options)
        self.batches = []

    def label_logprobs(self, prompts, labels):
        self.batches.append(list(prompts))
        return super().label_logprobs(prompts, labels)


def spam_if_buy(prompt):
    return "spam" if "buy" in prompt else "ham"


def test_all_prompts_of_a_call_go_in_one_batch_without_duplicates():
    model = Recording(spam_if_buy)
    scores = Evaluator(model).score(["Spam or ham?", "Junk?", "Spam or ham?"], [*ROWS, ROWS[0]])
    assert scores.tolist() == [[1.0, 1.0, 1.0]] * 3
    assert len(model.batches) == 1
    assert model.batches[0] == [
        "Spam or ham?\n\nInput: buy now\nOutput:",
        "Spam or ham?\n\nInput: see you at six\nOutput:",
        "Junk?\n\nInput: buy now\nOutput:",
        "Junk?\n\nInput: see you at six\nOutput:",
    ]


def test_an_empty_rewrite_scores_0_and_is_never_asked():
    model = Recording(spam_if_buy)
    scores = Evaluator(model).score(["", "  ", "Spam?"], ROWS)
    assert scores.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert all(prompt.startswith("Spam?") for batch in model.batches for prompt in batch)


def test_a_row_with_choices_is_read_and_graded_as_a_label_without_naming_its_task():
    example = RewriteExample("Name the language.", "int x;", "c", choices=("c", "c++"))
    model = ScriptedTaskModel(str, label_scores=lambda prompt, labels: [-2.0, -1.0])
    evaluator = Evaluator(model)
    assert (evaluator.decoding_of(example), evaluator.metric_of(example)) == ("likelihood", "label_match")
    assert evaluator.score(["Say it."], [example]).tolist() == [[0.0]]  # "c++" is not "c"
    with pytest.raises(ValueError, match="task is 'qa' for a row with choices"):
        replace(example, task="qa")


def test_a_brace_or_a_slot_name_in_rewrite_and_input_is_text():
    evaluator = Evaluator(ScriptedTaskModel(spam_if_buy))
    prompt = evaluator.prompt('Answer as {"label": x}, not {input}', row("{instruction} {0}", "ham"))
    assert prompt == 'Answer as {"label": x}, not {input}\n\nInput: {instruction} {0}\nOutput:'


def test_a_template_may_be_given_by_its_name():
    evaluator = Evaluator(ScriptedTaskModel(str.upper), template="sst2")
    assert evaluator.prompt("Judge.", RewriteExample("a", "fine film", "good")) == "Judge.\nText: fine film"


@pytest.mark.parametrize("slot", ["inptu", "Input", "instructions"])
def test_a_misspelled_slot_is_refused_and_other_words_in_braces_are_text(slot):
    with pytest.raises(ConfigError, match="did you mean"):
        Evaluator(ScriptedTaskModel(str.upper), template=f"{{instruction}} {{input}} {{{slot}}}")
    evaluator = Evaluator(ScriptedTaskModel(str.upper), template='{instruction} {input} {"label": x} {label}')
    assert evaluator.prompt("a", RewriteExample("a", "b", "c")) == 'a b {"label": x} {label}'


def test_likelihood_takes_the_best_label_and_the_earlier_one_on_a_tie():
    scores = {"a": [-1.0, -2.0], "b": [-2.0, -1.0], "c": [-1.0, -1.0]}
    model = ScriptedTaskModel(str, label_scores=lambda prompt, labels: scores[prompt.split("Input: ")[1][0]])
    answers = Evaluator(model).answers(["x"], [row(name, "ham") for name in "abc"])[0]
    assert [answer.prediction for answer in answers] == ["ham", "spam", "ham"]
    assert [answer.label_logprobs for answer in answers] == [(-1, -2), (-2, -1), (-1, -1)]


def test_margins_are_gold_minus_best_wrong():
    model = ScriptedTaskModel(str, label_scores=lambda prompt, labels: [-1.0, -3.0])
    asked, empty = Evaluator(model).answers(["x", ""], ROWS)
    assert [margin(answer, row) for answer, row in zip(asked, ROWS, strict=True)] == [-2.0, 2.0]
    assert [margin(answer, row) for answer, row in zip(empty, ROWS, strict=True)] == [-10.0, -10.0]


def test_decoding_is_chosen_by_capability_and_by_the_kind_of_task():
    model = ScriptedTaskModel(spam_if_buy)
    assert Evaluator(model).decoding_of(ROWS[0]) == "likelihood"
    assert Evaluator(model).decoding_of(row("2+2?", "4", task="math", choices=None)) == "generate"
    model.capabilities = frozenset({"generate", "constrained"})
    assert Evaluator(model).decoding_of(ROWS[0]) == "constrained"
    with pytest.raises(CapabilityError, match="label_logprobs"):
        Evaluator(model, decoding="likelihood").score(["x"], ROWS)


def test_free_text_is_parsed_before_it_is_graded():
    model = ScriptedTaskModel(lambda prompt: "I would say: Spam, of course.")
    answer = Evaluator(model, decoding="generate").answers(["x"], ROWS[:1])[0][0]
    assert answer.output == "I would say: Spam, of course."
    assert answer.prediction == "spam" and answer.score == 1.0


def test_metric_follows_the_task_and_unknown_names_are_refused():
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: "The answer is 1,080 dollars."))
    assert evaluator.score(["x"], [row("q", "1080.0", task="math", choices=None)]).item() == 1.0
    with pytest.raises(ConfigError, match="decoding 'beam'"):
        Evaluator(ScriptedTaskModel(str), decoding="beam")
    with pytest.raises(ConfigError, match="metric"):
        Evaluator(ScriptedTaskModel(str), metric="accuracy_score")


def test_target_logprobs_need_the_capability():
    model = ScriptedTaskModel(spam_if_buy)
    assert Evaluator(model).score(["x"], ROWS).shape == (1, 2)
    with pytest.raises(CapabilityError, match="perplexity"):
        Evaluator(model).target_logprobs(["x"], ROWS)


def test_mixed_label_sets_keep_the_order_of_examples():
    other = RewriteExample("Which?", "buy", "b", task="classification", choices=("a", "b"))
    model = ScriptedTaskModel(str, label_scores=lambda prompt, labels: [-2.0, -1.0])
    assert np.array_equal(Evaluator(model).score(["x"], [ROWS[0], other, ROWS[1]]), [[1, 1, 0]])


def test_the_tokens_of_a_prompt_are_those_of_the_task_model_or_an_estimate(toy):
    prompt = TaskPrompt("solve the task", exemplars=(Exemplar("step 1", "step"),))
    model = CountingTaskModel(HFTaskModel(str(toy / "model")))
    counted, estimated = Evaluator(model), Evaluator(ScriptedTaskModel(lambda prompt: "now"))
    assert counted.counts_tokens and not estimated.counts_tokens
    assert counted.prompt_tokens(prompt) == model.inner.prompt_tokens([prompt.render("")])[0]
    assert counted.prompt_tokens("solve the task") < counted.prompt_tokens(prompt)
    assert estimated.prompt_tokens(prompt) == -(-len(prompt.render("")) // 4)


class Faulty(ScriptedTaskModel):
    """Answers as told, whatever it is asked."""

    def __init__(self, told):
        super().__init__(str.upper, name="faulty")
        self.told = told

    def generate(self, prompts):
        return self.told

    def label_logprobs(self, prompts, labels):
        return np.array(self.told, dtype=np.float64)

    def target_logprobs(self, prompts, targets):
        return self.told


LABELLED = [RewriteExample("I", f"row {n}", "a", choices=("a", "b")) for n in range(2)]
OPEN = [RewriteExample("I", f"row {n}", "a") for n in range(2)]


@pytest.mark.parametrize(
    ("rows", "told", "words"),
    [
        (OPEN, ["a"], "faulty gave 1 answers to 2 prompts; it must answer each once"),
        (OPEN, ["a", "b", "c"], "faulty gave 3 answers to 2 prompts"),
        (OPEN, [], "faulty gave 0 answers to 2 prompts"),
        (OPEN, ["a", None], "expected text from the task model, got None"),
        (LABELLED, [[-1.0, -2.0]], "faulty gave 1 answers to 2 prompts"),
        (
            LABELLED,
            [[-1.0, -2.0], [math.nan, -2.0]],
            r"gave '\(nan, -2.0\)' to label_logprobs.*'row 1'.*finite",
        ),
        (LABELLED, [[-1.0], [-2.0]], r"faulty gave '\(-1.0,\)' to label_logprobs, which is no answer"),
        (LABELLED, [[-1.0, -math.inf], [-1.0, -2.0]], "faulty gave .* to label_logprobs, which is no answer"),
    ],
)
def test_answers_that_are_none_are_the_task_models_fault_and_never_a_score(rows, told, words):
    with pytest.raises(TaskModelError, match=words):
        Evaluator(Faulty(told)).score(["Rewrite."], rows)


def test_a_judge_that_computes_no_numbers_is_told():
    with pytest.raises(TaskModelError, match=r"judge of fidelity gave 'Sort\.' a log-probability that is not finite"):
        Fidelity(Faulty([0.0, math.nan, 0.0]))(["Sort them."], "Sort.")


@pytest.mark.parametrize(
    "text", ["a ", "Answer: ", "{", "[", "not a, ", "7 = ", "\\boxed{", "<answer>", '"a" ', "1. a\n"]
)
@pytest.mark.parametrize("row", [LABELLED[0], OPEN[0], RewriteExample("I", "x", "7", task="math")])
def test_an_answer_of_100_kb_is_graded_in_seconds(text, row):
    answer = text * (100_000 // len(text))
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: answer), decoding="generate")
    started = time.process_time()
    (found,) = evaluator.score(["Rewrite."], [row])
    assert 0 <= found[0] <= 1 and time.process_time() - started < 20
