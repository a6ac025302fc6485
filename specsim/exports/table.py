"""All engines to export for, by name. To add one: write its file, and name it here."""

from __future__ import annotations

from typing import Final

from specsim.answer import Plan
from specsim.errors import UnknownNameError
from specsim.exports import accelerate, llama_cpp, vllm
from specsim.exports.export import Engine, Export

_ALL: Final = (accelerate.ENGINE, llama_cpp.ENGINE, vllm.ENGINE)
ENGINES: Final[dict[str, Engine]] = {engine.name: engine for engine in _ALL}


def export_for(plan: Plan, name: str) -> Export:
    """`plan` for the engine called `name`. Raises UnknownNameError for one that is not known."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name].export(plan)
