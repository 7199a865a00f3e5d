"""What a thinking model says aloud: its text without the thoughts that a server left in it.

Servers are meant to send thoughts apart from the answer. Many do not, and then the answer would be read from a thought
("it could be negative ... positive"). The tags are those of the chat templates and reasoning parsers in use.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = (
    r"(?:(?!end_)[a-z]+[:_])?think(?:ing)?|antthinking|thoughts?|thought_process|inner_(?:thoughts?|monologue)|reasoning"
    r"|reasoning_content|internal_reasoning|chain_of_thought|reflection|deliberation|analysis|scratchpad"
)
_OPENERS = (
    rf"<(?:{_NAMES})(?:\s[^<>]*)?(?<!/)>",
    rf"&lt;(?:{_NAMES})&gt;",
    rf"<\|(?:{_NAMES}|begin_of_thought|start_thinking|inner_prefix)\|>",
    r"\[think\]",
    r"◁think▷",
    r"<unused94>",  # MedGemma
    r"<\|channel>thought\b",  # Gemma 4
    r"<details\s+type=[\"']reasoning[\"'][^>]*>",  # Open WebUI
    r"Here(?: is|'s) my thought process:",  # Granite
)
_CLOSERS = (
    rf"</(?:{_NAMES})\s*>",
    rf"&lt;/(?:{_NAMES})&gt;",
    rf"<\|(?:/(?:{_NAMES})|end_of_thought|end_thinking|inner_suffix)\|>",
    r"\[/think\]",
    r"◁/think▷",
    r"<unused95>",
    r"<channel\|>",
    r"(?<=\n)</details>",
    r"Here(?: is|'s) my response:",
    r"\[BEGIN FINAL RESPONSE\]",  # Apriel
)
_EMPTY = rf"<(?:{_NAMES})\s*/>"
_TAG = re.compile(f"(?P<open>{'|'.join(_OPENERS)})|(?P<close>{'|'.join(_CLOSERS)})|(?P<empty>{_EMPTY})", re.IGNORECASE)
_WRAPPER = re.compile(  # around the answer, after the thought
    r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|\[END FINAL RESPONSE\]|</?(?:response|solution)>",
    re.IGNORECASE,
)
# gpt-oss speaks in channels; the answer is what stands in the last `final` one. A decoder that drops special tokens
# leaves their names behind.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?(?:<\|message\|>)?")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>.*", re.DOTALL)
_BARE_CHANNELS = re.compile(r"\s*analysis.*assistantfinal(?P<answer>.*)", re.DOTALL)
_BARE_ANALYSIS = re.compile(r"\s*analysis[A-Z][a-z]*[\s,']")  # "analysisWe need ..."


class Spoken(NamedTuple):
    """A text without its thoughts."""

    text: str | None
    """None where a thought was begun and not ended: the answer was never reached."""
    thought: bool
    """Whether there was a thought."""


def spoken(text: str) -> Spoken:
    """`text` without thoughts.

    A closing tag without an opening one ends a thought that the chat template began, so all before it is dropped. A
    tag in quotes is a word about tags, not a thought.

    >>> spoken("<think>It could be negative ...</think> positive")
    Spoken(text='positive', thought=True)
    >>> spoken("<think>It could be negative")
    Spoken(text=None, thought=True)
    """
    if "<|channel|>" in text:
        return _last_channel(text)
    if bare := _BARE_CHANNELS.fullmatch(text):
        return Spoken(bare["answer"].strip(), True)
    if _BARE_ANALYSIS.match(text):
        return Spoken(None, True)
    kept: list[str] = []
    at, opened = 0, False
    for tag in _TAG.finditer(text):
        if not opened and _quoted(text, tag):
            continue
        if tag["close"]:
            if not opened:
                kept.clear()
            at, opened = tag.end(), False
        elif not opened:
            kept.append(text[at : tag.start()])
            at, opened = tag.end(), not tag["empty"]
    if opened:
        return Spoken(None, True)
    if not at:
        return Spoken(text, False)
    kept.append(text[at:])
    return Spoken(_WRAPPER.sub("", " ".join(filter(None, map(str.strip, kept)))).strip(), True)


def _quoted(text: str, tag: re.Match[str]) -> bool:
    return text[tag.start() - 1 : tag.start()] in tuple("`'\"“") and text[tag.end() : tag.end() + 1] in tuple("`'\"”")


def _last_channel(text: str) -> Spoken:
    last = list(_CHANNEL.finditer(text))[-1:]
    if not last or last[0][1].lower() != "final":
        return Spoken(None, True)
    return Spoken(_CHANNEL_END.sub("", text[last[0].end() :]).strip(), True)
