"""The text of the papers, for checking that quotes are verbatim; the papers stay outside the repository."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "papers"


def plain(text: str) -> str:
    """Text without line numbers, hyphenated line ends and mark-up, all white space and quotation marks made alike."""
    text = re.sub(r"(?m)^\d{3}(\s|$)", "", text)
    text = re.sub(r"(\w)-\n+(\w)", r"\1\2", text)
    text = re.sub(r"[*$]|\\mathbf|\\", "", text)
    text = text.replace("’", "'").replace("“", '"').replace("”", '"')
    return re.sub(r"\s+", " ", text)


def paper_text(paper: str) -> str:
    """The whole paper as `plain` text; FileNotFoundError where the papers are not at hand."""
    return plain((FOLDER / f"{paper}.txt").read_text(encoding="utf-8"))
