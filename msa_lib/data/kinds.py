"""What a file is, by its first bytes: recognising the files that are something else than data that can be read here.

`something_else` is asked before reading, `damage` after a pickle could not be read. Both end the sentence that begins
with the file's name.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

HEAD = 4096
TORCH = "load it with torch.load, turn the tensors into arrays with .numpy() and pickle those (or numpy.savez)."
AGAIN = "download it again, and compare its size with that on the page"
MAGIC = (  # first bytes -> what it is and how to get the right one
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`."),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip, or tar xf for a .tar.gz)."),
    (b"\x1f\x9d", "is compressed with compress: unpack it first (uncompress)."),
    (b"BZh", "is compressed with bzip2: unpack it first (bunzip2)."),
    (b"\xfd7zXZ\x00", "is compressed with xz: unpack it first (unxz)."),
    (b"\x5d\x00\x00", "is compressed with lzma: unpack it first (unlzma)."),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it first (unzstd)."),
    (b"\x04\x22\x4d\x18", "is compressed with LZ4: unpack it first (lz4 -d)."),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first (7z x) and give the .pkl inside."),
    (b"Rar!\x1a\x07", "is a RAR archive: unpack it first (unrar x) and give the .pkl inside."),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (.h5, .csd of the CMU-MultimodalSDK, or MATLAB 7.3): read it with h5py and "
                           "save padded numpy arrays as an .npz or a pickle of train, valid, test."),
    (b"MATLAB 7.3", "is a MATLAB 7.3 file (HDF5): read it with h5py and save its arrays with numpy.savez."),
    (b"MATLAB 5.0", "is a MATLAB file: read it with scipy.io.loadmat and save its arrays with numpy.savez."),
    (b"PAR1", "is a Parquet table: read it with pandas and save numpy arrays, or a .csv for `msa data encode`."),
    (b"ARROW1", "is an Arrow table: read it with pandas.read_feather and save numpy arrays with numpy.savez."),
    (b"FEA1", "is a Feather table: read it with pandas.read_feather and save numpy arrays with numpy.savez."),
    (b"\x93NUMPY", "is a single .npy array: labels and splits are needed too; save them together with numpy.savez."),
    (b"SQLite format 3\x00", "is an SQLite data base: export its tables as numpy arrays with numpy.savez."),
    (b"%PDF", f"is a PDF document: {AGAIN}."),
    (b"\x89PNG", "is a picture, and features are expected."),
    (b"\xff\xd8\xff", "is a picture, and features are expected."),
    (b"RIFF", "is a recording (WAV or AVI), and features are expected: extract them first."),
    (b"\x1aE\xdf\xa3", "is a video (Matroska), and features are expected: extract them first."),
    (b"ID3", "is a recording (MP3), and features are expected: extract them first."),
    (b"fLaC", "is a recording (FLAC), and features are expected: extract them first."),
    (b"OggS", "is a recording (Ogg), and features are expected: extract them first."),
    (b"\xef\xbf\xbd", f"was changed by a program that took it for text (UTF-8): {AGAIN}."),
    (b"\xc2\x80", f"was changed by a program that took it for text (UTF-8): {AGAIN}."),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", f"is written by torch.save (its old form): {TORCH}"),
)  # fmt: skip
ZLIB = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
OPCODES_OF_TEXT = re.compile(
    rb"\s*(\(?[dlt]p?\d*\r?\n|\(?c[\w.]+\r?\n\w+\r?\n|\(i[\w.]+\r?\n\w+\r?\n|\(?[FILNSVP].*\r?\n)"
)


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def something_else(path: Path) -> str | None:
    """What a file is that is neither a pickle nor an .npz archive, as the rest of a sentence; None if it may be one."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.strip(b"\x00"):
        what = "begins with nothing but zeros, as a broken download does" if head else "is empty (0 bytes)"
        return f"{what}: {AGAIN}."
    for magic, what in MAGIC:
        if head.startswith(magic):
            return what
    if head[:2] in ZLIB:
        return "is compressed with zlib (joblib does so): load it with joblib.load, and pickle plain numpy arrays."
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it first (tar xf) and give the .pkl inside."
    if head[4:8] == b"ftyp":
        return "is a video (MP4), and features are expected: extract them first."
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "is a safetensors file: load it with safetensors.numpy.load_file and save the arrays with numpy.savez."
    if head.startswith(b"PK"):
        return _archive(path)
    return _text(head)


def _archive(path: Path) -> str | None:
    """A zip archive that is no .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # the reader says what is broken
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return f"is written by torch.save: {TORCH}"
    if "[Content_Types].xml" in names:
        return "is an Office document: save its table as .csv for `msa data encode`."
    if names and not any(name.endswith(".npy") for name in names):
        inside = next((n for n in names if n.endswith((".pkl", ".npz", ".pickle"))), names[0])
        return f"is a zip archive that holds {inside[:60]}: unpack it first (unzip) and give the file inside."
    return None


def _text(head: bytes) -> str | None:
    """A text that is no pickle of protocol 0."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "is a text in UTF-16, and a pickle or an .npz archive is expected."
        if error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8-sig")
    if not all(c.isprintable() or c in "\t\r\n\x0c" for c in text):
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<script", "<body", "<meta")) or "<html" in start[:500]:
        return (
            "is a web page, not data (a log-in, a warning or an error of the server): open it in a browser to see "
            "why, and download the file itself."
        )
    if start.startswith("<"):
        return f"is an XML or HTML text, not data: {AGAIN}."
    if start.startswith(("{", "[")):
        return "is JSON text: build numpy arrays from it and pickle a dict of train, valid, test (or use numpy.savez)."
    if OPCODES_OF_TEXT.match(head):
        return None
    if any(separator in text.partition("\n")[0] for separator in ",;\t"):
        return (
            "is a table of text, and a pickle or an .npz archive is expected; a .csv of transcripts and labels is "
            "encoded first (msa data encode)."
        )
    return "is a text, and a pickle or an .npz archive of train, valid, test is expected."


def damage(path: Path) -> str | None:
    """What became of a file that begins like a pickle and cannot be read, as the rest of a sentence."""
    with path.open("rb") as file:
        head = file.read(1 << 20)
    lines, returns = head.count(b"\n"), head.count(b"\r\n")
    if lines >= 8 and lines == returns:
        return (
            f"is a pickle whose line ends were changed to CR LF (copied as text, not as binary), so that it cannot be "
            f"read: {AGAIN}."
        )
    if head.startswith(b"\x80") and head[1:2] > b"\x05":
        return f"is written in pickle protocol {head[1]}, which is none: {AGAIN}."
    return None
