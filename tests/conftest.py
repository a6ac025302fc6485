"""What all tests share: reproducible property tests, and a fresh interpreter to ask what an import loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side, and their models are tiny: threads of one test would only hold up those of the others.
# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What runs remember for the next one is that of these tests only, and goes with them.
_REMEMBERED = tempfile.TemporaryDirectory(prefix="specsim-tests-")
os.environ["SPECSIM_CACHE"] = _REMEMBERED.name

ROOT = Path(__file__).parent.parent

settings.register_profile("specsim", deadline=None, derandomize=True)  # no timing, the same examples every time
settings.load_profile("specsim")

Fresh = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fresh() -> Fresh:
    """Run `python ARGUMENTS...` on this checkout in a new interpreter; its stdout and stderr are text."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECSIM_")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=inherited | {"PYTHONPATH": str(ROOT), "SPECSIM_CACHE": _REMEMBERED.name} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
