"""Flags and YAML from a config dataclass: one help text, one type, one check for both.

`--max_steps` and `--max-steps` are the same flag; the command line wins over `--config file.yaml`; an unknown key is
an error. (transformers' HfArgumentParser and TRL's TrlParser do most of this, but take seconds to import and let YAML
values past their type checks.)
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prewrite.errors import ConfigError
from prewrite.run.config import field_type

Config = TypeVar("Config")


def add_options(parser: argparse.ArgumentParser, config: type, *, only: Sequence[str] | None = None) -> None:
    """A flag for every field of `config` that can be written on a command line."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these settings; flags win over it")
    for item in fields(config):
        kind, _ = field_type(str(item.type))
        if (only is not None and item.name not in only) or kind == "dict[str, Any]":
            continue
        names = dict.fromkeys([item.name, item.metadata.get("alias") or item.name])
        flags = list(dict.fromkeys(f"--{spelling}" for name in names for spelling in (name, name.replace("_", "-"))))
        text = item.metadata["help"].replace("%", "%%")
        default = _default(item)
        if default not in (None, [], {}, False):
            text += f" (default: {_shown(default)})"
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text}
        if kind == "bool":
            parser.add_argument(*flags, action="store_true", **options)
            spellings = [f"--no{dash}{flag[2:]}" for flag in flags for dash in "_-"]
            parser.add_argument(*spellings, action="store_false", dest=item.name, default=argparse.SUPPRESS,
                                help=argparse.SUPPRESS if default is False else f"switch off {item.name}")  # fmt: skip
        elif kind.startswith("list"):
            repeat = "append" if item.name == "dataset" else "extend"
            nargs = None if repeat == "append" else "+"
            parser.add_argument(*flags, action=repeat, nargs=nargs, metavar=item.name.upper(), **options)
        elif kind.startswith("dict"):
            parser.add_argument(*flags, action="extend", nargs="+", metavar="KEY=VALUE", **options)
        else:
            choices = item.metadata.get("choices")
            shown = "{" + ",".join(choices) + "}" if choices else kind.upper()
            parser.add_argument(*flags, metavar=shown, **options)


def build_config(config: type[Config], namespace: argparse.Namespace, **given: Any) -> Config:
    """The config of parsed flags over their `--config` file over `given`. Raises `ConfigError`."""
    values = dict(given)
    file = getattr(namespace, "config", None)
    by_name = {item.name: item for item in fields(config)}  # type: ignore[arg-type]
    if file is not None:
        for key, value in read_yaml(Path(file)).items():
            name = key.replace("-", "_")
            name = next((n for n, item in by_name.items() if item.metadata.get("alias") == name), name)
            if name not in by_name:
                close = difflib.get_close_matches(name, by_name, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(by_name)}"
                raise ConfigError(f"{file}: unknown setting {key!r}{hint}")
            values[name] = _convert(by_name[name], value, where=f"{file}: {key}")
    for name, value in vars(namespace).items():
        if name in by_name:
            values[name] = _convert(by_name[name], value, where=f"--{name}")
    return config(**values)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds settings. Raises `ConfigError` naming the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config {str(path)!r}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {str(path)!r} cannot be read as YAML ({error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"--config {str(path)!r} must hold settings as `name: value` lines")
    return values


def _convert(item: Field[Any], value: Any, *, where: str) -> Any:
    """`value`, from YAML or the command line, as the field's type."""
    kind, optional = field_type(str(item.type))
    if value is None or (value == "none" and optional):
        if optional:
            return None
        raise ConfigError(f"{where} is empty; it needs a value ({kind})")
    if kind == "list[str]":
        items = value if isinstance(value, list) else [value]
        return [_scalar("str", part, where) for part in items]
    if kind == "dict[str, str]" and isinstance(value, list):
        pairs = [part.partition("=") for part in value]
        if wrong := [part for part, (_, equals, _) in zip(value, pairs, strict=True) if not equals]:
            raise ConfigError(f"{where}: {wrong[0]!r} is not KEY=VALUE")
        return {key: text for key, _, text in pairs}
    if kind.startswith("dict"):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; it must be `key: value` lines")
        return {str(key): text if kind.endswith("Any]") else str(text) for key, text in value.items()}
    return _scalar(kind, value, where)


def _scalar(kind: str, value: Any, where: str) -> Any:
    wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}[kind]
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind in ("int", "float") and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 5e-6 as text
        except ValueError:
            number = float("nan")
        if kind == "float" and number == number:
            return number
        if kind == "int" and number == number and number == int(number):
            return int(number)
    raise ConfigError(f"{where} is {value!r}; it must be {wanted}")


def _default(item: Field[Any]) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()  # type: ignore[operator]


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else repr(value) if "\n" in str(value) else str(value)
