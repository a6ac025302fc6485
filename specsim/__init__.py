"""Plans offloading with speculative decoding for language models that do not fit the GPU.

Facts -> cost model -> schedule -> simulator -> planner -> plan file. `specsim.plan`, `simulate`, `explain`,
`compare`, `ablation`, `sweep`, `upgrade`, `breakeven`, `budget`, `export`, `draw`, `measure`, `run`, `validate` and
`read_plan` are functions of `specsim.api`, the library behind the command line. That module is loaded, with numpy and
the rest, when the first of them is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specsim.api import (
        ablation,
        breakeven,
        budget,
        compare,
        draw,
        explain,
        export,
        measure,
        plan,
        read_plan,
        run,
        simulate,
        sweep,
        upgrade,
        validate,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "ablation",
    "breakeven",
    "budget",
    "compare",
    "draw",
    "explain",
    "export",
    "measure",
    "plan",
    "read_plan",
    "run",
    "simulate",
    "sweep",
    "upgrade",
    "validate",
]

_LAZY = frozenset(__all__) - {"__version__"}


def __getattr__(name: str) -> Any:
    """Fetch a function of `specsim.api` at its first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("specsim.api"), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _LAZY)
