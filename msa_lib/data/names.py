"""What files call things: the tables of names, and nothing is guessed beyond them.

Parts (`part_of`): one of the words below, alone or followed by one of the endings; case and the separators between the
two do not matter. "train_mix", "trainval", "train+dev" or "eval" may be a mixture or anything else and are no part.

Arrays of a part (`plain`): compared without case, spaces and punctuation, and without the name of the data set that
the CMU-MultimodalSDK puts in front ("CMU_MOSI_Visual_Facet_42").
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msa_lib import MODALITIES

PART_WORDS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
PART_ENDINGS = ("set", "data", "dataset", "split", "part", "subset", "fold", "samples")
_PARTS = {word: part for part, words in PART_WORDS.items() for word in words}
_PART = re.compile(rf"\s*({'|'.join(_PARTS)})(?:[\s_.-]*(?:{'|'.join(PART_ENDINGS)}))?\s*", re.IGNORECASE)

FEATURES = {  # modality -> what files call its features
    "text": ("text", "textual", "textfeatures", "language", "lang", "words", "glove", "glovevectors", "wordvectors",
             "timestampedwordvectors", "bert", "bertfeatures", "roberta"),
    "audio": ("audio", "audiofeatures", "acoustic", "acousticfeatures", "speech", "voice", "covarep", "coavarep",
              "opensmile", "opensmileis09", "librosa", "wav2vec", "hubert"),
    "vision": ("vision", "visionfeatures", "visual", "visualfeatures", "video", "videofeatures", "face", "facet",
               "facet41", "facet42", "visualfacet41", "visualfacet42", "openface", "openface2", "visualopenface2",
               "openfaces"),
}  # fmt: skip
NAMES = {  # canonical field -> what files call it; the first that is there is taken
    "labels": ("regressionlabels", "regressionlabel", "labels", "label", "y"),
    "ids": ("id", "ids", "sampleid", "sampleids", "uttid", "uttids", "utteranceid", "utteranceids", "segmentid",
            "segmentids", "clipid", "clipids"),
    "video": ("videoid", "videoids", "vid", "vids", "videoname", "videonames", "videos", "video"),
    "raw_text": ("rawtext", "rawtexts", "transcript", "transcripts", "sentence", "sentences", "utterance",
                 "utterances", "text", "words", "language"),
    "tokens": ("textbert", "tokens", "berttokens", "bertinputs", "bert"),
    "unimodal_labels": ("unimodallabels",),
}  # fmt: skip
CLIP_ONLY = ("clipid", "clipids", "segmentid", "segmentids")  # such an id may name no video
UNIMODAL = ("regressionlabelst", "regressionlabelsa", "regressionlabelsv")
LENGTHS = ("lengths", "length", "lens", "len")  # of one modality after its name, of all three alone
UNUSED = ("annotations", "annotation", "classificationlabels", "classificationlabelst", "classificationlabelsa",
          "classificationlabelsv")  # belong to MMSA's layout, read by nobody there either  # fmt: skip
SPLIT_COLUMNS = ("split_bclstm", "split", "part", "mode", "subset")


def text_of(key: object) -> str | None:
    """A key as text; bytes are decoded (files written by Python 2), anything else is no name."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return key if isinstance(key, str) else None


def part_of(name: object) -> str | None:
    """train, valid or test if `name` means it beyond doubt, else None."""
    match = _PART.fullmatch(text_of(name) or "")
    return _PARTS[match[1].lower()] if match else None


def plain(name: object) -> str:
    """A key of a part as it is compared with the tables; "" for what is no text."""
    letters = re.sub(r"[\W_]+", "", (text_of(name) or "").casefold())
    return re.sub(r"^cmu(mosi|mosei|mosimosei)(?=\w)", "", letters)


def is_label(name: object) -> bool:
    return plain(name) in (*NAMES["labels"], "classificationlabels")


def is_feature(name: object) -> bool:
    return any(plain(name) in FEATURES[m] for m in MODALITIES)


def listed(names: Iterable[object], most: int = 8) -> str:
    """Keys for a message, long ones cut, at most `most` of them."""
    shown = [str(text_of(n) if text_of(n) is not None else n)[:40] for n in names]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + rest
