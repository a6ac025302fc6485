"""One fuzzing process: libFuzzer changes inputs towards new branches of a reader, and the property is checked.

The property: `read` returns or raises a SpecsimError of one printable line, within the bounds of time and memory that
libFuzzer is told, and meanwhile runs, imports, connects to and writes nothing.
Run by fuzz.__main__ with libFuzzer's own options: `python -m fuzz.harness TARGET -runs=1000 CORPUS`.
"""

from __future__ import annotations

import importlib
import sys
import threading
from random import Random
from typing import Any, Final

import atheris

with atheris.instrument_imports(include=["specsim", "executor", "yaml"]):
    _TARGET: Final = importlib.import_module(f"fuzz.targets.{sys.argv[1]}")

from fuzz.mutate import mutated
from specsim.errors import SpecsimError

#: what no reader has any business with, nor with `open` to write
_FORBIDDEN: Final = frozenset(
    (
        *("import", "exec", "compile", "marshal.loads", "pickle.find_class", "ctypes.dlopen"),
        *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"),
        *("os.remove", "os.rename", "os.mkdir", "os.symlink", "os.link"),
    )
)
_LONGEST: Final = 10_000
#: while a reader runs
_reading: Final = threading.Event()


def check(content: bytes) -> None:
    """One execution. Raises AssertionError, or what the reader raises, where the property does not hold."""
    _reading.set()
    try:
        _TARGET.read(content)
    except SpecsimError as error:
        message = str(error)
        assert message.isprintable(), f"a message that is not one printable line: {message!r}"
        assert len(message) < _LONGEST, f"a message of {len(message)} characters"
    finally:
        _reading.clear()


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if _reading.is_set():
        assert event not in _FORBIDDEN, f"a reader caused {event} {arguments!r}"
        assert event != "open" or arguments[1] in (None, "r", "rb"), f"a reader opened {arguments!r}"


def _mutate(content: bytes, longest: int, seed: int) -> bytes:
    """Half of all changes are to the structure, where there is one."""
    random = Random(seed)
    changed = mutated(content, _TARGET.WORDS, random) if random.random() < 0.5 else None
    if changed is None or len(changed) > longest:
        return bytes(atheris.Mutate(content, longest))
    return changed


def main() -> None:
    for seed in _TARGET.SEEDS:  # what is imported at first use is imported now
        check(seed)
    sys.addaudithook(_guard)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], check, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
