"""From samples to the numbers of a processor, in the terms in which the cost model will use them.

Pure: the same samples give the same facts. See specsim/cost/timing.py for the model that they have to fit.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from executor.profile.pieces import Piece
from executor.profile.probes import READ, TASK, TASKS, Product, Sizes
from executor.profile.sampling import Estimate, Samples, estimate
from specsim.cost.timing import compute_seconds
from specsim.cost.work import Work
from specsim.facts import Value
from specsim.hardware import OPS, Curve, Op, Processor

#: a product that takes less than this many times what reading its weights takes is bound by memory
_MEMORY_BOUND: Final = 1.25
#: seconds for a byte or a FLOP that nobody would notice
_NOTHING: Final = 1e-18
#: a spread above this is worth a warning
_NOISY: Final = 0.15

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Measured:
    """A fact's value in base units (or a curve), from `n` samples of this relative spread, and how it was measured."""

    value: Value
    n: int
    spread: float
    how: str

    @property
    def noisy(self) -> bool:
        return self.spread > _NOISY


def processor_facts(samples: Mapping[Hashable, Samples], sizes: Sizes, memory: str) -> dict[str, Measured]:
    """The facts of a processor by their names in a profile; `memory` is that of its bandwidth ("dram_bandwidth")."""
    times = {key: estimate(taken) for key, taken in samples.items()}
    read = _rate(sizes.arena_bytes, times[READ])
    facts = {
        memory: _measured(read.value, [read], "sum over memory that no cache holds"),
        "bandwidth_efficiency": reached(f"the {memory}", read.n),
    }
    facts |= _product_facts(times, sizes, read.value)
    bare = _bare(facts, read.value)
    for op in OPS:
        pieces = {key: time for key, time in times.items() if isinstance(key, Piece) and key.op == op}
        facts |= _piece_facts(op, pieces, bare) if pieces else {}
    task = Estimate(times[TASK].value / TASKS, times[TASK].n, times[TASK].spread)
    return facts | {"task_overhead": time_fact(task, f"{TASKS} tasks of no work, each after a load, in the engine")}


def _product_facts(times: Mapping[Hashable, Estimate], sizes: Sizes, bytes_per_s: float) -> dict[str, Measured]:
    """The peak of each dtype, its curve for an FFN, and in bf16 also those of other operations."""
    groups: dict[tuple[str, str], dict[Product, Estimate]] = defaultdict(dict)
    for product, time in times.items():
        if isinstance(product, Product):
            name = "packed" if product.packed else "FFN" if product.op == "dense" else product.op
            groups[product.dtype, name][product] = time
    rates = {key: _rates(group, bytes_per_s) for key, group in groups.items()}
    facts = {}
    for dtype in dict.fromkeys(dtype for dtype, _ in rates):
        peak = max((r for key, by_rows in rates.items() if key[0] == dtype for r in by_rows.values()), key=_value)
        facts[dtype] = _measured(peak.value, [peak], f"fastest {dtype} products, exact")
        for of, by_rows in ((of, by_rows) for (for_dtype, of), by_rows in rates.items() if for_dtype == dtype):
            curve = Curve(tuple((rows, _short(rate.value / peak.value)) for rows, rate in by_rows.items()))
            own = of if of != "FFN" else "" if dtype == "bf16" else dtype
            how = (
                f"{dtype} products of {of}, hidden size {sizes.model.hidden}, exact, weights outside the caches; where "
            )
            how += "memory bounds them, in a cache"
            facts[f"gemm_efficiency_{own}".rstrip("_")] = _measured(curve, by_rows.values(), how)
    return facts


def _rates(times: Mapping[Product, Estimate], bytes_per_s: float) -> dict[float, Estimate]:
    """FLOP/s by rows: that of streamed weights, unless their bytes explain the time. Then the arithmetic is hidden
    under them, and how fast it could be shows with kept weights."""
    kept = {product.rows: _rate(product.flops, time) for product, time in times.items() if product.kept}
    chosen = {}
    for product in sorted((product for product in times if not product.kept), key=lambda product: product.rows):
        streamed = _rate(product.flops, times[product])
        bound = times[product].value < _MEMORY_BOUND * product.weight_bytes / bytes_per_s
        hidden = kept.get(product.rows, streamed) if bound else streamed
        chosen[float(product.rows)] = max(streamed, hidden, key=_value)
    return chosen


def _value(rate: Estimate) -> float:
    return rate.value


def _bare(facts: Mapping[str, Measured], bytes_per_s: float) -> Processor:
    """The processor so far: products cost nothing but themselves."""
    curves = {name: fact.value for name, fact in facts.items() if isinstance(fact.value, Curve)}
    peak = facts["bf16"].value
    assert isinstance(peak, float)
    own = {name.removeprefix("gemm_efficiency_"): curve for name, curve in curves.items()}
    return Processor({"bf16": peak}, bytes_per_s, curves["gemm_efficiency"], 1.0, 1.0, 0.0, own)


def _piece_facts(op: Op, times: Mapping[Piece, Estimate], bare: Processor) -> dict[str, Measured]:
    """What an operation takes beyond its products: for each call, and for each byte of rows that goes in and out of
    them, which norms, rotations, gates, gathering and scattering pass through. Of attention all terms are fitted."""
    works = [piece.work() for piece in times]
    whole = [time.value for time in times.values()]
    if op == "attention":
        products = [0.0] * len(works)
        others = [[work.sequences, work.flops, work.bytes - work.activations] for work in works]
    else:
        products = [compute_seconds(bare, work) for work in works]
        others = [[] for _ in works]
    (call, row, *costs), error = _fit(works, products, others, whole)
    walks, estimates = [piece.walk for piece in times], list(times.values())
    sequences, rows, cached = ({getattr(w, name) for w in walks} for name in ("sequences", "new", "context"))
    how = f"{len(walks)} with {_range(sequences)} sequences of {_range(rows)} rows and {_range(cached)} cached, "
    how += f"hidden size {_range({w.model.hidden for w in walks})}, exact; fitted, {error:.0%} off in the median"
    facts = {f"overhead_{op}": _fitted(call, estimates, how)} | _rates_of({f"activations_{op}": row}, estimates, how)
    if op == "attention":
        sequence, flop, byte = costs
        facts["attention_sequence"] = _fitted(sequence, estimates, how)
        facts |= _rates_of({"attention_flops": flop, "attention_kv": byte}, estimates, how)
    return facts


def _fit(
    works: Sequence[Work], products: Sequence[float], others: Sequence[Sequence[float]], seconds: Sequence[float]
) -> tuple[list[float], float]:
    """Costs of a call, of a byte of rows and of other amounts, none below 0, with which the model of
    `specsim.cost.timing` is off least; and the median error. Errors are shares of the measured seconds."""
    whole = np.array(seconds)
    amounts = np.array([[work.calls, work.activations, *more] for work, more in zip(works, others, strict=True)])
    left = 1 - np.array(products) / whole
    units = np.maximum((amounts / whole[:, None]).max(axis=0), 1e-300)  # so that all unknowns are of one size
    terms = amounts / whole[:, None] / units

    def errors(root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the squares of `root`, which are never below 0."""
        mixed = 2 * np.sqrt(terms[:, 0] * terms[:, 1]) * root[0] * root[1]
        return np.asarray(terms @ root**2 + mixed - left)

    start = np.sqrt(np.maximum(nnls(terms, left)[0], 1e-3))
    found = least_squares(errors, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    return (found.x**2 / units).tolist(), float(np.median(np.abs(found.fun)))


def _rates_of(costs: Mapping[str, float], times: Sequence[Estimate], how: str) -> dict[str, Measured]:
    """Rates of those terms that were seen to cost anything."""
    return {name: _fitted(1 / cost, times, how) for name, cost in costs.items() if cost > _NOTHING}


def rate_fact(amount: float, time: Estimate, how: str) -> Measured:
    """Amount per second."""
    return _measured(amount / time.value, [time], how)


def time_fact(time: Estimate, how: str) -> Measured:
    """Seconds."""
    return _measured(time.value, [time], how)


def reached(rate: str, n: int) -> Measured:
    """The efficiency beside a measured rate."""
    return Measured(1.0, n, 0.0, f"{rate} is what was reached, so that nothing is to be taken off")


def _rate(amount: float, time: Estimate) -> Estimate:
    """Amount per second; the relative spread of a rate is that of its time."""
    return Estimate(amount / time.value, time.n, time.spread)


def _measured(value: Value, times: Iterable[Estimate], how: str) -> Measured:
    """From several estimates: the fewest samples of any, and the widest spread."""
    times = list(times)
    rounded = _short(value) if isinstance(value, float) else value
    return Measured(rounded, min(time.n for time in times), max(time.spread for time in times), how)


def _fitted(value: float, times: Sequence[Estimate], how: str) -> Measured:
    """To many estimates, of which no single one decides it: their median spread."""
    return Measured(_short(value), min(time.n for time in times), statistics.median(t.spread for t in times), how)


def _short(value: float) -> float:
    """Four digits: more than any timing deserves."""
    return float(f"{value:.4g}")


def _range(values: Collection[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(values) > 1 else f"{min(values)}"
