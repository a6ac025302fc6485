"""What Linux says in files: their text, and the numbers of /proc/meminfo."""

from __future__ import annotations

import re
from pathlib import Path


def text(path: Path) -> str:
    """A file's contents, or "" where there are none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """Bytes by name, as "MemTotal" and "MemAvailable"; counts, as "HugePages_Total", stay counts. Empty where the
    system has no such file."""
    lines = re.findall(r"^(\S+):\s*(\d+)( kB)?$", text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in lines}
