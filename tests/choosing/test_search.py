"""A search of whole prompts: exemplars from training rows, the choice on dev rows, no call more than it may."""

from dataclasses import replace

import numpy as np
import pytest

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.halving import calls_of
from prewrite.choosing.search import plan_search, search_prompt
from prewrite.choosing.structures import shortened, structures
from prewrite.errors import ConfigError
from prewrite.scoring.constraints import Constraints, about_tokens
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import LAYOUTS, PARTS, TEXT_LAYOUTS, Exemplar, TaskPrompt
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

LABELS = ("yes", "no")


def rows_of(split, count):
    return [
        RewriteExample("Decide.", f"{split} {n} {LABELS[n % 2]}", LABELS[n % 2], "classification", choices=LABELS)
        for n in range(count)
    ]


def biased_model(*, bias=0.0, exemplars_help=False, word=None):
    """Knows the label that ends the input by half a nat; exemplars, or a word in the instruction, add two nats."""

    def score(prompt, labels):
        head, _, query = prompt.rpartition("Input: ")
        sure = 0.5 + 2.0 * (exemplars_help and "Output:" in head) + 2.0 * (word is not None and word in head)
        noise = np.random.default_rng(list(prompt.encode())).normal(0, 1.0, len(labels))
        gold = query.removesuffix("\nOutput:").rpartition(" ")[2]
        return [sure * (label == gold) + bias * (label == "yes") + e for label, e in zip(labels, noise, strict=True)]

    return CountingTaskModel(ScriptedTaskModel(lambda prompt: "yes", label_scores=score))


def search(model, **settings):
    dev, train = rows_of("dev", 120), rows_of("train", 60)
    arguments = dict(train_rows=train, calls=600) | settings
    return search_prompt(Evaluator(model), TaskPrompt("Decide."), dev, **arguments)


def test_exemplars_that_help_are_found_and_are_training_rows():
    model = biased_model(exemplars_help=True)
    found = search(model)
    assert found.source == "exemplars"
    assert found.prompt.exemplars and all(exemplar.input.startswith("train ") for exemplar in found.prompt.exemplars)
    assert found.dev_scores["prompt"] > found.dev_scores["initial"]
    assert found.calls == model.usage.prompts <= 600


def test_offsets_that_help_are_shipped_as_numbers_of_each_label():
    found = search(biased_model(bias=4.0), parts=["offsets"])
    assert found.prompt.instruction == "Decide." and not found.prompt.exemplars
    offsets = dict(found.prompt.label_offsets)
    assert 2.5 < offsets["yes"] - offsets["no"] < 5.5  # the bias is 4
    assert found.calibrated_initial == found.prompt


def test_a_wording_that_helps_is_found_among_those_given():
    model = biased_model(word="carefully")
    texts = [("Say it.", "sample"), ("Decide carefully.", "greedy"), ("", "sample"), ("Decide.", "sample")]
    wordings = [Candidate(*each) for each in texts]
    found = search(model, wordings=wordings, parts=["instruction"])
    assert (found.prompt.instruction, found.source) == ("Decide carefully.", "greedy")
    assert found.calls == model.usage.prompts <= 600


def test_parts_that_may_not_change_stay():
    found = search(
        biased_model(exemplars_help=True, bias=4.0, word="other"), parts=[], wordings=[Candidate("other", "file")]
    )
    assert found.prompt == found.initial == TaskPrompt("Decide.")


@pytest.mark.parametrize(("every", "chosen"), [(40, False), (12, True)], ids=["3 more rows of 120", "10 more"])
def test_another_wording_has_to_be_better_by_two_standard_errors(every, chosen):
    def score(prompt, labels):
        head, _, query = prompt.rpartition("Input: ")
        number, gold = query.removesuffix("\nOutput:").split(" ")[1:]
        hit = int(number) % 4 or ("mind" in head and int(number) % every == 0)
        return [1.0 if (label == gold) == bool(hit) else 0.0 for label in labels]

    model = CountingTaskModel(ScriptedTaskModel(lambda prompt: "yes", label_scores=score))
    wording = Candidate("Make up your mind.", "sample")
    found = search(model, parts=["instruction"], wordings=[wording], calls=360)
    assert found.rows == 120 and (found.prompt.instruction == wording.rewrite) == chosen


@pytest.mark.parametrize(
    ("right", "margin", "exemplars"),
    [(0.75, 1.0, True), (0.25, 0.6, False), (1.0, 0.05, False), (1.0, 0.4, True)],
    ids=[
        "as often right, and surer",
        "hardly surer, and wrong",
        "right, and hardly sure",
        "right, a little less sure",
    ],
)
def test_accuracy_and_log_probability_together_say_whether_a_prompt_leads(right, margin, exemplars):
    def score(prompt, labels):
        head, _, query = prompt.rpartition("Input: ")
        number, gold = query.removesuffix("\nOutput:").split(" ")[1:]
        shown = "Output:" in head
        hit = int(number) % 20 < 20 * (right if shown else 0.75)
        nats = (margin if shown else 0.5) * (1 if hit else -0.1)
        return [nats if label == gold else 0.0 for label in labels]

    model = CountingTaskModel(ScriptedTaskModel(lambda prompt: "yes", label_scores=score))
    assert bool(search(model, parts=["exemplars"], wordings=[]).prompt.exemplars) == exemplars


def test_the_initial_prompt_is_kept_where_nothing_is_better():
    model = CountingTaskModel(ScriptedTaskModel(lambda prompt: "yes"))
    found = search(model, wordings=[Candidate("Longer words that change nothing.", "sample")])
    assert (found.prompt, found.source) == (TaskPrompt("Decide."), "initial")


def test_where_labels_are_not_scored_the_metric_decides_and_no_offsets_are_shipped():
    dev, train = rows_of("dev", 60), rows_of("train", 40)
    model = ScriptedTaskModel(lambda prompt: prompt.split()[-2] if "one of" in prompt else "hm")
    found = search_prompt(
        Evaluator(model, decoding="generate"), TaskPrompt("Decide."), dev, train_rows=train, calls=400
    )
    assert found.prompt.answer_line.startswith("Answer with one of: yes, no")
    assert found.prompt.label_offsets is None and found.dev_scores == {"initial": 0.0, "prompt": 1.0}


@pytest.mark.parametrize("calls", [16, 60, 200, 1000, 2700])
@pytest.mark.parametrize("wordings", [0, 1, 10])
@pytest.mark.parametrize("parts", [PARTS, ["instruction"], ["exemplars", "offsets"], ["offsets"]])
def test_the_plan_stays_within_the_calls(calls, wordings, parts):
    first, second = plan_search(calls, 150, wordings=wordings, parts=parts)
    assert 0 < calls_of(first) + calls_of(second) <= calls


def test_calls_go_where_prompts_may_change():
    assert plan_search(1000, 150, wordings=0, parts=["offsets"]) == ([(1, 150)], [])
    first, second = plan_search(1000, 150, wordings=5, parts=["instruction"])
    assert first == [] and second[-1].rows == 150  # all rows
    first, second = plan_search(1000, 150, wordings=5)
    assert calls_of(first) > 3 * calls_of(second) > 0


def test_structures_meet_every_layout_and_answer_line():
    dev, train = rows_of("dev", 10), rows_of("train", 60)
    found = structures(TaskPrompt("Decide."), dev[0], train, 60, parts=["exemplars", "answer_line"], seed=0)
    assert len(found) == 60 and len({candidate.prompt for candidate in found}) == 60
    assert [candidate.source for candidate in found[:3]] == ["answer line", "answer line", "exemplars"]
    ways = {(c.prompt.layout, c.prompt.answer_line) for c in found[2:]}
    assert len(ways) == 2 * 3
    assert {len(candidate.prompt.exemplars) for candidate in found[2:]} == {2, 4, 8}


@pytest.mark.parametrize(("chats", "layouts"), [(True, {*LAYOUTS}), (False, {*TEXT_LAYOUTS})])
def test_exemplars_are_tried_in_turns_where_the_task_model_chats(chats, layouts):
    class Chatting(ScriptedTaskModel):
        capabilities = frozenset({"generate", "turns"} if chats else {"generate"})

        def generate(self, prompts):
            return ["yes" for _ in prompts]

    evaluator = Evaluator(Chatting(lambda prompt: "yes"), decoding="generate")
    arguments = dict(train_rows=rows_of("train", 60), calls=600, parts=["exemplars"])
    found = search_prompt(evaluator, TaskPrompt("Decide."), rows_of("dev", 120), **arguments)
    assert {event["prompt"]["layout"] for event in found.events} == layouts


def test_what_cannot_be_searched_is_an_error():
    with pytest.raises(ConfigError, match="part 'exemplar' is unknown"):
        search(biased_model(), parts=["exemplar"])
    with pytest.raises(ConfigError, match="no dev rows"):
        search_prompt(Evaluator(biased_model()), TaskPrompt("Decide."), [])


def test_no_prompt_that_breaks_a_rule_of_the_user_is_tried():
    rules = Constraints(keep=("Decide",), forbid=("nothing else", "train 3 no", "please"))
    texts = ["Decide, please.", "Judge.", "Decide now."]
    found = search(biased_model(), wordings=[Candidate(text, "file") for text in texts], constraints=rules, calls=1200)
    prompts = [TaskPrompt.from_json(event["prompt"]) for event in found.events]
    assert all(map(rules.allows, prompts)) and len(prompts) > 40
    assert {prompt.instruction for prompt in prompts} == {"Decide.", "Decide now."}
    assert {prompt.answer_line for prompt in prompts} == {"", "Answer with one of: yes, no."}


def longer_rows(split, count):
    return [replace(row, input=f"{'word ' * (n % 40)}{row.input}") for n, row in enumerate(rows_of(split, count))]


@pytest.mark.parametrize("cap", [400, 60, 40, 24, 20])
def test_no_prompt_is_longer_than_it_may_be_and_exemplars_are_drawn_that_fit(cap):
    evaluator = Evaluator(biased_model(exemplars_help=True))
    rules = Constraints(max_prompt_tokens=cap, tokens_of=evaluator.prompt_tokens)
    found = search_prompt(
        evaluator,
        TaskPrompt("Decide."),
        rows_of("dev", 120),
        train_rows=longer_rows("train", 80),
        wordings=[Candidate("Decide which it is, and say so.", "file"), Candidate("Decide. " * 200, "file")],
        constraints=rules,
        calls=1200,
    )
    prompts = [TaskPrompt.from_json(event["prompt"]) for event in found.events]
    sizes = {len(prompt.exemplars) for prompt in prompts}
    assert all(evaluator.prompt_tokens(prompt) <= cap for prompt in [*prompts, found.prompt])
    assert sizes == {400: {0, 2, 4, 8}, 60: {0, 2}, 40: {0, 2}, 24: {0, 1}, 20: {0, 1}}[cap]
    assert len(prompts) >= 20
    assert any(prompt.instruction == "Decide which it is, and say so." for prompt in prompts)


def test_a_longer_wording_gives_up_exemplars_and_then_the_answer_line():
    prompt = TaskPrompt("Decide.", answer_line="Say yes or no.", exemplars=(Exemplar("a", "yes"), Exemplar("b", "no")))
    lengths = [about_tokens(replace(prompt, exemplars=prompt.exemplars[:count])) for count in (2, 1, 0)]
    for kept, length in zip((2, 1, 0), lengths, strict=True):
        assert shortened(prompt, Constraints(max_prompt_tokens=length)).exemplars == prompt.exemplars[:kept]
    assert shortened(prompt, Constraints(max_prompt_tokens=lengths[-1] - 1)) == TaskPrompt("Decide.")


def test_of_prompts_that_are_worth_the_same_the_shorter_one_goes_on():
    dev, train = rows_of("dev", 60), rows_of("train", 40)
    model = ScriptedTaskModel(lambda prompt: "yes" if "one of" in prompt else "hm")
    found = search_prompt(
        Evaluator(model, decoding="generate"), TaskPrompt("Decide."), dev, train_rows=train, calls=400
    )
    assert found.prompt == TaskPrompt("Decide.", answer_line="Answer with one of: yes, no.")
