"""The task prompt: what is optimised, scored and shipped.

    instruction + answer line + exemplars, put together by a template, and how the answer is read (with label offsets)

A bare instruction is a task prompt without the rest. `prompt.json` is one of these, ready to render and to ask with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from prewrite.errors import ConfigError
from prewrite.files import to_json, write_atomic
from prewrite.scoring.templates import TASK_TEMPLATE, get_task_template
from prewrite.text import fill, is_valid_unicode, parse_json, shown
from prewrite.types import DECODINGS, Conversation, Prompt, Turn, messages_of

Layout = Literal["instruction_first", "exemplars_first", "turns"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
TEXT_LAYOUTS: tuple[Layout, ...] = ("instruction_first", "exemplars_first")
"""Those that any task model can be sent."""
PARTS = ("instruction", "answer_line", "exemplars", "offsets")
"""What of a prompt a search may change."""
VERSION = 1
"""Of `prompt.json`."""


class Exemplar(NamedTuple):
    """One worked example in the prompt."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """Everything that a task model is sent besides the input, and how its answer is read."""

    instruction: str
    answer_line: str = ""
    """A sentence on the form of the answer, after the instruction; see `answer_lines.py`."""
    exemplars: tuple[Exemplar, ...] = ()
    """In the order in which they are shown."""
    layout: Layout = "instruction_first"
    """Where the exemplars stand: after the instruction, before it, or as earlier turns of a conversation, which only a
    task model that chats can be sent. Models differ, and tasks do."""
    template: str = TASK_TEMPLATE
    """How instruction and input are put together: a text with the slots `{instruction}` and `{input}`, or its name."""
    label_offsets: tuple[tuple[str, float], ...] | None = None
    """(label, nats): taken off each label's log-probability before the highest is chosen; where labels are scored."""
    decoding: str = "auto"
    """How the answer is read: `likelihood`, `constrained`, `generate`, or `auto`; see `Evaluator`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", get_task_template(self.template))
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout {self.layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
        if self.decoding not in ("auto", *DECODINGS):
            raise ConfigError(f"decoding {self.decoding!r} is unknown; choose one of auto, {', '.join(DECODINGS)}")

    @property
    def empty(self) -> bool:
        """Whether there is no instruction: the rewriter's fault, which scores 0 and is never asked."""
        return not self.instruction.strip()

    @property
    def full_instruction(self) -> str:
        """The instruction with its answer line."""
        return f"{self.instruction} {self.answer_line}" if self.answer_line else self.instruction

    @property
    def in_turns(self) -> bool:
        """Whether the task model is sent a conversation. Without exemplars every layout is the same one text."""
        return self.layout == "turns" and bool(self.exemplars)

    def sent(self, input: str) -> Prompt:
        """What the task model is sent for `input`; braces in any of the values are left as they are."""
        return self._conversation(input) if self.in_turns else self._text(input)

    def render(self, input: str) -> str:
        """What the task model is sent for `input`, as people read it; a text is shown as it is sent."""
        return str(self.sent(input))

    def messages(self, input: str) -> list[dict[str, str]]:
        """What a chat model is sent for `input`: `[{"role": "user", "content": ...}, ...]`."""
        return messages_of(self.sent(input))

    def _text(self, input: str) -> str:
        shown = "\n\n".join(self._shown(exemplar) for exemplar in self.exemplars)
        instruction = self.full_instruction
        ahead = self.layout == "exemplars_first" or _input_first(self.template)
        if shown and not ahead:
            instruction = f"{instruction}\n\n{shown}"
        text = fill(self.template, {"instruction": instruction, "input": input})
        return f"{shown}\n\n{text}" if shown and ahead else text

    def _conversation(self, input: str) -> Conversation:
        """The first message holds the instruction and the first input; each answer is the assistant's."""
        frame = _frame(self.template)
        opening = fill(self.template, {"instruction": self.full_instruction, "input": self.exemplars[0].input})
        later = [fill(frame, {"input": text}) for text in (*(shown.input for shown in self.exemplars[1:]), input)]
        turns = [Turn("user", opening)]
        for exemplar, question in zip(self.exemplars, later, strict=True):
            turns += [Turn("assistant", exemplar.output), Turn("user", question)]
        return Conversation(tuple(turns))

    def _shown(self, exemplar: Exemplar) -> str:
        """An exemplar as the template shows an input, and its output behind the cue or on a line of its own."""
        frame = _frame(self.template)
        gap = " " if frame.endswith(":") else "\n"
        return fill(frame, {"input": exemplar.input}) + gap + exemplar.output

    def offsets_of(self, labels: tuple[str, ...]) -> list[float]:
        """The offset of each label, in nats; 0 without offsets. Raises `ConfigError` for a label that has none."""
        if self.label_offsets is None:
            return [0.0] * len(labels)
        offsets = dict(self.label_offsets)
        if missing := [label for label in labels if label not in offsets]:
            raise ConfigError(
                f"the prompt has no offset for the label {missing[0]!r} (it has: {', '.join(offsets)}); "
                "its offsets were fitted for other labels, so drop them or fit them again"
            )
        return [offsets[label] for label in labels]

    def to_json(self) -> dict[str, Any]:
        """What `prompt.json` holds; JSON types only."""
        fields = asdict(self)
        fields["exemplars"] = [exemplar._asdict() for exemplar in self.exemplars]
        fields["label_offsets"] = None if self.label_offsets is None else dict(self.label_offsets)
        return {"prewrite_prompt": VERSION, **fields}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str = "prompt") -> TaskPrompt:
        """The prompt that `to_json` gave. Raises `ConfigError` naming a field: missing, unknown, of a wrong type."""
        fields = dict(value)
        version = fields.pop("prewrite_prompt", None)
        if version != VERSION:
            raise ConfigError(f"{where} is no prompt of version {VERSION}: its prewrite_prompt is {version!r}")
        known = {"instruction", "answer_line", "exemplars", "layout", "template", "label_offsets", "decoding"}
        if unknown := sorted(fields.keys() - known):
            raise ConfigError(f"{where}: unknown field {unknown[0]!r}; a prompt has {', '.join(sorted(known))}")
        for name in ("instruction", "answer_line", "layout", "template", "decoding"):
            if name in fields:
                _check_text(fields[name], f"{where}: {name}")
        if not fields.get("instruction", "").strip():
            raise ConfigError(f"{where}: instruction is empty or missing; it must be text")
        fields["exemplars"] = _read_exemplars(fields.get("exemplars", []), where)
        fields["label_offsets"] = _read_offsets(fields.get("label_offsets"), where)
        try:
            return cls(**fields)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write `prompt.json`, whole or not at all."""
        write_atomic(Path(path), to_json(self.to_json(), indent=2) + "\n")

    def with_instruction(self, instruction: str) -> TaskPrompt:
        """The same prompt around another wording."""
        return replace(self, instruction=instruction)


def load_prompt(path: str | Path) -> TaskPrompt:
    """The prompt in a `prompt.json`, or in the run folder that holds one. Raises `ConfigError`."""
    file = Path(path)
    if file.is_dir():
        file = file / "prompt.json"
    try:
        value = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"prompt {str(file)!r} cannot be read ({error.strerror}); give the prompt.json of a run"
        ) from None
    except ValueError as error:  # of the encoding too
        raise ConfigError(f"prompt {str(file)!r} is not JSON ({error}); give the prompt.json of a run") from None
    if not isinstance(value, dict):
        raise ConfigError(f"prompt {str(file)!r} holds a {type(value).__name__}, not an object")
    return TaskPrompt.from_json(value, where=str(file))


def _frame(template: str) -> str:
    """How `template` shows an input: its lines without the one that holds the instruction.

    >>> _frame("{instruction}\\n\\nInput: {input}\\nOutput:")
    'Input: {input}\\nOutput:'
    """
    lines = [line for line in template.split("\n") if "{instruction}" not in line or "{input}" in line]
    text = "\n".join(lines).replace("{instruction}", "")
    return re.sub(r"\n\s*\n", "\n", text).strip()


def _input_first(template: str) -> bool:
    """Whether the instruction follows the input; exemplars then stand ahead of both, whatever the layout."""
    return template.index("{input}") < template.index("{instruction}")


def _read_exemplars(value: Any, where: str) -> tuple[Exemplar, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: exemplars is {value!r}; it must be a list of {{input, output}}")
    found = []
    for number, item in enumerate(value, start=1):
        texts = item if isinstance(item, dict) else {}
        if set(texts) != {"input", "output"} or not all(isinstance(text, str) for text in texts.values()):
            raise ConfigError(f"{where}: exemplar {number} is {item!r}; it must be {{input: text, output: text}}")
        for name, text in texts.items():
            _check_text(text, f"{where}: exemplar {number}: {name}")
        found.append(Exemplar(texts["input"], texts["output"]))
    return tuple(found)


def _check_text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {value!r}; it must be text")
    if not is_valid_unicode(value):
        raise ConfigError(
            f"{where} is {shown(value)}; it must be valid Unicode: half of a surrogate pair stands alone"
        )


def _read_offsets(value: Any, where: str) -> tuple[tuple[str, float], ...] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{where}: label_offsets is {value!r}; it must be {{label: nats}}, or null")
    for label, nats in value.items():
        _check_text(label, f"{where}: a label of label_offsets")
        if isinstance(nats, bool) or not isinstance(nats, int | float) or not math.isfinite(nats):
            raise ConfigError(f"{where}: the offset of label {label!r} is {nats!r}; it must be a number of nats")
    return tuple((label, float(nats)) for label, nats in value.items())
