"""All published systems by name. To add one: write its file, and name it here."""

from __future__ import annotations

from typing import Final

from specsim.systems import accelerate, deepspeed, fiddler, flexgen, specoffload
from specsim.systems.system import System

_MODULES: Final = (accelerate, deepspeed, flexgen, fiddler, specoffload)
SYSTEMS: Final[dict[str, System]] = {module.SYSTEM.name: module.SYSTEM for module in _MODULES}
