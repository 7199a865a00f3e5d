"""A setting: one dataclass field whose metadata say what it is for, which values it takes, and where help shows it.

Flags, YAML, checks and help all follow from the field, so that a setting is written down once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import get_annotations
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from prewrite.errors import ConfigError
from prewrite.text import SCALARS, read_scalar, shown


def option(
    default: Any,
    help: str,
    *,
    common: bool = False,
    alias: str | None = None,
    choices: Sequence[str] | None = None,
    above: float | None = None,
    below: float | None = None,
    at_least: float | None = None,
    may_change: bool = False,
) -> Any:
    """A setting with its one help text.

    Args:
        default: its value where none is given.
        help: what a user reads about it.
        common: whether `--help` shows it; `--help-all` shows all.
        alias: a second name for it, in flags and YAML.
        choices: the values that it, or each item of a list, may have.
        above, below, at_least: bounds of a number; `above` and `below` are themselves out of bounds.
        may_change: whether a resumed run may have another value.
    """
    metadata = {
        "help": help,
        "common": common,
        "alias": alias,
        "choices": choices,
        "above": above,
        "below": below,
        "at_least": at_least,
        "may_change": may_change,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, eq=False)
class Option:
    """A field made by `option`, read back."""

    name: str
    kind: type
    """str, int, float, bool, list (of texts) or dict (of texts, or of anything: `nested`)."""
    optional: bool
    """Whether None is a value."""
    nested: bool
    default: Any
    group: str
    """The heading of `--help` that it stands under: `group` of the class that has the field."""
    help: str
    common: bool
    alias: str | None
    choices: Sequence[str] | None
    above: float | None
    below: float | None
    at_least: float | None
    may_change: bool

    @property
    def names(self) -> list[str]:
        """What it is called in flags and YAML, its own name first."""
        return [self.name, *([self.alias] if self.alias else [])]

    def read(self, value: Any, *, where: str) -> Any:
        """`value`, from a flag, YAML or Python, as this setting's type and within its bounds.

        Raises `ConfigError` that names `where` it stood, the value and the rule.
        """
        if value is None or (value == "none" and self.optional):
            if self.optional:
                return None
            raise ConfigError(f"{where} is empty; it needs a value ({WANTED[self.kind]})")
        if self.kind is list:
            items = [_scalar(str, item, where) for item in (value if isinstance(value, list | tuple) else [value])]
            for item in items:
                self._check_choice(item, where)
            return items
        if self.kind is dict:
            return self._mapping(value, where)
        found = _scalar(self.kind, value, where)
        self._check_choice(found, where)
        if rule := self._broken_bound(found):
            raise ConfigError(f"{where} is {found}; it must be {rule}")
        return found

    def _mapping(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, list):  # KEY=VALUE words of a flag
            pairs = [part.partition("=") for part in value]
            if wrong := [part for part, (_, equals, _) in zip(value, pairs, strict=True) if not equals]:
                raise ConfigError(f"{where}: {wrong[0]!r} is not KEY=VALUE")
            return {key: text for key, _, text in pairs}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; it must be {WANTED[dict]}")
        return {str(key): item if self.nested else str(item) for key, item in value.items()}

    def _check_choice(self, value: Any, where: str) -> None:
        if self.choices is not None and value not in self.choices:
            raise ConfigError(f"{where} {value!r} is unknown; choose one of {', '.join(self.choices)}")

    def _broken_bound(self, value: Any) -> str | None:
        if self.above is not None and value <= self.above:
            return f"above {self.above:g}"
        if self.below is not None and value >= self.below:
            return f"below {self.below:g}"
        if self.at_least is not None and value < self.at_least:
            return f"at least {self.at_least:g}"
        return None


def options_of(config: type) -> tuple[Option, ...]:
    """The settings of a dataclass, in their order."""
    hints = get_type_hints(config)
    found = []
    for item in fields(config):
        hint, home = hints[item.name], next(base for base in config.__mro__ if item.name in get_annotations(base))
        optional = isinstance(hint, UnionType)  # `kind | None`
        kind = get_args(hint)[0] if optional else hint
        default = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[operator]
        nested = Any in get_args(kind)
        found.append(
            Option(
                item.name, get_origin(kind) or kind, optional, nested, default, vars(home)["group"], **item.metadata
            )
        )
    return tuple(found)


WANTED: dict[type, str] = {**SCALARS, list: "one or more texts", dict: "`key: value` lines"}


def _scalar(kind: type, value: Any, where: str) -> Any:
    try:
        found = read_scalar(kind, value)
    except (ValueError, OverflowError):
        raise ConfigError(f"{where} is {value!r}; it must be {WANTED[kind]}") from None
    if kind is str and "\0" in found:
        raise ConfigError(f"{where} is {shown(found)}; no text or path holds a null character, take it out")
    return found
