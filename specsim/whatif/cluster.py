"""Where the work of a what-if runs: the cores of this machine, or a cluster that is there already, all by joblib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import joblib

from specsim.errors import InputError


@contextmanager
def workers(cluster: str | None) -> Iterator[None]:
    """Let joblib.Parallel use a `cluster` within the block: the address of a Dask scheduler (tcp://...) or of a Ray
    cluster (ray://...). specsim has to be installed on its workers too. Raises InputError where nobody answers."""
    if cluster is None:
        yield
    elif cluster.startswith("ray://"):
        _module("ray").init(address=cluster)
        _module("ray.util.joblib").register_ray()
        with joblib.parallel_config("ray"):
            yield
    else:
        distributed = _module("distributed")
        try:
            client = distributed.Client(cluster)
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers: {error}", where=f"--cluster {cluster}") from None
        with client, joblib.parallel_config("dask"):
            yield


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        hint = "pip install 'specsim-offload[cluster]'" if package == "distributed" else f"pip install {package}"
        raise InputError(f"{package} is not installed", where="--cluster", hint=hint) from None
