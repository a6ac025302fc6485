"""From samples to the numbers of a processor, in the terms in which the cost model will use them.

Pure: the same samples give the same facts. See specsim/cost/timing.py for the roofline that they have to fit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from executor.profile.decode import DecodeShape
from executor.profile.probes import ATTENTION, READ, STEP, Product, Sizes
from executor.profile.sampling import Estimate, Samples, estimate
from specsim.cost.timing import compute_seconds
from specsim.facts import Value
from specsim.hardware import Curve, Processor

#: a product that takes less than this many times what reading its weights takes is bound by memory
_MEMORY_BOUND: Final = 1.25
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
    """The facts of a processor by their names in a profile; `memory` is that of its bandwidth ("dram_bandwidth").

    One curve serves all dtypes: it is bf16's, and the peak of another dtype is such that the curve gives back its
    measured products.
    """
    times = {key: estimate(taken) for key, taken in samples.items()}
    read = _rate(sizes.arena_bytes, times[READ])
    rates = {product.rows: rate for product, rate in _bf16_rates(times, read.value).items()}
    peak = max(rates.values(), key=lambda rate: rate.value)
    points = {float(rows): rate.value / peak.value for rows, rate in sorted(rates.items())}
    curve = Curve(tuple(points.items()))
    shape = f"[rows, {sizes.hidden}] x [{sizes.hidden}, {sizes.width}]"
    facts = {
        memory: _measured(read.value, [read], "sum over memory that no cache holds"),
        "bandwidth_efficiency": reached(f"the {memory}", read.n),
        "bf16": _measured(peak.value, [peak], f"fastest bf16 product {shape}"),
        "gemm_efficiency": _measured(
            Curve(tuple((rows, _short(share)) for rows, share in points.items())),
            rates.values(),
            f"bf16 products {shape}, weights outside the caches; where memory bounds them, weights in a cache",
        ),
    }
    for dtype in ("fp32", "fp16"):
        others = {p: _rate(p.flops, time) for p, time in times.items() if isinstance(p, Product) and p.dtype == dtype}
        if others:
            shares = [rate.value / curve.at(product.rows) for product, rate in others.items()]
            how = f"{dtype} products {shape} over bf16's curve"
            facts[dtype] = _measured(sum(shares) / len(shares), others.values(), how)
    bare = _bare(facts, curve, read.value)
    facts["overhead"] = _overhead(times[STEP], sizes.step, bare)
    facts["attention_efficiency"] = _attention(times[ATTENTION], sizes.attention, bare, facts["overhead"])
    return facts


def _bf16_rates(times: Mapping[Hashable, Estimate], bytes_per_s: float) -> dict[Product, Estimate]:
    """FLOP/s by product: that of streamed weights, unless their bytes explain the time. Then the arithmetic is hidden
    under them, and how fast it could be shows with kept weights."""
    bf16 = [product for product in times if isinstance(product, Product) and product.dtype == "bf16"]
    kept = {product.rows: _rate(product.flops, times[product]) for product in bf16 if product.kept}
    chosen = {}
    for product in bf16:
        if not product.kept:
            streamed = _rate(product.flops, times[product])
            bound = times[product].value < _MEMORY_BOUND * product.weight_bytes / bytes_per_s
            hidden = kept.get(product.rows, streamed) if bound else streamed
            chosen[product] = max(streamed, hidden, key=lambda rate: rate.value)
    return chosen


def _overhead(time: Estimate, step: DecodeShape, bare: Processor) -> Measured:
    """What a tiny step takes beyond its roofline, per call as the cost model counts them."""
    works = step.step()
    roofline = sum(compute_seconds(bare, work) for work in works)
    calls = sum(work.calls for work in works)
    how = f"a step of {step.model.layers} layers of hidden size {step.model.hidden}, {step.sequences} sequences"
    how += f", shared by {calls:g} calls"
    return _measured(max(0.0, time.value - roofline) / calls, [time], how)


def _attention(time: Estimate, shape: DecodeShape, bare: Processor, overhead: Measured) -> Measured:
    """The share of the peak at which the formula's FLOPs give the measured time. Where memory bounds it, it is more
    than that share, by an unknown amount that no prediction of such attention depends on."""
    assert isinstance(overhead.value, float), "an overhead is a number"
    work = shape.attention()
    seconds = max(
        time.value - work.calls * overhead.value, 0.1 * time.value
    )  # the tiny step's overhead may be too much here
    share = work.flops / (seconds * bare.flops_per_s["bf16"])
    how = f"{shape.sequences} sequences of {shape.context} positions, {shape.new} new each, bf16, against the bf16 peak"
    return _measured(min(1.0, share), [time], how)


def _bare(facts: Mapping[str, Measured], curve: Curve, bytes_per_s: float) -> Processor:
    """The processor so far, without overhead."""
    rates = {dtype: fact.value for dtype in ("bf16", "fp32", "fp16") if (fact := facts.get(dtype))}
    return Processor(rates, bytes_per_s, curve, 1.0, 1.0, 0.0)  # type: ignore[arg-type]


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


def _short(value: float) -> float:
    """Four digits: more than any timing deserves."""
    return float(f"{value:.4g}")
