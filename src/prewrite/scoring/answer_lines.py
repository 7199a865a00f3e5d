"""The answer line: one sentence on the form of the answer, written by rule from the labels or the kind of task.

Where an answer is read from text, most of what a prompt gains is that the model answers in the form that is looked
for. A rule writes that sentence better than a small model does, so it is a part of the prompt of its own, and is tried
beside none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# By language: one of the labels, the same and nothing else, a number, a short answer. Ours.
_LINES: dict[str, tuple[str, str, str, str]] = {
    "en": (
        "Answer with one of: {labels}.",
        "Answer with one of: {labels}, and nothing else.",
        "Give the answer as a number, and nothing else.",
        "Give the answer only, in as few words as possible.",
    ),
    "de": (
        "Antworte mit einem von: {labels}.",
        "Antworte mit einem von: {labels}, und mit nichts anderem.",
        "Gib die Antwort als Zahl an, und nichts anderes.",
        "Gib nur die Antwort an, in so wenigen Wörtern wie möglich.",
    ),
    "fr": (
        "Réponds par l'un de ces mots : {labels}.",
        "Réponds par l'un de ces mots : {labels}, et rien d'autre.",
        "Donne la réponse sous forme de nombre, et rien d'autre.",
        "Donne seulement la réponse, en aussi peu de mots que possible.",
    ),
    "es": (
        "Responde con una de estas opciones: {labels}.",
        "Responde con una de estas opciones: {labels}, y nada más.",
        "Da la respuesta como un número, y nada más.",
        "Da solo la respuesta, con las menos palabras posibles.",
    ),
    "it": (
        "Rispondi con una di queste opzioni: {labels}.",
        "Rispondi con una di queste opzioni: {labels}, e nient'altro.",
        "Dai la risposta come numero, e nient'altro.",
        "Dai solo la risposta, con meno parole possibile.",
    ),
    "pt": (
        "Responda com uma destas opções: {labels}.",
        "Responda com uma destas opções: {labels}, e nada mais.",
        "Dê a resposta como um número, e nada mais.",
        "Dê apenas a resposta, com o mínimo de palavras possível.",
    ),
    "zh": (
        "请从以下选项中选择一个回答：{labels}。",
        "请从以下选项中选择一个回答：{labels}，不要写其他内容。",
        "请只用一个数字回答。",
        "请只写出答案，尽量简短。",
    ),
}
# A few words that are frequent in instructions of one language and rare in the others.
_WORDS: dict[str, str] = {
    "en": "the of is whether this each answer given following into with what which and",
    "de": "der die das den ist und ob nach einer einem für mit welche dieser bitte",
    "fr": "le la les des est et une dans pour cette ce quelle quel suivant selon",
    "es": "el los las del es una por para esta este según siguiente cuál indica",
    "it": "il lo gli della del è una per questa questo seguente secondo quale indica",
    "pt": "os as do da é uma para esta este seguinte segundo qual não em",
}


def answer_lines(instruction: str, labels: Sequence[str] | None, task: str | None) -> list[str]:
    """The answer lines to try, none (an empty text) first; in the instruction's language where that is known.

    Args:
        instruction: tells the language, English where it cannot be told.
        labels: the possible answers, where there are any.
        task: `classification`, `qa` or `math`.
    """
    one_of, only_one_of, number, short = _LINES[language_of(instruction)]
    if labels:
        listed = ", ".join(labels)
        return ["", *(line.replace("{labels}", listed) for line in (one_of, only_one_of))]
    return ["", number if task == "math" else short]


@lru_cache(maxsize=256)
def language_of(text: str) -> str:
    """One of the languages that answer lines are written in; `en` where it cannot be told."""
    if re.search("[\u4e00-\u9fff]", text) and not re.search("[\u3040-\u30ff]", text):
        return "zh"
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = {language: sum(word in known.split() for word in words) for language, known in _WORDS.items()}
    best = max(counts, key=lambda language: (counts[language], language == "en"))
    return best if counts[best] > counts["en"] else "en"
