"""Where and with what a benchmark ran."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors")


def surroundings(machine: Path | None = None) -> dict[str, Any]:
    """Date, the measured machine's title and disk (where there is its profile), versions, and the commit, with "+"
    where the tree differs from it; None outside a repository."""
    measured = yaml.safe_load(machine.read_text(encoding="utf-8")) if machine is not None else None
    disk = {"machine": measured["title"], "disk": measured["disk"]["facts"]["bandwidth"][0]} if measured else {}
    return {
        "date": date.today().isoformat(),
        **disk,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "commit": _commit(),
    }


def _commit() -> str | None:
    head, changes = (
        subprocess.run(["git", *arguments], capture_output=True, text=True)
        for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    )
    return None if head.returncode else head.stdout.strip() + ("+" if changes.stdout.strip() else "")
