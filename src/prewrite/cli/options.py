"""Flags and YAML from the settings: one help text, one type, one check for both.

`--max_steps` and `--max-steps` are the same flag; the command line wins over `--config file.yaml`; an unknown key is
an error. (transformers' HfArgumentParser and TRL's TrlParser do most of this, but take seconds to import and let YAML
values past their type checks.)
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prewrite.errors import ConfigError
from prewrite.files import why_unreadable
from prewrite.run.option import Option, options_of
from prewrite.text import parse_yaml

Config = TypeVar("Config")

GROUPS = ("data", "task model", "rewriter", "training", "choice", "output")
"""Headings of a command's help, in order."""
METAVARS = {str: "TEXT", int: "N", float: "X"}


def add_options(
    parser: argparse.ArgumentParser,
    config: type,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    several: bool = False,
) -> None:
    """A flag for every setting of `config` that can be written on a command line, under the heading of its group.

    `--help` shows the common ones, and all where `only` names few; `--help-all` shows all. `defaults` are a command's
    own, for the help. `several`: the task model may be given more than once, and `build_configs` reads the flags.
    """
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these settings; flags win over it")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    rare: list[tuple[argparse.Action, str]] = []
    shown = set()
    for option in options_of(config):
        if (only is not None and option.name not in only) or option.name in without or option.nested:
            continue
        shown.add(option.name)
        repeated = several and option.name == "task_model"
        default = (defaults or {}).get(option.name, option.default)
        action = _add_flags(groups[option.group], option, default, repeated=repeated)
        if only is None and not option.common:
            rare.append((action, str(action.help)))
            action.help = argparse.SUPPRESS
    if "task_model" in shown:
        for spelling in _spelled(OLDER):
            groups["task model"].add_argument(
                spelling, dest=OLDER, default=argparse.SUPPRESS, metavar="BACKEND", help=argparse.SUPPRESS
            )
    if rare:
        parser.add_argument("--help-all", action=_HelpAll, rare=rare, help="show all settings, not only common ones")


def add_task_model_flag(parser: argparse.ArgumentParser) -> None:
    """`--task-model` beside task models that are named by position, since every other command has the flag."""
    for spelling, told in zip(_spelled("task_model"), ("the same as by position", argparse.SUPPRESS), strict=True):
        parser.add_argument(spelling, dest="named", action="append", default=[], metavar="TASK_MODEL", help=told)


def add_data_by_position(parser: argparse.ArgumentParser) -> None:
    """Data sets without the flag `--data`."""
    parser.add_argument("data_by_position", nargs="*", metavar="DATA", help="the same as --data")


def _add_flags(
    group: argparse._ArgumentGroup, option: Option, default: Any, *, repeated: bool = False
) -> argparse.Action:
    """The flag that help shows, and its other spellings without help; returns the first."""
    text = option.help.replace("%", "%%")
    if option.choices and not _fits(option.choices) and option.kind is not list:
        text += f"; one of {', '.join(option.choices)}"
    if default is not None and option.kind is not bool and default not in ([], {}):
        text += f" (default: {_shown(default)})"
    given: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    spellings = [spelling for name in option.names for spelling in _spelled(name)]
    if option.kind is bool:
        switches = {f"--no-{name}".replace("_", "-"): False for name in option.names}
        switches |= {f"--no_{name}": False for name in option.names} | dict.fromkeys(spellings, True)
        shown = next(switch for switch, value in switches.items() if value is not default)
        made = {
            switch: group.add_argument(
                switch, action="store_true" if value else "store_false", help=argparse.SUPPRESS, **given
            )
            for switch, value in switches.items()
        }
        made[shown].help = text if default is False else f"on by default: {text}"
        return made[shown]
    if option.kind is list:
        single = option.name == "dataset"  # a path may follow it, so it takes one word and is repeated
        given |= {"action": "append"} if single else {"action": "extend", "nargs": "+"}
        given["metavar"] = option.names[-1].upper()
    elif option.kind is dict:
        given |= {"action": "extend", "nargs": "+", "metavar": "KEY=VALUE"}
    else:
        fits = option.choices is not None and _fits(option.choices)
        given["metavar"] = "{" + ",".join(option.choices or ()) + "}" if fits else METAVARS[option.kind]
        if repeated:
            given["action"] = "append"
            text += "; repeat it for several"
    first, *others = spellings
    action = group.add_argument(first, help=text, **given)
    for spelling in others:
        group.add_argument(spelling, help=argparse.SUPPRESS, **given)
    return action


def _fits(choices: Sequence[str]) -> bool:
    """Whether they are few enough to stand beside the flag."""
    return len(",".join(choices)) < 50


def _spelled(name: str) -> list[str]:
    """`--max-steps`, which help shows, and `--max_steps`."""
    return list(dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")))


class _HelpAll(argparse.Action):
    """Shows the help of the settings that `--help` leaves out too."""

    def __init__(self, *, rare: list[tuple[argparse.Action, str]], **given: Any):
        super().__init__(**given, nargs=0)
        self.rare = rare

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for action, text in self.rare:
            action.help = text
        parser.usage = "%(prog)s [settings]"
        parser.print_help()
        parser.exit()


def build_config(config: type[Config], namespace: argparse.Namespace, **given: Any) -> Config:
    """The config of parsed flags over their `--config` file over `given`. Raises `ConfigError`."""
    options = {name: option for option in options_of(config) for name in option.names}
    flags = {name: value for name, value in vars(namespace).items() if name in options or name == OLDER}
    if by_position := getattr(namespace, "data_by_position", []):
        flags["dataset"] = [*flags.get("dataset", []), *by_position]
    values = dict(given)
    for where, layer in ((f"{getattr(namespace, 'config', None)}: ", _from_file(namespace)), ("--", flags)):
        for key, value in layer.items():
            name = key.replace("-", "_")
            if name == OLDER:
                values[OLDER] = value
            elif name in options:
                values[options[name].name] = options[name].read(value, where=f"{where}{key}")
            else:
                raise ConfigError(f"{where}unknown setting {key!r}{_meant(name, options)}")
    if (backend := values.pop(OLDER, None)) is not None:
        values["task_model"] = f"{backend}:{values.get('task_model', 'embedded')}"
    return config(**values)


def build_configs(config: type[Config], namespace: argparse.Namespace, **given: Any) -> list[Config]:
    """`build_config` for each task model of a flag that may be repeated; one where none is given.

    Raises `ConfigError` for one that is given twice too.
    """
    models = getattr(namespace, "task_model", [])
    if twice := [model for number, model in enumerate(models) if model in models[:number]]:
        raise ConfigError(f"--task-model {twice[0]} is given twice; give each once")
    if not models:
        return [build_config(config, namespace, **given)]
    flags = vars(namespace)
    return [build_config(config, argparse.Namespace(**{**flags, "task_model": model}), **given) for model in models]


OLDER = "task_backend"
"""`--task_backend B --task_model M`, as the first design has it, is `--task_model B:M`, which the settings hold."""


def _from_file(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings in the `--config` file, if there is one."""
    return read_yaml(Path(namespace.config)) if getattr(namespace, "config", None) is not None else {}


def _meant(name: str, options: Mapping[str, Option]) -> str:
    close = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(options)}"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds settings. Raises `ConfigError` naming the file."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config {str(path)!r}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {str(path)!r} cannot be read ({why_unreadable(error)})") from None
    except ValueError as error:
        raise ConfigError(f"--config {str(path)!r} cannot be read as YAML ({error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"--config {str(path)!r} must hold settings as `name: value` lines")
    return values


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else repr(value) if "\n" in str(value) else str(value)
