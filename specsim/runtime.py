"""The way to the executor, which `pip install specsim-offload` leaves out: only who runs a plan needs it, and waits."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from specsim.errors import InputError

#: what only the extra `run` brings
EXTRA: Final = ("torch", "transformers", "safetensors")


def executor(module: str) -> Any:
    """A module of the executor. Raises InputError where what it imports is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        hint = "pip install 'specsim-offload[run]'"
        raise InputError(f"needs {error.name}, which is not installed", where="running a plan", hint=hint) from None
