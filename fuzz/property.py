"""What holds for every reader of files and any content: it returns or raises a SpecsimError of one printable line, and
meanwhile runs, imports, connects to and writes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final

from specsim.errors import SpecsimError

#: audit events that no reader has any business with, nor with `open` to write (docs.python.org/3/library/audit_events)
_FORBIDDEN: Final = frozenset(
    (
        *("import", "exec", "compile", "marshal.loads", "pickle.find_class", "ctypes.dlopen"),
        *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"),
        *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "os.link"),
    )
)
#: of what opens a file, whether by Python's open, which says a mode too, or by os.open
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LONGEST: Final = 10_000
#: while a reader runs
_reading: Final = threading.Event()


def check(read: Callable[[bytes], None], content: bytes) -> None:
    """Raises AssertionError, or whatever the reader raises, where the property does not hold."""
    _reading.set()
    try:
        read(content)
    except SpecsimError as error:
        message = str(error)
        assert message.isprintable(), f"a message that is not one printable line: {message!r}"
        assert len(message) < _LONGEST, f"a message of {len(message)} characters"
    finally:
        _reading.clear()


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook; once added to an interpreter, it stays."""
    if _reading.is_set():
        assert event not in _FORBIDDEN, f"a reader caused {event} {arguments!r}"
        assert event != "open" or not arguments[2] & _WRITING, f"a reader opened {arguments!r}"
