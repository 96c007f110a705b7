"""Named choices, checked: a wrong or mistyped name or value raises one sentence that names the right ones."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Literal, Union, get_args, get_origin, get_type_hints


def checked(config: type, values: dict, what: str):
    """`config(**values)` with every name and type checked; integers pass for floats, lists for tuples."""
    hints = get_type_hints(config)
    known = [f.name for f in fields(config)]
    clean = {}
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? The names are" if near else "the names are"
            raise ValueError(f"No {what} {name!r}: {hint} {', '.join(known)}.")
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            raise ValueError(f"{what} {name}={value!r}: expected {_words(hints[name])}.")
        clean[name] = _as_floats(value, hints[name])
    missing = [f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING]
    if absent := [name for name in missing if name not in clean]:
        raise ValueError(f"{what} {absent[0]} is needed.")
    return config(**clean)


def _as_floats(value: object, hint: object) -> object:
    """Integers where floats are meant become floats, so that 1 and 1.0 are the same choice."""
    if hint is float:
        return float(value)
    if get_origin(hint) is tuple and set(get_args(hint)) <= {float, ...}:
        return tuple(map(float, value))
    return value


def _fits(value: object, hint: object) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return any(_fits(value, a) for a in arguments)
    if origin is tuple:
        inner = arguments[:1] * len(value) if isinstance(value, tuple) and arguments[-1] is ... else arguments
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _words(hint: object) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(a) for a in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {', '.join('...' if a is ... else _words(a) for a in get_args(hint))}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    return words.get(hint, str(hint))
