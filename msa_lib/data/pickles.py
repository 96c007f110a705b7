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

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from msa_lib.data.stored import Allowed, Plain, StoredArray, StoredDtype, UnsafePickleError, short

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


def _reconstruct(kind: object, shape: object, code: object) -> StoredArray:
    if kind is not ALLOWED["numpy", "ndarray"]:
        raise UnsafePickleError("a numpy array of another class")
    return StoredArray()


def _frombuffer(
    data: Any, dtype: StoredDtype, shape: tuple[int, ...], order: str, axis_order: object = None
) -> StoredArray:
    if order not in ("C", "F") or axis_order is not None:
        raise UnsafePickleError("a numpy array of unknown memory order")
    array = StoredArray()
    array.set(data, dtype, shape, order)
    return array


def _scalar(dtype: StoredDtype, data: bytes | str) -> np.generic:
    array = StoredArray()
    array.set(data, dtype, (1,), "C")
    if array.items is not None:
        raise UnsafePickleError("a numpy scalar that holds an object")
    return array.value[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise UnsafePickleError(f"_codecs.encode with {short(encoding)}")
    return text.encode("latin1")


def _key(value: object) -> Any:
    """A key of a dict or member of a set: text or a number. Integers beyond 64 bits can be made to collide."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        raise UnsafePickleError("a whole number beyond 64 bits as a key")
    if type(value) not in KEYS and not isinstance(value, np.generic):
        raise UnsafePickleError(f"{short(value)} as a key")
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


def _allowed() -> dict[tuple[str, str], Allowed]:
    calls: dict[tuple[str, str], Callable | None] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): StoredDtype,
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
    return {key: Allowed(".".join(key), call) for key, call in calls.items()}


ALLOWED = _allowed()


def _refuse(what: str) -> Callable:
    def opcode(self: _Unpickler) -> None:
        raise UnsafePickleError(what)

    return opcode


class _Unpickler(pickle._Unpickler):
    """The standard library's own Python version of the machine, whose table of opcodes can be cut down.

    The C version cannot: it would set attributes on any object, and reserves memory for any memo index it is told.
    """

    def find_class(self, module: str, name: str) -> Allowed:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise ForeignClassError(f"{module}.{name}") from None

    def load_reduce(self) -> None:
        args = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not Allowed or target.call is None or type(args) is not tuple:
            raise UnsafePickleError(f"a call of {short(target)}")
        try:
            self.stack[-1] = target.call(*args)
        except TypeError:
            raise UnsafePickleError(f"{target.name} with arguments it does not take") from None

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) not in (StoredArray, StoredDtype) or type(state) is not tuple:
            raise UnsafePickleError(f"attributes for {short(target)}")
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
            raise UnsafePickleError(f"items for {short(self.stack[-1])}")
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
            return Plain(max(LARGEST[0], LARGEST[1] * size)).of(_Unpickler(_File(file, size)).load())
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


KEYS = (str, int, float, bool, bytes, type(None))
