"""Token features of transcripts: a CSV of texts and labels, through a text encoder, into a packed data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from msa_lib.data import clean, kinds, pack, readers
from msa_lib.data.encoders import load_encoder
from msa_lib.data.names import part_of

UNIMODAL = ("label_T", "label_A", "label_V")
POOLS = (None, "mean", "cls")


def encode(
    table: str | Path,
    encoder: str,
    out: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    split: str = "split",
    id: str = "clip_id",
    max_length: int = 50,
    batch_size: int = 64,
    pool: str | None = None,
    device: str | torch.device | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Path:
    """Encodes the transcripts of a CSV and writes the packed data set `out`.

    `text`, `label`, `split` and `id` are columns of the table (`video_id`, where there is one, becomes part of the id).
    Features are the last hidden states [N,T,D], special tokens included, T at most `max_length`; `pool` "mean" or
    "cls" keeps one vector per sample instead (and no tokens). Audio and vision are missing. `limit` takes the first
    rows of each split only. The encoder's name is kept as given, so that a run can fine-tune it.
    Raises ValueError, FileNotFoundError or FileExistsError with one sentence.
    """
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; expected None, mean or cls.")
    rows, said = read_table(table, text, label, split, id)
    if limit is not None:
        rows = rows.groupby("split", sort=False).head(limit).reset_index(drop=True)
    absent = [s for s in pack.SPLITS if not (rows["split"] == s).any()]
    if absent:
        raise ValueError(f"{Path(table).name} has no {absent[0]} rows; expected train, valid and test.")
    with pack.Writer(out) as writer:  # before the model is loaded: an existing folder is refused at once
        tokenizer, model = load_encoder(encoder)
        max_length = min(max_length, tokenizer.model_max_length)
        tokens, cut = tokenize(tokenizer, rows["text"].tolist(), max_length)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        width = model.config.hidden_size
        at = {s: np.flatnonzero(rows["split"] == s) for s in pack.SPLITS}
        steps = tokens.shape[-1] if pool is None else 1
        features = {s: writer.array(s, "text", (len(at[s]), steps, width)) for s in pack.SPLITS}
        where = np.empty(len(rows), np.int64)  # row of the table -> row of its split
        for index in at.values():
            where[index] = np.arange(len(index))
        which = rows["split"].to_numpy()
        for index, hidden in hidden_states(model.to(place), tokens, batch_size, pool, progress):
            for s in pack.SPLITS:
                here = which[index] == s
                features[s][where[index[here]], : hidden.shape[1]] = hidden[here]
        lengths = tokens[:, 1].sum(-1) if pool is None else np.ones(len(rows), np.int64)
        for s, index in at.items():
            features[s].flush()
            _put_rest(writer, s, rows.iloc[index], lengths[index], tokens[index] if pool is None else None)
        labels = rows["label"].to_numpy()
        what = "last hidden states" if pool is None else f"{pool} of the last hidden states"
        notes = [f"text: {what} of {encoder}, at most {max_length} tokens ({cut:,} of {len(rows):,} transcripts cut)."]
        notes += ["audio and vision are missing.", *said]
        if limit is not None:
            notes.append(f"only the first {limit:,} samples of each split were encoded.")
        return writer.finish(
            name=Path(out).stem,
            scale=readers.label_scale(labels),
            language=readers.language_of(tuple(rows["text"])),
            synthetic=False,
            encoder=str(encoder) if pool is None else None,
            notes=notes,
        )


def read_table(table: str | Path, text: str, label: str, split: str, id: str) -> tuple[pd.DataFrame, list[str]]:
    """The CSV as columns text, label, split, id (and label_T, label_A, label_V where filled in), checked; and notes.

    A table without the column "split" is read by "mode", as MMSA's own tables call it.
    """
    path = Path(table)
    if path.is_dir() or not path.exists():
        raise FileNotFoundError(f"No table {path}.")
    frame, said = _csv(path, (text, id, split, "video_id", "mode")), []
    if split == "split" and split not in frame and "mode" in frame:
        split = "mode"
        said.append("the split is the column mode.")
    lacking = [c for c in (text, label, split, id) if c not in frame]
    if lacking:
        raise ValueError(f"{path.name} has no column {lacking[0]!r}; its columns are {', '.join(frame.columns)}.")
    ids = frame["video_id"] + "$_$" + frame[id] if "video_id" in frame and id != "video_id" else frame[id]
    rows = pd.DataFrame({"text": frame[text], "label": frame[label], "split": frame[split], "id": ids})
    labels = ["label"]  # MMSA's tables of MOSI and MOSEI have columns for unimodal labels and leave them empty
    if set(UNIMODAL) <= set(frame) and not frame[list(UNIMODAL)].isna().all(axis=None):
        rows[list(UNIMODAL)] = frame[list(UNIMODAL)]
        labels += UNIMODAL
    rows[labels] = rows[labels].apply(pd.to_numeric, errors="coerce")
    rows[labels] = rows[labels].where(rows[labels].abs() <= clean.LARGEST)
    rows["text"] = rows["text"].where(rows["text"].str.strip() != "")
    for column, meaning in {"text": text, "split": split, "id": id, **{c: c for c in labels}}.items():
        bad = rows[column].isna()
        if column == "split":
            bad |= rows[column].map(part_of).isna()
        if bad.any():
            first = rows["id"][bad.idxmax()]
            value = rows[column][bad.idxmax()]
            what = f", {value!r}: expected train, valid or test" if isinstance(value, str) else ""
            way = ", or empty all three of label_T, label_A, label_V" if column in UNIMODAL else ""
            raise ValueError(
                f"{path.name}: {bad.sum():,} rows have no usable {meaning} (first: {first}{what}); leave them out{way}."
            )
    rows["split"], left = readers.by_values(rows["split"].to_numpy(), {}, f"{path.name}: the split column {split!r}")
    numbers = rows["label"].to_numpy()
    return rows, said + left + readers.label_doubts(numbers, readers.label_scale(numbers))


def _csv(path: Path, words: tuple[str, ...]) -> pd.DataFrame:
    """A CSV whose columns `words` stay texts; only an empty cell is missing: "NA" and "None" are things people say."""
    other = kinds.something_else(path)
    if other and "table of text" not in other and "is a text" not in other:
        raise ValueError(f"{path.name} {other}")
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(words, str), keep_default_na=False, na_values=[""])
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path.name} is not a CSV table: {str(error).strip().splitlines()[0].rstrip('.')}.") from None


def tokenize(tokenizer, texts: list[str], max_length: int) -> tuple[np.ndarray, int]:
    """[N,3,T] int64 token ids, attention mask, segment ids, padded on the right; and how many texts were cut."""
    given = tokenizer(texts, truncation=True, max_length=max_length, padding=False)
    whole = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    cut = sum(len(a) < len(b) for a, b in zip(given["input_ids"], whole, strict=True))
    lengths = np.array([len(ids) for ids in given["input_ids"]])
    tokens = np.zeros((len(texts), 3, lengths.max()), np.int64)
    tokens[:, 0] = tokenizer.pad_token_id or 0
    valid = np.arange(lengths.max()) < lengths[:, None]
    tokens[:, 0][valid] = np.concatenate(given["input_ids"])
    tokens[:, 1] = valid
    if "token_type_ids" in given:
        tokens[:, 2][valid] = np.concatenate(given["token_type_ids"])
    return tokens, cut


def hidden_states(model, tokens: np.ndarray, batch_size: int, pool: str | None = None, progress: bool = False):
    """Yields (rows [B], features [B,T,D]) in order of length, so that batches hold little padding; padding is 0."""
    lengths = tokens[:, 1].sum(-1)
    order = np.argsort(-lengths, kind="stable")  # longest first: too little memory shows at once
    device = next(model.parameters()).device
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    model.eval()
    with torch.inference_mode(), tqdm(total=len(order), unit=" texts", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids, mask, types = torch.from_numpy(tokens[rows, :, : lengths[rows[0]]]).to(device).unbind(1)
            extra = {"token_type_ids": types} if segments else {}
            hidden = model(input_ids=ids, attention_mask=mask, **extra).last_hidden_state.float() * mask[..., None]
            if pool == "mean":
                hidden = hidden.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
            elif pool == "cls":
                hidden = hidden[:, :1]
            yield rows, hidden.cpu().numpy()
            bar.update(len(rows))


def _put_rest(writer: pack.Writer, split: str, rows: pd.DataFrame, lengths: np.ndarray, tokens: np.ndarray | None):
    """Everything but the features of text."""
    n = len(rows)
    for m in ("audio", "vision"):
        writer.put(split, m, np.zeros((n, 1, 1), np.float32))
    writer.put(split, "lengths", np.stack([lengths, np.zeros(n), np.zeros(n)], 1))
    writer.put(split, "labels", rows["label"].to_numpy())
    if set(UNIMODAL) <= set(rows):
        writer.put(split, "unimodal_labels", rows[list(UNIMODAL)].to_numpy())
    if tokens is not None:
        writer.put(split, "tokens", tokens)
    writer.put_words(split, tuple(rows["id"]), tuple(rows["text"]))
