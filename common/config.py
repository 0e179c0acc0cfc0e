"""Frozen dataclasses from the plain values of a config or of a JSON file, and back."""

import dataclasses
import math
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from common.errors import UserFacingError

Config = TypeVar("Config")


def config_of(cls: type[Config], values: dict[str, Any], *, name: str = "config") -> Config:
    """Makes a frozen dataclass of plain values; lists become tuples, dicts nested dataclasses.

    Raises:
        UserFacingError: a key is missing or unknown.
    """
    fields = typing.get_type_hints(cls)
    for key in sorted(fields.keys() ^ values.keys()):
        raise UserFacingError(f"{name}.{key}: {'missing' if key in fields else 'unknown'}")

    def convert(key: str, value: Any) -> Any:
        if dataclasses.is_dataclass(fields[key]) and not isinstance(value, fields[key]):
            return config_of(fields[key], value, name=f"{name}.{key}")
        return tuple(value) if isinstance(value, list) else value

    return cls(**{key: convert(key, value) for key, value in values.items()})


def differences(
    theirs: dict[str, Any], mine: dict[str, Any], *, ignore: Collection[str] = (), prefix: str = ""
) -> list[str]:
    """Returns what differs between two nested dicts of plain values, the keys `ignore` left out."""
    found = []
    for key in sorted(theirs.keys() | mine.keys()):
        there, here = theirs.get(key), mine.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            found += differences(there, here, ignore=ignore, prefix=f"{prefix}{key}.")
        elif there != here and key not in ignore:
            found.append(f"{prefix}{key} is {there} there and {here} here")
    return found


def misfit(value: Any, kind: Any, *, name: str) -> str | None:
    """Returns the name of the first part of a value that is not of its type; None if all are.

    A float is any finite number, a bool no number, and an int not below 0.

    Args:
        value: plain values, and dataclasses of them.
        kind: its type, as an annotation has it: of numbers, texts, tuples, dicts and dataclasses.
        name: of the value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    parts: list[tuple[Any, Any, str]] = []
    if kind is Any:
        return None
    if dataclasses.is_dataclass(kind):
        fits = type(value) is kind
        hints = typing.get_type_hints(kind) if fits else {}
        parts = [(getattr(value, key), hint, f"{name}.{key}") for key, hint in hints.items()]
    elif origin in (types.UnionType, typing.Union):
        fits = any(misfit(value, each, name=name) is None for each in arguments)
    elif origin is tuple:
        fits = isinstance(value, tuple)
        if fits and arguments[-1] is ...:
            parts = [(each, arguments[0], f"{name}[{n}]") for n, each in enumerate(value)]
        elif fits:
            fits = len(value) == len(arguments)
            pairs = zip(value, arguments, strict=False)
            parts = [(each, hint, f"{name}[{n}]") for n, (each, hint) in enumerate(pairs)]
    elif origin is dict:
        fits = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        if fits:
            parts = [(each, arguments[1], f"{name}.{key}") for key, each in value.items()]
    elif kind is float:
        fits = type(value) in (int, float) and math.isfinite(value)
    elif kind is int:
        fits = type(value) is int and value >= 0
    else:
        fits = type(value) is kind
    if not fits:
        return name
    for part, hint, part_name in parts:
        if (found := misfit(part, hint, name=part_name)) is not None:
            return found
    return None
