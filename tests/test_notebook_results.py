"""The result file of a notebook: plain JSON, whole or absent, missing values as null."""

from pathlib import Path

import numpy as np
import pytest

from msa_lib.notebooks import read_result, write_result


def test_result_round_trip(tmp_path: Path):
    content = {
        "mae": np.float32(0.5), "runs": np.array([[1.0, np.nan]]), "n": np.int64(3), "ok": np.bool_(True),
        "missing": float("nan"), "pair": (1, None), "text": "é",
    }  # fmt: skip
    path = tmp_path / "new" / "x.json"
    write_result(path, {"seeds": [1], "result": str(path)}, content)
    plain = {"mae": 0.5, "runs": [[1.0, None]], "n": 3, "ok": True, "missing": None, "pair": [1, None], "text": "é"}
    assert read_result(path) == {"parameters": {"seeds": [1]}, "content": plain}
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"a": [1, {"m": float("inf")}]}, ValueError, r"content\['a'\]\[1\]\['m'\] is inf"),
        ({"a": {5: 1}}, TypeError, r"content\['a'\] has the key 5"),
        ({"a": Path("x")}, TypeError, r"content\['a'\] is a PosixPath"),
    ],
)
def test_result_holds_only_what_json_can(tmp_path: Path, content: dict, error: type[Exception], words: str):
    path = tmp_path / "x.json"
    path.write_text("earlier")
    for target in (path, ""):
        with pytest.raises(error, match=words):
            write_result(target, {}, content)
    assert path.read_text() == "earlier"


def test_empty_path_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_result("", {"a": 1}, {"b": 2})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"parameters": {}}', '{"parameters": {}, "content": 3}'])
def test_other_files_are_no_results(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="was expected"):
        read_result(tmp_path / "x.json")
