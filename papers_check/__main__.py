"""python -m papers_check: the two papers against themselves, each other and the literature, without training."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from papers_check.checks import audit
from papers_check.checks.finding import SEVERITIES
from papers_check.show import finding_pages


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; 0, or 2 and one sentence where a file cannot be written or the data are out of shape."""
    parser = argparse.ArgumentParser(prog="python -m papers_check", description=__doc__.partition(": ")[2])
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON rows")
    parser.add_argument("--write", action="store_true", help="make papers_check/findings/ again")
    parser.add_argument("--all", action="store_true", help="print low findings and notes in full, too")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no dashes
    try:
        found, counts = audit.run_checks()
        if options.json:
            Path(options.json).parent.mkdir(parents=True, exist_ok=True)
            rows = [finding.row() for finding in found]
            _write(Path(options.json), json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        if options.write:
            finding_pages.write(found)
        print(finding_pages.counts_text(found, counts))
        print(finding_pages.text(found, SEVERITIES if options.all else ("high", "medium")))
        sys.stdout.flush()
    except BrokenPipeError:  # `python -m papers_check | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        if problem.filename is None:  # of the output: nothing more can go there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"papers_check: {problem.filename or 'output'}: {problem.strerror}.", file=sys.stderr)
        return 2
    except ValueError as problem:
        print(f"papers_check: {problem}", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, text: str) -> None:
    """The whole file or none of it; a pipe, or a link such as /dev/stdout, is written to as it is."""
    plain = not path.is_symlink() and (path.is_file() or not path.exists())
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial") if plain else path
    try:
        partial.write_text(text, encoding="utf-8")
        if plain:
            os.replace(partial, path)
    except OSError as problem:  # a full disk names no file of its own accord
        if plain:
            partial.unlink(missing_ok=True)
        raise type(problem)(problem.errno, problem.strerror, str(path)) from None


if __name__ == "__main__":
    sys.exit(main())
