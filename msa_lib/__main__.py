"""`python -m msa_lib` is the `msa` command."""

import sys

from msa_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
