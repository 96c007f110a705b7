"""Reading pickles from the internet without running them: numpy arrays and plain containers, nothing else.

A pickle is a program for a stack machine. Here that machine can only build None, bool, int, float, str, bytes, list,
tuple, dict and set; a global name it asks for is looked up in `ALLOWED` and never imported. The numpy names of that
table stand for functions of this module, which check every argument before numpy sees it (numpy's own `__setstate__`
takes a dtype's flags on trust, and with forged flags it would read file bytes as object pointers). Calling anything
else, attributes, persistent ids, extension codes and classes are refused, and the refusal names what was found.

Keys of dicts and members of sets are texts and numbers: the hash of nested tuples can end the process or never end. How
deep containers lie in each other is bounded, and how large everything is with each shared part counted as often as it
is met, so that nothing that walks through the result takes longer than a file of that size would.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DTYPE = re.compile(r"[<>|=]?(b1|\?|[iu][1248]|[fc](2|4|8|16)|[SU]\d{1,6}|O8?|O4)")
DEEPEST = 64  # containers within each other
LARGEST = 1 << 30, 64  # bytes of what a file holds, shared parts counted each time: at least this, or so often its size
IN_PLACE = 1 << 20  # byte strings from this size on are read once, into memory an array can own


FOREIGN = {  # package of a class that a pickle asks for -> what its objects are, and how they become arrays
    "torch": ("torch tensor", "tensor.numpy()"),
    "pandas": ("pandas DataFrame or Series", "frame.to_numpy()"),
    "scipy": ("scipy sparse array", ".toarray()"),
    "tensorflow": ("tensorflow tensor", "tensor.numpy()"),
    "jax": ("jax array", "numpy.asarray"),
    "jaxlib": ("jax array", "numpy.asarray"),
    "joblib": ("joblib array", "joblib.load, then pickle.dump"),
    "numpy": ("special numpy array", "numpy.asarray"),
    "collections": ("special container", "dict or list"),
    "datetime": ("date", "a number or text"),
    "pathlib": ("path", "str"),
}


class UnsafePickleError(ValueError):
    """The pickle asks for something a data file has no use for."""


class ForeignClassError(UnsafePickleError):
    """The pickle asks for a global name that is not among the allowed ones."""


class _File:
    """A file that refuses to read more than it holds, so that a declared size cannot ask for memory."""

    def __init__(self, file, size: int) -> None:
        self.file, self.size = file, size
        self.readline = file.readline

    def read(self, n: int = -1) -> bytes:
        self.admit(n)
        return self.file.read(n)

    def readinto(self, buffer) -> int:
        return self.file.readinto(buffer)

    def admit(self, n: int) -> None:
        if n > self.size:
            raise EOFError(f"it announces {n:,} bytes and is {self.size:,} bytes long")


class _Dtype:
    """Stands for a numpy dtype while it is unpickled."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise UnsafePickleError(f"the numpy dtype {_short(code)}")
        self.value = np.dtype("O" if code.lstrip("<>|=").startswith("O") else code)

    def build(self, state: tuple) -> None:
        """The state numpy writes: version, byte order, then only the defaults of a simple dtype."""
        version, order, *structure, itemsize = state[:6]
        plain = isinstance(version, int) and order in ("<", ">", "|", "=") and structure == [None] * 3
        metadata = state[8] if len(state) > 8 else None
        if not plain or itemsize not in (-1, self.value.itemsize) or metadata:
            raise UnsafePickleError("a structured numpy dtype")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands for a numpy array while it is unpickled; `value` is the array, `items` what an object array holds."""

    value: np.ndarray | None = None
    items: list | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.set(data, dtype, shape, "F" if fortran else "C")

    def set(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        if type(dtype) is not _Dtype or type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
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


class _Allowed(NamedTuple):
    """A global name that may be asked for, and what calling it does (None: it is only ever an argument)."""

    name: str
    call: Callable | None


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind is not ALLOWED["numpy", "ndarray"]:
        raise UnsafePickleError("a numpy array of another class")
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str, axis_order: object = None) -> _Array:
    if order not in ("C", "F") or axis_order is not None:
        raise UnsafePickleError("a numpy array of unknown memory order")
    array = _Array()
    array.set(data, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    array = _Array()
    array.set(data, dtype, (1,), "C")
    if array.items is not None:
        raise UnsafePickleError("a numpy scalar that holds an object")
    return array.value[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise UnsafePickleError(f"_codecs.encode with {_short(encoding)}")
    return text.encode("latin1")


def _key(value: object) -> Any:
    """A key of a dict or member of a set: text or a number. Integers beyond 64 bits can be made to collide."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        raise UnsafePickleError("a whole number beyond 64 bits as a key")
    if type(value) not in KEYS and not isinstance(value, np.generic):
        raise UnsafePickleError(f"{_short(value)} as a key")
    return value


def _container(kind: type, sources: tuple[type, ...]) -> Callable:
    """`kind()` or `kind(source)`, for a source of the given types only: bytes(10**12) would ask for memory."""

    def make(*args: Any) -> Any:
        if len(args) > 1 or (args and type(args[0]) not in sources):
            raise UnsafePickleError(f"{kind.__name__} with arguments that are no plain container")
        if kind in (set, frozenset) and args:
            return kind(map(_key, args[0]))
        if kind is dict and args:
            pairs = args[0]
            if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
                raise UnsafePickleError("an OrderedDict of something else than pairs")
            return {_key(key): value for key, value in pairs}
        return kind(*args)

    return make


def _allowed() -> dict[tuple[str, str], _Allowed]:
    calls: dict[tuple[str, str], Callable | None] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _container(dict, (list,)),
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        calls[f"{core}.multiarray", "scalar"] = _scalar
        calls[f"{core}.numeric", "_frombuffer"] = _frombuffer
    for builtins in ("builtins", "__builtin__"):
        calls[builtins, "set"] = _container(set, (list,))
        calls[builtins, "frozenset"] = _container(frozenset, (list,))
        calls[builtins, "bytearray"] = _container(bytearray, (bytes, np.ndarray))
        calls[builtins, "bytes"] = _container(bytes, ())
    return {key: _Allowed(".".join(key), call) for key, call in calls.items()}


ALLOWED = _allowed()


def _refuse(what: str) -> Callable:
    def opcode(self: _Unpickler) -> None:
        raise UnsafePickleError(what)

    return opcode


class _Unpickler(pickle._Unpickler):
    """The standard library's own Python version of the machine, whose table of opcodes can be cut down.

    The C version cannot: it would set attributes on any object, and reserves memory for any memo index it is told.
    """

    def find_class(self, module: str, name: str) -> _Allowed:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise ForeignClassError(f"{module}.{name}") from None

    def load_reduce(self) -> None:
        args = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not _Allowed or target.call is None or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {_short(target)}")
        try:
            self.stack[-1] = target.call(*args)
        except TypeError:
            raise UnsafePickleError(f"{target.name} with arguments it does not take") from None

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) not in (_Array, _Dtype) or type(state) is not tuple:
            raise UnsafePickleError(f"attributes for {_short(target)}")
        try:
            target.build(state)
        except (TypeError, ValueError) as error:
            if isinstance(error, UnsafePickleError):
                raise
            raise UnsafePickleError("a numpy array in a forged state") from None

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_key(items[i]): items[i + 1] for i in range(0, len(items), 2)})

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._target(dict)[_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self._target(dict)
        for i in range(0, len(items), 2):
            target[_key(items[i])] = items[i + 1]

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._target(set).update(map(_key, items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    def _target(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise UnsafePickleError(f"items for {_short(self.stack[-1])}")
        return self.stack[-1]

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii", "replace") for _ in range(2))
        raise UnsafePickleError(f"an object of class {module}.{name}")

    def _bytes(self, size: int) -> None:
        """A byte string; a large one goes straight into memory that an array can own, so it is never held twice."""
        if size < IN_PLACE or self._unframer.current_frame:
            self.append(self.read(size))
            return
        self.source.admit(size)
        data = np.empty(size, np.uint8)
        if self.source.readinto(data) != size:
            raise EOFError("it ends inside an array")
        self.append(data)

    def load_binbytes(self) -> None:
        self._bytes(struct.unpack("<I", self.read(4))[0])

    def load_binbytes8(self) -> None:
        self._bytes(struct.unpack("<Q", self.read(8))[0])

    def __init__(self, source: _File) -> None:
        super().__init__(source, fix_imports=False, encoding="latin1")
        self.source = source

    dispatch = {  # noqa: RUF012 (the base class's own attribute)
        **pickle._Unpickler.dispatch,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.BINBYTES[0]: load_binbytes,
        pickle.BINBYTES8[0]: load_binbytes8,
        pickle.BYTEARRAY8[0]: load_binbytes8,
        **{op[0]: _refuse("a persistent id") for op in (pickle.PERSID, pickle.BINPERSID)},
        **{op[0]: _refuse("an extension code (copyreg)") for op in (pickle.EXT1, pickle.EXT2, pickle.EXT4)},
        **{op[0]: _refuse("an out-of-band buffer") for op in (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)},
        **{op[0]: _refuse("an object of a class") for op in (pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX)},
        pickle.INST[0]: load_inst,
    }


def load(path: str | Path) -> object:
    """What a pickle holds: numpy arrays, scalars, and plain containers of them (an OrderedDict comes as a dict).

    Raises UnsafePickleError (a ValueError) with one sentence naming what else the file asks for, ValueError when it is
    no complete pickle. Nothing of the file is ever run or imported.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return _Plain(max(LARGEST[0], LARGEST[1] * size)).of(_Unpickler(_File(file, size)).load())
        except ForeignClassError as error:
            name = " ".join(str(error).split())[:120]
            raise UnsafePickleError(f"{path.name} {_foreign(name)}") from None
        except UnsafePickleError as error:
            what = " ".join(str(error).split())[:120]
            raise UnsafePickleError(
                f"{path.name} asks for {what}, and nothing was run: expected only numpy arrays and plain containers."
            ) from None
        except MemoryError:
            raise ValueError(f"{path.name} announces more than fits into memory.") from None
        except Exception as error:  # hostile bytes can fail anywhere in the machine
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ValueError(f"{path.name} is not a complete pickle: {reason}.") from None


def _foreign(name: str) -> str:
    """The refusal of a global name, with the way out where it is that of a known kind of object."""
    kind, way = FOREIGN.get(name.partition(".")[0], ("", ""))
    if name.startswith("numpy.") and not name.startswith(("numpy.ma.", "numpy.matrix", "numpy.rec")):
        kind = ""
    if not kind:
        return f"asks for {name}, and nothing was run: expected only numpy arrays and plain containers."
    return (
        f"holds objects of class {name} ({kind}), and nothing was run: convert them with {way} and save numpy arrays "
        f"in plain containers."
    )


SIMPLE = (str, int, float, bool, bytes, bytearray, type(None))
KEYS = (str, int, float, bool, bytes, type(None))
OPEN = object()  # marks a container whose inside is being converted


class _Plain:
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
        if kind is not _Array:
            raise UnsafePickleError(f"{_short(value)} as a value")
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


def _short(value: object) -> str:
    """A few words for a value in a message."""
    if type(value) is _Allowed:
        return value.name
    return repr(value)[:40] if type(value) in SIMPLE else f"a {type(value).__name__.strip('_').lower()}"
