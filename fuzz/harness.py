"""One fuzzing process: libFuzzer changes inputs towards new branches of a reader, within bounds of time and memory.

Run by fuzz.__main__ with libFuzzer's own options: `python -m fuzz.harness TARGET -runs=1000 CORPUS`.
"""

from __future__ import annotations

import importlib
import sys
from random import Random
from typing import Final

import atheris

with atheris.instrument_imports(include=["specsim", "executor", "yaml"]):
    _TARGET: Final = importlib.import_module(f"fuzz.targets.{sys.argv[1]}")

from fuzz.mutate import mutated
from fuzz.property import check, guard


def _execute(content: bytes) -> None:
    check(_TARGET.read, content)


def _mutate(content: bytes, longest: int, seed: int) -> bytes:
    """Half of all changes are to the structure, where there is one."""
    random = Random(seed)
    changed = mutated(content, _TARGET.WORDS, random) if random.random() < 0.5 else None
    if changed is None or len(changed) > longest:
        return bytes(atheris.Mutate(content, longest))
    return changed


def main() -> None:
    for seed in _TARGET.SEEDS:  # what is imported at first use is imported now
        _execute(seed)
    sys.addaudithook(guard)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], _execute, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
