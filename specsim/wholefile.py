"""Files that are written at once or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from specsim.records import sync_file


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file, which is on the disk on return; its draft lies beside it, named `.NAME.PID`. Raises OSError where
    that fails; an older file is kept then."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        sync_file(draft)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            draft.unlink()
        raise
