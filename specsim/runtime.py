"""The way to the executor, which `pip install specsim-offload` leaves out: only who runs a plan needs it, and waits."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from specsim.errors import InputError

#: what only extras bring, and which
EXTRAS: Final[Mapping[str, str]] = dict.fromkeys(("torch", "transformers", "safetensors"), "run") | dict.fromkeys(
    ("starlette", "uvicorn", "prometheus_client"), "run,serve"
)


def executor(module: str) -> Any:
    """A module of the executor. Raises InputError where what it imports is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        hint = f"pip install 'specsim-offload[{extra}]'"
        raise InputError(f"needs {error.name}, which is not installed", where="running a plan", hint=hint) from None


def go_on(out: object, ranks: int) -> str:
    """The command that goes on with what is in `out`, on so many ranks."""
    run = f"specsim run --resume {out}"
    return run if ranks == 1 else f"torchrun --nproc-per-node {ranks} -m {run}"
