"""What stands for numpy's objects while pickles.py reads a pickle, and how the result is taken out of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

DTYPE = re.compile(r"[<>|=]?(b1|\?|[iu][1248]|[fc](2|4|8|16)|[SU]\d{1,6}|O8?|O4)")
DEEPEST = 64  # containers within each other
SIMPLE = (str, int, float, bool, bytes, bytearray, type(None))
OPEN = object()  # marks a container whose inside is being converted


class UnsafePickleError(ValueError):
    """The pickle asks for something a data file has no use for."""


class StoredDtype:
    """Stands for a numpy dtype while it is unpickled."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise UnsafePickleError(f"the numpy dtype {short(code)}")
        self.value = np.dtype("O" if code.lstrip("<>|=").startswith("O") else code)

    def build(self, state: tuple) -> None:
        """The state numpy writes: version, byte order, then only the defaults of a simple dtype."""
        version, order, *structure, itemsize = state[:6]
        plain = isinstance(version, int) and order in ("<", ">", "|", "=") and structure == [None] * 3
        metadata = state[8] if len(state) > 8 else None
        if not plain or itemsize not in (-1, self.value.itemsize) or metadata:
            raise UnsafePickleError("a structured numpy dtype")
        self.value = self.value.newbyteorder(order)


class StoredArray:
    """Stands for a numpy array while it is unpickled; `value` is the array, `items` what an object array holds."""

    value: np.ndarray | None = None
    items: list | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.set(data, dtype, shape, "F" if fortran else "C")

    def set(self, data: Any, dtype: StoredDtype, shape: tuple[int, ...], order: str) -> None:
        if (
            type(dtype) is not StoredDtype
            or type(shape) is not tuple
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise UnsafePickleError("a numpy array of a forged type or shape")
        count = math.prod(shape)
        if dtype.value.hasobject:
            if type(data) is not list or len(data) != count:
                raise UnsafePickleError("a numpy object array without its list of objects")
            self.value, self.items = np.empty(count, object).reshape(shape, order=order), data
            return
        if type(data) is str:  # what Python 2 wrote
            data = data.encode("latin1")
        fills = type(data) in (bytes, bytearray, np.ndarray) and len(data) == count * dtype.value.itemsize
        if not fills or (count and not len(data)):
            raise UnsafePickleError("a numpy array whose data do not fill its shape")
        array = np.frombuffer(data, dtype.value) if count else np.empty(0, dtype.value)
        self.value = (array if array.flags.writeable else array.copy()).reshape(shape, order=order)


class Allowed(NamedTuple):
    """A global name that may be asked for, and what calling it does (None: it is only ever an argument)."""

    name: str
    call: Callable | None


class Plain:
    """Replaces the stand-ins by what they stand for; a part that is shared stays shared."""

    def __init__(self, most: int) -> None:
        self.most = most  # bytes of any part, what it shares counted each time
        self.done: dict[int, tuple[Any, Any, int]] = {}  # id -> (kept alive, result, size)

    def of(self, value: Any, depth: int = 0) -> Any:
        return self._sized(value, depth)[0]

    def _sized(self, value: Any, depth: int) -> tuple[Any, int]:
        """The result and its size in bytes, roughly."""
        kind = type(value)
        if kind in SIMPLE or isinstance(value, np.generic):
            return value, 8 + (len(value) if kind in (str, bytes, bytearray) else 0)
        if id(value) in self.done:
            _, result, size = self.done[id(value)]
            if result is OPEN:
                raise UnsafePickleError("a container that holds itself")
            return result, size
        if depth >= DEEPEST:
            raise UnsafePickleError(f"more than {DEEPEST} containers within each other")
        self.done[id(value)] = (value, OPEN, 0)
        result, size = self._converted(value, kind, depth + 1)
        if size > self.most:
            raise UnsafePickleError(f"more than {self.most:,} bytes, by sharing parts")
        self.done[id(value)] = (value, result, size)
        return result, size

    def _converted(self, value: Any, kind: type, depth: int) -> tuple[Any, int]:
        if kind in (set, frozenset):
            return value, 8 + sum(self._sized(v, depth)[1] for v in value)
        if kind is dict:
            parts = [self._sized(v, depth) for v in value.values()]
            return dict(zip(value, (v for v, _ in parts), strict=True)), 8 + sum(8 + size for _, size in parts)
        if kind in (list, tuple):
            parts = [self._sized(v, depth) for v in value]
            return kind(v for v, _ in parts), 8 + sum(size for _, size in parts)
        if kind is np.ndarray:  # a large byte string on its own
            return value.tobytes(), value.nbytes
        if kind is not StoredArray:
            raise UnsafePickleError(f"{short(value)} as a value")
        if value.value is None:
            raise UnsafePickleError("a numpy array without data")
        if value.items is None:
            return value.value, 8 + value.value.nbytes
        parts = [self._sized(v, depth) for v in value.items]
        flat = np.empty(value.value.size, object)
        for i, (item, _) in enumerate(parts):
            flat[i] = item
        order = "F" if value.value.flags.fnc else "C"
        return flat.reshape(value.value.shape, order=order), 8 + sum(size for _, size in parts)


def short(value: object) -> str:
    """A few words for a value in a message."""
    if type(value) is Allowed:
        return value.name
    return repr(value)[:40] if type(value) in SIMPLE else f"a {type(value).__name__.removeprefix('Stored').lower()}"
