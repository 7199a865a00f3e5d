"""Rules of the user: what every wording must hold, and what no prompt may hold."""

import pytest

from prewrite.errors import ConfigError
from prewrite.scoring.constraints import Constraints
from prewrite.scoring.prompt import Exemplar, TaskPrompt
from prewrite.types import RewriteExample


@pytest.mark.parametrize(
    ("keep", "wording", "violation"),
    [
        (("{name}",), "Greet {name}.", None),
        (("{name}",), "Greet {Name}.", 1.0),
        (("JSON",), "Reply in json.", 1.0),
        (("one word",), "Answer with one  word.", 1.0),  # to the letter
        (("JSON", "{name}"), "Greet {name}.", 0.75),
        (("JSON",), "", 1.0),
    ],
)
def test_what_is_kept_stands_in_the_wording_to_the_letter(keep, wording, violation):
    assert Constraints(keep=keep).violations(TaskPrompt(wording)).get("keep") == violation


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        ("AI", "Use ai here.", True),
        ("AI", "It is said.", False),
        ("step by step", "Think STEP by\nstep.", True),
        ("!", "Now!", True),
        ("**", "**Sort** it", True),
        ("negativ", "Say negative.", False),
        ("情感", "判断情感。", True),
        ("c++", "Write C++.", True),
    ],
)
def test_what_is_forbidden_is_found_as_whole_words_in_any_case(phrase, text, found):
    rules = Constraints(forbid=(phrase,))
    assert rules.allows(TaskPrompt(text)) != found
    assert rules.forbidden_in(text) == (phrase if found else None)


@pytest.mark.parametrize(
    "prompt",
    [
        TaskPrompt("Mention Acme."),
        TaskPrompt("Sort.", answer_line="Answer with acme."),
        TaskPrompt("Sort.", exemplars=(Exemplar("an ACME box", "a"),)),
        TaskPrompt("Sort.", exemplars=(Exemplar("a box", "Acme"),)),
    ],
)
def test_what_is_forbidden_may_stand_nowhere_in_the_prompt(prompt):
    assert Constraints(forbid=("Acme", "other")).violations(prompt) == {"forbid": 0.75}
    assert Constraints().violations(prompt) == {}


def test_a_row_that_holds_what_is_forbidden_is_no_exemplar():
    rules = Constraints(forbid=("Acme",))
    rows = [RewriteExample("Sort.", text, answer, "qa") for text, answer in (("b", "c"), ("Acme", "c"), ("b", "acme"))]
    assert [rules.allows_row(row) for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"keep": ("",)}, "keep holds an empty text"),
        ({"forbid": (" ",)}, "forbid holds an empty text"),
        ({"keep": ("Use AI",), "forbid": ("ai",)}, "keep 'Use AI' holds 'ai', which forbid rules out"),
    ],
)
def test_rules_that_cannot_hold_are_refused(rules, words):
    with pytest.raises(ConfigError, match=words):
        Constraints(**rules)


def test_the_initial_instruction_and_the_labels_must_keep_to_the_rules():
    rules = Constraints(keep=("JSON",), forbid=("maybe",))
    rules.check_initial("Reply in JSON.")
    rules.check_labels(("yes", "no"))
    with pytest.raises(ConfigError, match=r"keep 'JSON' is not in the initial instruction 'Reply in json\.'"):
        rules.check_initial("Reply in json.")
    with pytest.raises(ConfigError, match=r"forbid 'maybe' is in the initial instruction"):
        rules.check_initial("JSON, Maybe.")
    with pytest.raises(ConfigError, match="forbid 'maybe' is in the label 'Maybe not'"):
        rules.check_labels(("yes", "Maybe not"))


def words(prompt):
    return len(prompt.render("").split())


@pytest.mark.parametrize(("count", "violation"), [(4, None), (5, 0.5 * 5 / 4), (8, 1.0), (80, 1.0)])
def test_a_prompt_that_is_too_long_is_worse_the_longer_it_is(count, violation):
    rules = Constraints(max_prompt_tokens=4, tokens_of=words)
    prompt = TaskPrompt(" ".join(["sort"] * count), template="{instruction}\n{input}")
    assert rules.violations(prompt).get("max_prompt_tokens") == violation


def test_an_initial_prompt_that_is_too_long_is_refused_with_both_numbers():
    rules = Constraints(max_prompt_tokens=4, tokens_of=words)
    rules.check_length(TaskPrompt("Sort it.", template="{instruction} {input} now please"))
    with pytest.raises(ConfigError, match=r"max_prompt_tokens is 4 and the initial prompt .* has 5 tokens"):
        rules.check_length(TaskPrompt("Sort it all.", template="{instruction} {input} now please"))


def test_without_a_tokenizer_four_characters_are_a_token():
    assert Constraints().tokens_of(TaskPrompt("Sort.", template="{instruction}\n{input}")) == 2
