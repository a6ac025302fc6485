"""Answers of trials (see products.py) that outlast the run: a machine's library need not be asked the same twice.

They are kept in a file for each kind of machine and library, one line each, in `$SPECSIM_CACHE` or the user's cache
directory. Where nothing can be kept there, every run asks anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

#: settings of the libraries that choose how products are computed
_SETTINGS = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_", "TORCH_")
_LINE = re.compile(r"(\w+(?: \w+)*) = (\d+|none)\n")


def remembered(question: str, ask: Callable[[], int | None]) -> int | None:
    """The answer that was kept for `question`, words of letters and digits, or what `ask` says, which is then kept."""
    known = _known(_file())
    if question not in known:
        known[question] = ask()
        _keep(question, known[question])
    return known[question]


@functools.cache
def _known(file: Path) -> dict[str, int | None]:
    """All that is kept in a file. A line that was not written to its end says nothing."""
    try:
        lines = file.read_text(encoding="ascii").splitlines(keepends=True)
    except (OSError, ValueError):
        return {}
    found = (_LINE.fullmatch(line) for line in lines)
    return {match[1]: None if match[2] == "none" else int(match[2]) for match in found if match}


def _keep(question: str, answer: int | None) -> None:
    line = f"{question} = {'none' if answer is None else answer}\n".encode("ascii")
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        # In one write, behind whatever others have written meanwhile.
        descriptor = os.open(_file(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def _file() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.environ.get("SPECSIM_CACHE") or os.path.join(caches, "specsim")
    return Path(folder) / f"products-{_identity()}.txt"


@functools.cache
def _identity() -> str:
    """Of all that an answer rests on: the library, its settings, the processor with its caches, and how trials go."""
    own = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("products.py", "packed.py")]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)]
    said = "\n".join((torch.__config__.show(), *settings, *_processor(), *own))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _processor(root: Path = Path("/")) -> list[str]:
    """What the first core says of itself and its caches, without what changes by the moment."""
    said = []
    with suppress(OSError, ValueError):
        first = (root / "proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        said = [line for line in first.splitlines() if not re.match(r"cpu MHz|bogomips|BogoMIPS|.*apicid", line)]
        caches = (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        said += [file.read_text(encoding="ascii") for file in sorted(caches)]
    return said
