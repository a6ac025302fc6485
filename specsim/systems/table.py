"""All published systems by name. To add one: write its file, and name it here."""

from __future__ import annotations

from typing import Final

from specsim.systems import (
    accelerate,
    deepspeed,
    fiddler,
    flexgen,
    llama_cpp,
    moe_lightning,
    specexec,
    specoffload,
    vllm,
)
from specsim.systems.system import System

_ALL: Final = (
    accelerate.SYSTEM,
    deepspeed.SYSTEM,
    flexgen.SYSTEM,
    fiddler.SYSTEM,
    specoffload.SYSTEM,
    moe_lightning.SYSTEM,
    llama_cpp.SYSTEM,
    llama_cpp.DRAFTED,
    vllm.SYSTEM,
    specexec.SYSTEM,
)
SYSTEMS: Final[dict[str, System]] = {system.name: system for system in _ALL}
