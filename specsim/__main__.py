"""`python -m specsim`: the same as the `specsim` command."""

from __future__ import annotations

import sys

from specsim.cli.process import command

if __name__ == "__main__":
    sys.exit(command())
