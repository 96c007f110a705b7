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
            Path(options.json).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if options.write:
            finding_pages.write(found)
        print(finding_pages.counts_text(found, counts))
        print(finding_pages.text(found, SEVERITIES if options.all else ("high", "medium")))
        sys.stdout.flush()
    except BrokenPipeError:  # `python -m papers_check | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        print(f"papers_check: {problem.filename}: {problem.strerror}.", file=sys.stderr)
        return 2
    except ValueError as problem:
        print(f"papers_check: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
