"""Flags from a TOML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..config_files import read_given
from ..errors import InvalidArgument, Unsupported
from ..names import nearest_name

__all__ = ["take_config"]


def take_config(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, per_model: Collection[str] = ()
) -> None:
    """Makes what the file ``arguments.config`` says the defaults of this parser's flags. Keys are the flags' names,
    with ``-`` or ``_``; a table does no more than group some. ``per_model``: the flags that a table ``[models.NAME]``
    may say for that model alone; they become ``arguments.models``, a dictionary for each name. Raises InvalidArgument
    for a key that is no flag, or a value that is none."""
    path: str = arguments.config
    values = _read(path)
    if per_model and "models" in values:
        parser.set_defaults(models=_models(path, parser, values.pop("models"), per_model))
    actions = {action.dest: action for action in parser._actions if action.option_strings}
    for key, value in _flat(values):
        action = _action(path, key, {name: each for name, each in actions.items() if name not in ("config", "help")})
        converted = _value(path, key, action, value)
        if isinstance(action, argparse._AppendAction) and getattr(arguments, action.dest) is not None:
            continue  # argparse would append what is given to its default
        parser.set_defaults(**{action.dest: converted})


def _action(path: str, key: str, actions: Mapping[str, argparse.Action]) -> argparse.Action:
    action = actions.get(key.replace("-", "_"))
    if action is None:
        near = nearest_name(key, [name.replace("_", "-") for name in actions])
        raise InvalidArgument(f"{path}: there is no flag {key!r} here" + (f"; did you mean {near!r}?" if near else ""))
    return action


def _models(
    path: str, parser: argparse.ArgumentParser, tables: Any, per_model: Collection[str]
) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InvalidArgument(f"{path}: models holds a table for each model: [models.NAME]")
    actions = {action.dest: action for action in parser._actions if action.dest in per_model}
    return {
        name: {
            (action := _action(path, key, actions)).dest: _value(path, f"models.{name}.{key}", action, value)
            for key, value in table.items()
        }
        for name, table in tables.items()
    }


def _read(path: str) -> dict[str, Any]:
    text = read_given(path)
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
        except ModuleNotFoundError:
            raise Unsupported("--config needs tomli on Python 3.10: pip install 'pagedcore[server]'") from None
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{path}: is not TOML: {error}") from None
    return values


def _flat(values: dict[str, Any]) -> Sequence[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flat(value) if isinstance(value, dict) else [(key, value)]
    return found


def _value(path: str, key: str, action: argparse.Action, value: Any) -> Any:
    several = isinstance(action, argparse._AppendAction)
    if isinstance(action, (argparse.BooleanOptionalAction, argparse._StoreTrueAction)):
        if not isinstance(value, bool):
            raise InvalidArgument(f"{path}: {key} = {value!r} must be true or false")
        return value
    if several and isinstance(value, list):
        return [_converted(path, key, action, item) for item in value]
    converted = _converted(path, key, action, value)
    return [converted] if several else converted


def _converted(path: str, key: str, action: argparse.Action, value: Any) -> Any:
    """As the flag would have it."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidArgument(f"{path}: {key} = {value!r} must be a text or a number")
    kind: Any = action.type or str
    try:
        converted = kind(str(value))
    except ValueError:
        raise InvalidArgument(f"{path}: {key} = {value!r} is no value of --{key}") from None
    if action.choices is not None and converted not in action.choices:
        raise InvalidArgument(f"{path}: {key} = {value!r} must be one of {', '.join(map(str, action.choices))}")
    return converted
