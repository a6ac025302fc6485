"""`python -m specsim`: the same as the `specsim` command."""

from __future__ import annotations

import sys

from specsim.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
