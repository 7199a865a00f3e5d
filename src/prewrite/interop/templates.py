"""A message as a template of other languages: what would be read as a tag stays text."""

from __future__ import annotations

import json
import re

from prewrite.interop.slots import Message

_TAGS = re.compile(r"\{(?=[{%#\r]|\n?\Z)|#(?=\})|\r")
"""What would begin a tag, also together with what we write behind it; the end of a comment, which is a fault for
Nunjucks where none began; and carriage returns, which Jinja reads as line feeds. It drops a last line feed too."""


def jinja_text(message: Message) -> str:
    r"""A Jinja template with the variable `input`; Nunjucks, which promptfoo uses, reads it alike.

    >>> print(jinja_text(Message("user", ("{{x}} {", ""))))
    {{ "{" }}{x}} {{ "{" }}{{ input }}
    """
    whole = "{{ input }}".join(_TAGS.sub(_as_value, text) for text in message.texts)
    return whole.removesuffix("\n") + _as_value("\n") if whole.endswith("\n") else whole


def _as_value(found: re.Match[str] | str) -> str:
    return f"{{{{ {json.dumps(found if isinstance(found, str) else found[0])} }}}}"


def f_string(message: Message) -> str:
    """A Python format string with the field `input`.

    >>> f_string(Message("user", ("{x} ", "")))
    '{{x}} {input}'
    """
    return "{input}".join(text.replace("{", "{{").replace("}", "}}") for text in message.texts)
