"""Answers of trials (see products.py) that outlast the run: a machine's library need not be asked the same twice.

They are kept in a file for each kind of machine and library, one line each, in `$SPECSIM_CACHE` or the user's cache
directory. Where nothing can be kept there, or nothing tells one machine from another, every run asks anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

#: settings that choose how products are computed
_SETTINGS: Final = ("ONEDNN_", "DNNL_", "MKL_", "OMP_", "OPENBLAS_", "ATEN_", "TORCH_")
#: what is asked of each of a core's caches
_OF_A_CACHE: Final = ("size", "shared_cpu_list")
#: a question, its answer, and the checksum of both
_LINE: Final = re.compile(r"(\w+(?: \w+)*) = (\d{1,6}|none) ([0-9a-f]{8})\n")


def remembered(question: str, ask: Callable[[], int | None], possible: Callable[[int], bool]) -> int | None:
    """The answer that was kept for `question`, words of letters and digits, or what `ask` says, which is then kept.
    A kept number that is not `possible` is no answer."""
    file = _file()
    if file is None:
        return ask()
    known = _known(file)
    answer = known.get(question)
    if question not in known or (answer is not None and not possible(answer)):
        answer = known[question] = ask()
        _keep(file, question, answer)
    return answer


@functools.cache
def _known(file: Path) -> dict[str, int | None]:
    """All that is kept in a file. A line that was not written to its end, or differs from what was, says nothing."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    except OSError:
        return {}
    found = (match for match in map(_LINE.fullmatch, lines) if match and match[3] == _checksum(match[1], match[2]))
    return {match[1]: None if match[2] == "none" else int(match[2]) for match in found}


def _keep(file: Path, question: str, answer: int | None) -> None:
    told = "none" if answer is None else str(answer)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # In one write, behind whatever others have written meanwhile, and never behind half a line of theirs.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, f"\n{question} = {told} {_checksum(question, told)}\n".encode("ascii"))
        finally:
            os.close(descriptor)


def _checksum(question: str, told: str) -> str:
    return f"{zlib.crc32(f'{question} = {told}'.encode('ascii')):08x}"


def _file() -> Path | None:
    """Where answers are kept; None where they are not."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.path.expanduser(os.environ.get("SPECSIM_CACHE") or os.path.join(caches, "specsim")))
    identity = _identity(torch.backends.mkldnn.enabled) if folder.is_absolute() else None
    return None if identity is None else folder / f"products-{identity}.txt"


@functools.cache
def _identity(mkldnn: bool) -> str | None:
    """Of all that an answer rests on: the library and its settings, the processor with its caches, bits that they give,
    and how trials go. None where that cannot be told."""
    processor = _processor()
    try:
        own = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("products.py", "packed.py")]
    except OSError:
        return None
    if not processor:
        return None
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)]
    said = "\n".join((torch.__config__.show(), str(mkldnn), *settings, *processor, *own))
    return hashlib.sha256(said.encode() + bits()).hexdigest()[:16]


def bits() -> bytes:
    """The bits of a few products, from one row to many: they tell apart what a processor's name does not."""
    made = b""
    for dtype in (torch.bfloat16, torch.float16):
        noise = torch.randn(256 * 640, generator=torch.Generator().manual_seed(0)).to(dtype)
        weight = noise[: 96 * 640].view(96, 640)
        for rows in (1, 4, 16, 48, 256):
            x = noise[: rows * 640].view(rows, 640)
            for y in (x @ weight.T, (weight @ x.T).T):
                made += y.contiguous().view(torch.int16).numpy().tobytes()
    return made


def _processor(root: Path = Path("/")) -> list[str]:
    """What the first core says of itself and its caches, without what changes by the moment."""
    said = []
    with suppress(OSError, ValueError):
        first = (root / "proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        said = [line for line in first.splitlines() if not re.match(r"cpu MHz|bogomips|BogoMIPS|.*apicid", line)]
        caches = (root / "sys/devices/system/cpu/cpu0/cache").glob("index*")
        said += [(cache / name).read_text(encoding="ascii") for cache in sorted(caches) for name in _OF_A_CACHE]
    return said
