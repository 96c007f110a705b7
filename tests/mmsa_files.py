"""Small files shaped like those of thuiar/MMSA, for the tests of readers and checks."""

import pickle

import numpy as np

SIZES = {"train": 7, "valid": 3, "test": 4}


def part(split, n, rng, text=(6, 8), audio=(6, 5), vision=(6, 4), scale=3.0, lengths=False, sims=False):
    """One split: right-padded features [n,T,D] of the given (T, D), true lengths hidden in the mask or given."""
    words = rng.integers(3, text[0] + 1, n)
    frames = {"audio": rng.integers(2, audio[0] + 1, n), "vision": rng.integers(2, vision[0] + 1, n)}
    tokens = np.zeros((n, 3, text[0]), np.float32)
    tokens[:, 1] = np.arange(text[0]) < words[:, None]
    tokens[:, 0] = tokens[:, 1] * rng.integers(5, 900, (n, text[0]))
    fields = {
        "raw_text": [f"some words {i}" for i in range(n)],
        "id": [f"{split}vid_{i // 2}$_${i}" for i in range(n)],
        "text": rng.normal(size=(n, *text)).astype(np.float32),  # not zero on the padding, as in the files of MMSA
        "text_bert": tokens,
        "annotations": ["Neutral"] * n,
        "classification_labels": np.ones(n),
        "regression_labels": np.round(rng.uniform(-scale, scale, n), 1),
    }
    fields["regression_labels"][0] = scale
    for m, (t, d) in {"audio": audio, "vision": vision}.items():
        stop = frames[m] if lengths else words
        fields[m] = rng.normal(size=(n, t, d)) * (np.arange(t) < stop[:, None])[..., None]
        if lengths:
            fields[f"{m}_lengths"] = stop.tolist()
    if sims:
        for letter in "TAV":
            fields[f"regression_labels_{letter}"] = np.round(rng.uniform(-1, 1, n), 1)
    return fields


def parts(seed=0, sizes=SIZES, **shapes):
    rng = np.random.default_rng(seed)
    return {s: part(s, n, rng, **shapes) for s, n in sizes.items()}


SIMS = {"text": (9, 8), "audio": (20, 3), "vision": (11, 7), "scale": 1.0, "lengths": True, "sims": True}


def write(path, content, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path
