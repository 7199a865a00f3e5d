"""What the rewriter is asked, and how its rewrite is read back from what it says.

A meta prompt is a whole string with the slot `{instruction}`. The paper's form (arXiv 2401.08189v4, Eq. 1) is the meta
prompt, a line break, and `Instruction: ` with the instruction; the paper shows no cue after it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from prewrite.errors import ConfigError
from prewrite.files import why_unreadable
from prewrite.lm.tokens import chat_text, has_chat_template
from prewrite.text import fill, shown

CUE = "New instruction:"

META_PROMPTS: dict[str, str] = {
    # arXiv 2401.08189v4, Table 5, used with the smaller task model (PaLM 2-S).
    "generic": """\
Rewrite the following instruction via rephrasing and/or adding specific requirements. \
Use illustrative description if needed. Output the new instruction only.
Instruction: {instruction}""",
    # arXiv 2401.08189v4, Table 5, used with the larger task model (PaLM 2-L).
    "reasoning": """\
Rewrite the following instruction via rephrasing and/or adding specific requirements. \
Add instructions which would be helpful to solve the problem correctly. Output the new instruction only.
Instruction: {instruction}""",
    # Ours. Models below about 1B follow a pattern better than an order, and stop where the pattern stops.
    "few_shot": """\
Write each instruction again so that it is clearer. Ask for the same task and keep every possible answer.

Instruction: Is the email spam or ham?
New instruction: Read the email and decide whether it is spam or ham. Answer with one word.

Instruction: Name the capital.
New instruction: Name the capital city of the given country. Write only the name of the city.

Instruction: Say if the customer is calm, worried or angry.
New instruction: Judge the mood of the customer's message. Choose calm, worried or angry.

Instruction: {instruction}
New instruction:""",
}


def build_meta_prompt(instruction: str, family: str = "generic", template: str | None = None) -> str:
    """The meta prompt with `instruction` in its slot.

    `family` is a name of `META_PROMPTS` or the path of a text file; `template` is the text itself and wins over
    `family`. Both texts need the slot `{instruction}`. Raises `ConfigError` for an unknown family, an unreadable file
    or a missing slot.
    """
    text = template if template is not None else load_meta_prompt(family)
    return fill(text, {"instruction": instruction.strip()}, required=["instruction"])


def load_meta_prompt(family: str) -> str:
    """The text of a family, or of the file at that path. Raises `ConfigError`."""
    if family in META_PROMPTS:
        return META_PROMPTS[family]
    path = Path(family)
    if not os.path.isfile(path):  # `Path` raises for a name that is too long, as of a text in its place
        raise ConfigError(
            f"meta prompt family {shown(family)} is unknown and no such file exists; "
            f"choose one of {', '.join(META_PROMPTS)}, or give the path of a text file with an {{instruction}} slot"
        )
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"meta prompt file {family!r} cannot be read as UTF-8 text ({why_unreadable(error)})"
        ) from None
    if "{instruction}" not in text:
        raise ConfigError(
            f"meta prompt file {family!r} has no {{instruction}} slot; add a line 'Instruction: {{instruction}}'"
        )
    return text


def format_rewriter_query(meta_prompt: str, tokenizer: Any = None) -> str:
    """The text that the rewriter completes.

    With a chat template: a user message and the start of the assistant's turn (`tokens.chat_text`); tokenise it
    without adding special tokens, the template has put them in. Without one: plain text that ends in
    `New instruction:`, or in the meta prompt's own cue if its last line ends in a colon.
    """
    if has_chat_template(tokenizer):
        return chat_text(tokenizer, meta_prompt)
    text = meta_prompt.rstrip()
    return text if text.endswith(":") and "\n" in text else f"{text}\n{CUE}"


_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)  # with all others before it
_UNFINISHED_THOUGHT = re.compile(r"^\s*<think>.*", re.DOTALL)
_TURN_START = re.compile(
    r"^(?:\s*(?:<\|im_start\|>(?:assistant)?|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model"
    r"|<\|begin_of_text\|>|<\|assistant\|>|<bos>|<s>|\[/INST\]))+"
)
_SPECIAL_TOKEN = re.compile(
    r"<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|\[/?INST\]", re.IGNORECASE
)
_NOUN = r"(?:instructions?|prompts?|version|rewrite|rewriting|task description)"
_ADJECTIVE = r"(?:new|rewritten|rephrased|revised|improved|updated|modified|final|clearer|better|optimi[sz]ed)"
_LABEL = rf"(?:(?:the |my |your |a )?(?:{_ADJECTIVE} )+{_NOUN}|instruction|rewrite|rewritten|output)"
_LEADING_LABEL = re.compile(rf"^(?:[#>*_ \t]*{_LABEL}(?: is)?[*_]*[ \t]*(?::|\n)[*_]*\s*)+", re.IGNORECASE)
_ABOUT = rf"\b(?:{_NOUN}|rewrote|rewritten|rephrase)\b"
_LEADING_TALK = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|great)\b[^\w\n\"\u201c]*\s*)?"
    r"(?:here(?:['\u2019]s| is| are)|this is|below is|i (?:have|would|will)|i['\u2019](?:ve|d|ll))\b"
    rf"[^\n:\"\u201c]*{_ABOUT}[^\n:\"\u201c]*:\s*"
    r"|^(?:sure|certainly|of course|absolutely)\s*[!.,:]+\s*",
    re.IGNORECASE,
)
# Where the rewrite ends although the model goes on: the next example of the pattern, or talk about the rewrite.
_NEXT_PART = re.compile(
    rf"\n[#>*_ \t]*(?:{_LABEL}|original instruction|input|explanation|rationale|reasoning|changes(?: made)?)[*_]*\s*:"
    r"|\n\n(?:this|the) (?:new|rewritten|revised|rephrased|updated) (?:instruction|prompt|version)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)(?:\n```.*)?$", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "“": "”", "\u2018": "\u2019", "«": "»", "„": "“", "`": "`"}


def extract_rewrite(completion: str) -> str:
    """The rewrite in the rewriter's raw text; the one place that decides this. Empty if there is none.

    Removes chat and thinking markup, phrases such as "Sure! Here is the new instruction:", headings, code fences,
    bold and quotes around the whole, and everything from a next "Instruction:" or "Explanation:" line on. Lines and
    paragraphs of the rewrite itself stay. Extracting twice gives the same text.

    >>> extract_rewrite('Sure! Here is the rewritten instruction:\\n\\n**"Classify the review."**')
    'Classify the review.'
    """
    text = _UNFINISHED_THOUGHT.sub("", _THOUGHT.sub("", completion) if "</think>" in completion else completion)
    text = _TURN_START.sub("", text.replace("\r\n", "\n"))
    special = _SPECIAL_TOKEN.search(text)
    text = _tidy(text[: special.start()] if special else text)
    for _ in range(8):  # layers of wrapping; a bound, so that a completion of nothing but quotes stays cheap
        before = text
        text = _LEADING_TALK.sub("", text, count=1)
        text = _LEADING_LABEL.sub("", text, count=1)
        following = _NEXT_PART.search(text)
        text = text[: following.start()] if following else text
        text = _tidy(_unwrap(_tidy(text)))
        if text == before:
            break
    return text if any(character.isalnum() for character in text) else ""


def _tidy(text: str) -> str:
    """No blank space at line ends, no more than one empty line in a row."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _unwrap(text: str) -> str:
    """Without one layer of markup or quotes around the whole text."""
    fence = _FENCE.match(text)
    if fence:
        return fence[1]
    text = re.sub(r"^(?:#{1,6}[ \t]+)+", "", text)
    if text and all(line.startswith(">") for line in text.split("\n") if line):
        return re.sub(r"^(?:> ?)+", "", text, flags=re.MULTILINE)
    for mark in ("**", "__", "*", "_"):
        inner = text[len(mark) : -len(mark)]
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and mark not in inner:
            return inner
    first, _, rest = text.partition("\n\n")
    if rest and first[0] in _QUOTES and _is_quoted(first) and not rest.startswith(first[0]):
        return first[1:-1]  # the rewrite in quotes, then talk about it
    if _is_quoted(text):
        return text[1:-1]
    if text[:1] in ('"', "“") and not re.search(r"[\"“”]", text[1:]):
        return text[1:]  # cut off before the closing quote
    return text


def _is_quoted(text: str) -> bool:
    """Whether the first and the last character are one pair of quotes around all of `text`."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return False
    opening, closing, inner = text[0], text[-1], text[1:-1]
    if opening != closing:
        depth = 0
        for character in inner:
            depth += (character == opening) - (character == closing)
            if depth < 0:
                return False
        return depth == 0
    if opening == "'":
        inner = re.sub(r"(?<=\w)'(?=\w)", "", inner)  # apostrophes
    at = inner.find(opening)
    # `"Say "yes" or "no""` is quoted as a whole, `"yes" or "no"` is not: there the second mark closes.
    return at < 0 or (inner.count(opening) % 2 == 0 and (at == 0 or inner[at - 1] in " (\n"))
