"""Files that are something else: one sentence says what they are and how to get the right one, by their content."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from mmsa_files import parts

from msa_lib.data import check, kinds, load_dataset, pickles


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), content)
    return buffer.getvalue()


def tarred(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("aligned_50.pkl")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def saved(value, **how):
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def safetensors():
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


GOOD = pickle.dumps(parts(), 4)
TEXTUAL = pickle.dumps(parts(), 0)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 385024115\n".encode()
CASES = {
    "pointer": (POINTER, "Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html><html><head><title>Can't scan</title></head></html>", "is a web page, not data"),
    "page with a mark": (b"\xef\xbb\xbf\r\n  <HTML><body>Sign in</body></HTML>", "is a web page, not data"),
    "page in a comment": (b"<!-- saved --><html><body>404</body></html>", "is a web page, not data"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML or HTML text"),
    "gzip": (gzip.compress(GOOD), "compressed with gzip: unpack it first"),
    "bzip2": (bz2.compress(GOOD), "compressed with bzip2: unpack it first"),
    "xz": (lzma.compress(GOOD), "compressed with xz: unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(range(99)), "compressed with Zstandard: unpack it first"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(range(99)), "compressed with LZ4: unpack it first"),
    "zlib, as of joblib": (zlib.compress(GOOD), "joblib.load"),
    "tar": (tarred(GOOD), "is a tar archive: unpack it first"),
    "zip": (zipped(aligned_50_pkl=GOOD), r"is a zip archive that holds aligned_50\.pkl: unpack it first"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(200), "is a 7z archive: unpack it first"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(200), "is a RAR archive: unpack it first"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(300), "is an HDF5 file.*h5py"),
    "mat 7.3": (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500), "MATLAB 7.3 file"),
    "mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500), "scipy.io.loadmat"),
    "parquet": (b"PAR1\x15\x04" + bytes(90), "is a Parquet table"),
    "feather": (b"ARROW1\x00\x00" + bytes(90), "is an Arrow table"),
    "npy": (npy(np.zeros((3, 2))), r"is a single \.npy array"),
    "json": (b'{"train": {"text": [1, 2]}}', "is JSON text"),
    "json, a long list": (json.dumps([{"a": "ü" * 5000}], ensure_ascii=False).encode(), "is JSON text"),
    "csv": (b"video_id,clip_id,text,label\nv,1,good.,1.0\n", "is a table of text.*msa data encode"),
    "tsv in Chinese": ("id\t文本\n1\t闭嘴\n".encode() * 900, "is a table of text"),
    "text": (b"not a pickle at all", "is a text, and a pickle or an .npz archive"),
    "utf-16": ("id,text\n1,a\n".encode("utf-16"), "text in UTF-16"),
    "nothing": (b"", r"is empty \(0 bytes\)"),
    "zeros": (bytes(5000), "begins with nothing but zeros"),
    "torch.save": (saved({"train": torch.zeros(2, 3)}), r"is written by torch\.save: load it with torch\.load"),
    "torch.save, old": (
        saved({"train": torch.zeros(2, 3)}, _use_new_zipfile_serialization=False),
        r"is written by torch\.save \(its old form\): load it with torch\.load",
    ),
    "line ends": (TEXTUAL.replace(b"\n", b"\r\n"), "line ends were changed to CR LF"),
    "line ends of a binary file": (GOOD.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), "line ends were changed"),
    "read as text": (GOOD.decode("latin1").encode(), r"took it for text \(UTF-8\)"),
    "read as bad text": (GOOD.decode("utf-8", "replace").encode(), r"took it for text \(UTF-8\)"),
    "half of it": (GOOD[: len(GOOD) // 2], "is not a complete pickle"),
    "safetensors": (safetensors(), "is a safetensors file"),
    "office": (zipped(**{"[Content_Types].xml": "<x/>"}), "is an Office document"),
    "pdf": (b"%PDF-1.7\n" + bytes(range(99)), "is a PDF document"),
    "video": (b"\x00\x00\x00\x18ftypmp42" + bytes(99), "is a video"),
}


@pytest.mark.parametrize("suffix", ["pkl", "npz", "csv"])
@pytest.mark.parametrize("case", CASES)
def test_one_sentence_says_what_a_file_is(tmp_path, case, suffix):
    content, message = CASES[case]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^x\.{suffix} .*{message}") as refusal:
        load_dataset(str(path))
    assert "\n" not in str(refusal.value)
    assert check.describe(path)["problems"] == [str(refusal.value)]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_good_pickle_is_nothing_else(tmp_path, protocol):
    """Protocols 0 and 1 are read as well where numpy's own state allows it; never taken for a text."""
    path = tmp_path / "x.csv"  # by content, not by name
    path.write_bytes(pickle.dumps(parts(), protocol))
    assert kinds.something_else(path) is None
    assert kinds.damage(path) is None
    assert len(load_dataset(str(path)).train) == 7


def test_a_pickle_that_is_all_text_is_a_pickle(tmp_path):
    content = {s: {"label": [1.5, -2.0, 0.25], "audio": [[0.5, 1.0]] * 3} for s in ("train", "valid", "test")}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, 0))
    assert path.read_bytes().isascii()
    assert load_dataset(str(path)).test.labels.tolist() == [1.5, -2.0, 0.25]


class Sample:
    """A class of someone's own."""


FOREIGN = {
    "a tensor": (torch.zeros(2), r"holds objects of class torch\._utils\._rebuild_tensor_v2 \(torch tensor\).*numpy"),
    "a frame": (pd.DataFrame({"a": [1]}), r"class pandas\.\S*DataFrame \(pandas DataFrame or Series\).*to_numpy"),
    "a series": (pd.Series([1.0]), r"class pandas\.\S*Series \(pandas.*to_numpy"),
    "a masked array": (np.ma.masked_array([1.0]), r"class numpy\.ma\.\S+ \(special numpy array\).*numpy\.asarray"),
    "own": (Sample(), r"asks for \S*copyreg\._reconstructor|asks for \S*Sample"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_objects_of_other_libraries_are_named_with_the_way_out(tmp_path, case):
    value, message = FOREIGN[case]
    content = parts()
    content["train"]["text"] = value
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(pickles.UnsafePickleError, match=rf"^x\.pkl .*({message})") as refusal:
        load_dataset(str(path))
    assert "nothing was run" in str(refusal.value)
    assert "\n" not in str(refusal.value)
