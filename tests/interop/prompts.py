"""Prompts that are hard to write down in another tool's form, and what reads some of the forms back."""

import re

from prewrite.interop.modelfile import printed
from prewrite.scoring.prompt import Exemplar, TaskPrompt

HARD = TaskPrompt(
    "Say {{x}} {% if %} {# c #} \"quotes\" 'single'\n\ttab \\ back, é, 🙂 and {",
    answer_line="yes: no #}",
    exemplars=(Exemplar('a {{ input }} {\n"""b', "ja: #nein"), Exemplar("- x\n  y\r\nz", "[1] {y}")),
)
TURNS = TaskPrompt("Do {it}", exemplars=(Exemplar("x {", "} y"), Exemplar("- z", '"w"')), layout="turns")
INPUT = 'My {{ parcel }} {% x %} "never"\ncame: é {input}'


def read_modelfile(text):
    """(command, value) of each line of a Modelfile, as Ollama reads it: a value ends with a line, or a line after it.

    A value that begins with three quotes ends at the first end of a line before which three more stand.
    """
    found, lines = [], re.findall(r"[^\r\n]*[\r\n]|[^\r\n]+$", printed(text))
    while lines:
        name, _, value = lines.pop(0).partition(" ")
        role = ""
        if name == "MESSAGE":
            role, _, value = value.partition(" ")
        if value.startswith('"""'):
            while not (len(value.strip()) >= 6 and value.strip().endswith('"""')):
                value += lines.pop(0)
            value = value.strip()[3:-3] + "\n"
        found.append((f"{name} {role}".strip(), value[:-1]))
    return found
