"""What EXACT has to find out of a model's products, found out before anybody waits for it (see products.py)."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from executor.architecture import Architecture
from executor.decoder.numerics import MIN_OUTPUTS
from executor.decoder.products import try_heights
from specsim.memory import LOGITS_COLUMNS
from specsim.model import Model


def try_products(streamed: Iterable[Architecture], resident: Iterable[Architecture]) -> None:
    """Try all products of models whose weights are used as they are read, and of resident ones, whose matrices are
    laid out. On a thread of its own that ends with it: the team of threads that computes for one thread outlasts all
    else that this does, and a second team beside that of the tasks would hold it up (see executor/__init__.py)."""
    thread = threading.Thread(target=_try, args=(list(streamed), list(resident)), name="specsim trials")
    thread.start()
    thread.join()


def _try(streamed: list[Architecture], resident: list[Architecture]) -> None:
    for arch in streamed:
        try_heights(arch.dtype, _matrices(arch.model) | _ends(arch.model))
    for arch in resident:
        try_heights(arch.dtype, _matrices(arch.model), packed=True)
        try_heights(arch.dtype, _ends(arch.model))


def _matrices(model: Model) -> set[tuple[int, int]]:
    """Shapes [out, in] of the projections and of all FFNs."""
    h, q, kv = model.hidden, model.heads * model.head_dim, model.kv_heads * model.head_dim
    shapes = {(q, h), (kv, h), (h, q)}
    return shapes.union(*({(ffn.width, h), (h, ffn.width)} for ffn in model.ffn_kinds))


def _ends(model: Model) -> set[tuple[int, int]]:
    """Of routers and of the head's blocks."""
    routers = {(max(MIN_OUTPUTS, ffn.experts), model.hidden) for ffn in model.ffn_kinds if ffn.is_moe}
    blocks = {min(model.vocab, LOGITS_COLUMNS), model.vocab % LOGITS_COLUMNS or LOGITS_COLUMNS}
    return routers | {(rows, model.hidden) for rows in blocks if rows <= model.vocab}
