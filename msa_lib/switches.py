"""Named choices: checked (a wrong or mistyped name or value raises one sentence that names the right ones), and listed
with the comment that stands beside each in its source.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
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
            raise ValueError(f"No {what} {name!r}: {hint} {', '.join(known) or 'none'}.")
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


def listing(config: type, width: int = 110) -> str:
    """Every field of a config that has a plain default: `name = default`, its choices, and the comments in the source.

    A comment on the lines of a field, or right below one, is its own; one after a blank line heads what follows.
    """
    hints, (own, heads), lines = get_type_hints(config), _comments(config), []
    for field in fields(config):
        if heads.get(field.name):
            lines += ["", *textwrap.wrap(heads[field.name], width, initial_indent="  # ", subsequent_indent="  # ")]
        if field.default is MISSING:
            continue
        lines += textwrap.wrap(
            f"{field.name} = {field.default!r}  ({_words(hints[field.name])})",
            width, initial_indent="  ", subsequent_indent=" " * 6, break_on_hyphens=False,
        )  # fmt: skip
        indent = " " * 6
        lines += textwrap.wrap(own.get(field.name, ""), width, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines) or "  none"


def _comments(config: type) -> tuple[dict[str, str], dict[str, str]]:
    """Field -> the comment that is its own, and field -> the comment that heads it and what follows."""
    source = textwrap.dedent(inspect.getsource(config))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {line: text for line, text in found.items() if not text.startswith(("noqa", "fmt:"))}
    (parsed,) = ast.parse(source).body
    own, heads, below = {}, {}, parsed.lineno + 1  # `below`: the first line after what belongs to the field before
    for node in parsed.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        name, end = node.target.id, node.end_lineno + 1
        heads[name] = " ".join(found[line] for line in range(below, node.lineno) if line in found)
        beside = [found[line] for line in range(node.lineno, end) if line in found]
        while beside and end in found and source.splitlines()[end - 1].lstrip().startswith("#"):
            beside.append(found[end])
            end += 1
        own[name], below = " ".join(beside), end
    return own, heads
