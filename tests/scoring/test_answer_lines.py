"""Answer lines are written by rule, in the instruction's language."""

import pytest

from prewrite.scoring.answer_lines import answer_lines, language_of


def test_labels_are_listed_with_and_without_anything_else():
    assert answer_lines("Classify the review.", ("good", "bad"), "classification") == [
        "",
        "Answer with one of: good, bad.",
        "Answer with one of: good, bad, and nothing else.",
    ]


def test_open_answers_are_asked_for_in_their_form():
    assert answer_lines("Solve it.", None, "math") == ["", "Give the answer as a number, and nothing else."]
    assert answer_lines("Who was it?", None, "qa") == ["", "Give the answer only, in as few words as possible."]


def test_braces_in_labels_stay_as_they_are():
    assert answer_lines("Pick.", ("{a}", "{labels}"), None)[1] == "Answer with one of: {a}, {labels}."


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Classify the sentiment of the review as positive or negative.", "en"),
        ("Ist die Bewertung positiv oder negativ?", "de"),
        ("Dis si le message est un spam dans cette liste.", "fr"),
        ("Indica si el mensaje es positivo o negativo.", "es"),
        ("Indica se il messaggio è positivo o negativo.", "it"),
        ("Classifique a mensagem segundo o tema da notícia.", "pt"),
        ("判断这条评论是正面还是负面。", "zh"),
        ("レビューが肯定的か否定的か判断してください。", "en"),  # not known: English
        ("spam?", "en"),
    ],
)
def test_the_language_is_told_from_a_few_frequent_words(text, language):
    assert language_of(text) == language
