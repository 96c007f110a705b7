"""The restricted unpickler: everything numpy writes comes back exactly, everything else is refused and never run."""

import collections
import contextlib
import functools
import io
import pickle
import struct

import numpy as np
import pytest

from msa_lib.data import pickles

RAN = []  # what a hostile pickle would append to, if it ran


def run(*args):
    RAN.append(args)
    return args


class Calls:
    """Pickles as the call of `function` with `args`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def written(tmp_path, content, protocol=4):
    path = tmp_path / "file.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def content():
    rng = np.random.default_rng(0)
    return {
        "f4": rng.normal(size=(3, 4, 5)).astype(np.float32),
        "f8": np.asfortranarray(rng.normal(size=(3, 4))),
        "big": rng.normal(size=(300, 1000)).astype(np.float32),  # past the size that is read in place
        "swapped": np.arange(5, dtype=">i4"),
        "half": np.arange(4, dtype=np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "words": np.array(["a", "bcd", "é"]),
        "bytes": np.array([b"a", b"bcd"]),
        "objects": np.array([["text", None], [np.arange(3), {"a": [1]}]], dtype=object),
        "scalar": np.float32(1.5),
        "plain": [1, 2.5, "x", b"y", None, True, (1, (2,)), {3, 4}, frozenset({5}), 10**30, b"", bytearray(b"z")],
        "long": bytes(3 << 20),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    }


def same(a, b):
    if isinstance(a, np.ndarray):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype == object:
            for x, y in zip(a.flat, b.flat, strict=True):
                same(x, y)
        else:
            assert np.array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_numpy_writes_comes_back(tmp_path, protocol):
    expected = content()
    if protocol == 2:
        expected.pop("plain")  # a bytearray in protocol 2 is a call with an encoding
    read = pickles.load(written(tmp_path, expected, protocol))
    assert list(read) == list(expected)
    for key, value in expected.items():
        if key == "objects":
            assert read[key].shape == (2, 2)
            assert read[key][0, 0] == "text"
            assert np.array_equal(read[key][1, 0], np.arange(3))
            assert read[key][1, 1] == {"a": [1]}
        else:
            same(value, read[key])
    assert type(read["ordered"]) is dict
    assert read["big"].flags.writeable
    assert read["f8"].flags.writeable


def test_old_and_new_numpy_module_paths(tmp_path):
    dumped = pickle.dumps(np.arange(3.0), 2)
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        assert np.array_equal(pickles.load(written(tmp_path, dumped.replace(old, new))), np.arange(3.0))


def test_python_2_array(tmp_path):
    """As Python 2 wrote it: protocol 2, the data in a byte string that Python 3 reads as latin1 text."""
    raw = np.arange(100, 103, dtype=np.float64).tobytes()
    dumped = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"U" + bytes([len(raw)]) + raw + b"tbs."
    )  # fmt: skip
    assert np.array_equal(pickles.load(written(tmp_path, dumped))["a"], [100.0, 101.0, 102.0])


def test_shared_and_self_holding_containers(tmp_path):
    part = [np.arange(2)]
    read = pickles.load(written(tmp_path, {"a": part, "b": part}))
    assert read["a"] is read["b"]
    knots = []
    knots.append(knots)
    with pytest.raises(pickles.UnsafePickleError, match="holds itself"):
        pickles.load(written(tmp_path, knots))
    doubled = [0]
    for _ in range(20):  # 2**20 leaves when copied naively; more of them are refused (test_fuzz.py)
        doubled = [doubled, doubled]
    read = pickles.load(written(tmp_path, doubled))
    assert read[0] is read[1]


def stack_global(module, name, *rest):
    """Protocol 4: a global, then the opcodes of `rest`."""
    text = b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name))
    return b"\x80\x04" + text + b"\x93" + b"".join(rest) + b"."


HOSTILE = [
    ("system", b"cos\nsystem\n(S'exit 3'\ntR."),
    ("posix.system", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x06exit 3\x85R."),
    ("builtins.eval", stack_global("builtins", "eval", b"\x8c\x011\x85R")),
    ("builtins.getattr", stack_global("builtins", "getattr", b"N\x85R")),
    ("builtins.object", stack_global("builtins", "object")),
    ("numpy.testing", stack_global("numpy.testing._private.utils", "runstring", b"N\x85R")),
    ("numpy.load", stack_global("numpy", "load", b"N\x85R")),
    ("numpy.core.multiarray.fromfile", stack_global("numpy.core.multiarray", "fromfile", b"N\x85R")),
    ("numpy.ndarray.tofile", stack_global("numpy", "ndarray.tofile")),
    ("torch.storage._load_from_bytes", stack_global("torch.storage", "_load_from_bytes", b"C\x01a\x85R")),
    ("functools.partial", pickle.dumps(functools.partial(run, 1))),
    ("copyreg._reconstructor", b"ccopyreg\n_reconstructor\n(tR."),
    ("test_pickles.run", pickle.dumps(Calls(run, 1))),
    ("os.system", b"(ios\nsystem\n."),
    ("a persistent id", b"P12\n."),
    ("a persistent id", b"\x80\x04NQ."),
    ("an extension code", b"\x80\x02\x82\x01."),
    ("an object of a class", b"\x80\x04cnumpy\nndarray\n)\x81."),
    ("an out-of-band buffer", b"\x80\x05\x97."),
    ("a call of 'x'", b"\x80\x04\x8c\x01x)R."),
    ("a call of numpy.ndarray", b"\x80\x04cnumpy\nndarray\n(K\x01tR."),
    ("numpy.ndarray as a value", b"\x80\x04cnumpy\nndarray\n."),
    ("attributes for numpy.dtype", b"\x80\x04cnumpy\ndtype\n}b."),
    ("attributes for a dict", b"\x80\x02ccollections\nOrderedDict\n)R}\x8c\x01aK\x01sb."),
    ("bytes with arguments", stack_global("builtins", "bytes", b"\x8a\x05\x00\x00\x00\x00\x10\x85R")),
    ("bytearray with arguments", stack_global("builtins", "bytearray", b"\x8a\x05\x00\x00\x00\x00\x10\x85R")),
    ("_codecs.encode", stack_global("_codecs", "encode", b"\x8c\x01a\x8c\x03hex\x86R")),
    ("dtype 'V8'", stack_global("numpy", "dtype", b"\x8c\x02V8\x85R")),
    ("dtype 'f4,O'", stack_global("numpy", "dtype", b"\x8c\x04f4,O\x85R")),
    ("arguments it does not take", stack_global("numpy", "dtype", b")R")),
    ("array of another class", stack_global("numpy.core.multiarray", "_reconstruct", b"NNN\x87R")),
    ("array without data", b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nI0\nNtR."),
]


@pytest.mark.parametrize(("named", "dumped"), HOSTILE, ids=[f"{i}-{h[0]}" for i, h in enumerate(HOSTILE)])
def test_hostile_pickles_are_refused_by_name(tmp_path, named, dumped):
    with pytest.raises(pickles.UnsafePickleError) as refusal:
        pickles.load(written(tmp_path, dumped))
    assert named in str(refusal.value)
    assert str(refusal.value).count(".pkl") == 1
    assert not RAN


def array_of(code, flags, data, shape=b"K\x01\x85"):
    """A protocol-2 array pickle whose dtype code and flags, shape and data opcodes are given."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"tb\x89" + data + b"tb."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dumped", "named"),
    [
        (array_of(b"O8", b"K\x00", b"U\x08ABCDEFGH"), "object array without its list"),  # forged object pointers
        (array_of(b"f8", b"K\x00", b"U\x04ABCD"), "do not fill its shape"),
        (array_of(b"S0", b"K\x00", b"U\x00", b"J\xff\xff\xff\x7f\x85"), "do not fill its shape"),
        (array_of(b"f8", b"K\x00", b"U\x08ABCDEFGH", b"J\xff\xff\xff\xff\x85"), "forged type or shape"),
        (array_of(b"f8", b"K\x3f", b"]"), "do not fill its shape"),
    ],
)
def test_forged_arrays_are_refused(tmp_path, dumped, named):
    with pytest.raises(pickles.UnsafePickleError, match=named):
        pickles.load(written(tmp_path, dumped))


def test_structured_dtypes_are_refused(tmp_path):
    with pytest.raises(pickles.UnsafePickleError, match="numpy dtype"):
        pickles.load(written(tmp_path, np.zeros(2, dtype=[("a", "f4"), ("b", "O")])))


def test_the_real_thing_is_not_run(tmp_path, monkeypatch):
    """The same bytes do run under the standard library: the test would notice."""
    dumped = pickle.dumps([Calls(run, "here")])
    pickle.loads(dumped)
    assert RAN == [("here",)]
    RAN.clear()
    with pytest.raises(pickles.UnsafePickleError):
        pickles.load(written(tmp_path, dumped))
    assert RAN == []


@pytest.mark.parametrize(
    "dumped",
    [
        b"",
        b"not a pickle at all",
        b"PK\x03\x04....",
        b"\x80\x63.",
        pickle.dumps(content())[:-100],
        pickle.dumps(np.zeros(1 << 20))[:2000],
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",  # BINBYTES8 of a terabyte
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame
        b"\x80\x02(" * 5000 + b".",
    ],
)
def test_what_is_no_pickle_gets_one_sentence(tmp_path, dumped):
    with pytest.raises(ValueError, match=r"file\.pkl") as refusal:
        pickles.load(written(tmp_path, dumped))
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_a_huge_memo_index_costs_nothing(tmp_path):
    assert pickles.load(written(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f.")) is None


def test_deep_nesting_is_one_sentence(tmp_path):
    deep = io.BytesIO()
    deep.write(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(pickles.UnsafePickleError, match="more than 64 containers within each other"):
        pickles.load(written(tmp_path, deep.getvalue()))


def test_changed_bytes_give_values_or_one_sentence(tmp_path):
    rng = np.random.default_rng(0)
    for protocol in (2, 4, 5):
        sound = bytearray(pickle.dumps({k: v for k, v in content().items() if k not in ("big", "plain")}, protocol))
        for _ in range(300):
            changed = bytearray(sound)
            for place in rng.integers(0, len(sound), 3):
                changed[place] = rng.integers(0, 256)
            with contextlib.suppress(ValueError):
                pickles.load(written(tmp_path, bytes(changed)))
