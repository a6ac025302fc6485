"""Made-up samples of a processor that is known: the analysis finds that processor again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor.profile.analysis import processor_facts
from executor.profile.pieces import Piece
from executor.profile.probes import READ, Product
from specsim.hardware import AttentionCost, Curve, Processor
from tests.executor.profile_stories import HOST, samples_of

#: one row of bf16 is bound by memory: 2 bytes per parameter at 10 GB/s, against 2 FLOPs at 20 GFLOP/s
KNOWN = Processor(
    flops_per_s={"bf16": 100e9, "fp32": 50e9, "fp16": 5e9},
    bytes_per_s=10e9,
    gemm_efficiency=Curve(((1.0, 0.2), (8.0, 0.6), (64.0, 1.0))),
    attention_efficiency=1.0,
    bandwidth_efficiency=1.0,
    overhead_s=0.0,
    gemm_efficiencies={
        "fp32": Curve(((8.0, 0.5), (64.0, 1.0))),
        "fp16": Curve(((8.0, 1.0), (64.0, 0.8))),
        "packed": Curve(((1.0, 0.07), (8.0, 0.65))),
        "projections": Curve(((1.0, 0.1), (8.0, 0.3))),
        "head": Curve(((1.0, 0.05), (8.0, 0.35))),
    },
    overheads_s={"projections": 40e-6, "attention": 30e-6, "expert": 20e-6, "dense": 10e-6, "head": 5e-6},
    activation_bytes_per_s={"projections": 1e9, "attention": 2e9, "expert": 3e9, "dense": 4e9, "head": 5e9},
    attention=AttentionCost(sequence_s=3e-6, flops_per_s=6e9, kv_bytes_per_s=1e9),
    task_s=7e-6,
)


def values(processor: Processor) -> dict[str, object]:
    return {name: fact.value for name, fact in processor_facts(samples_of(processor, HOST), HOST, "bandwidth").items()}


def test_the_known_processor_comes_out_also_where_memory_hides_its_arithmetic() -> None:
    about = {f"overhead_{op}": seconds for op, seconds in KNOWN.overheads_s.items()}
    about |= {f"activations_{op}": rate for op, rate in KNOWN.activation_bytes_per_s.items()}
    about |= {"attention_sequence": 3e-6, "attention_flops": 6e9, "attention_kv": 1e9}
    assert values(KNOWN) == {
        "bandwidth": 10e9,
        "bandwidth_efficiency": 1.0,
        "bf16": 100e9,
        "fp32": 50e9,
        "fp16": 5e9,
        "gemm_efficiency": KNOWN.gemm_efficiency,
        **{f"gemm_efficiency_{of}": curve for of, curve in KNOWN.gemm_efficiencies.items()},
        "task_overhead": 7e-6,
        **{name: pytest.approx(value, rel=2e-3) for name, value in about.items()},
    }


def test_a_term_that_costs_nothing_has_no_rate() -> None:
    cheap = replace(KNOWN, attention=AttentionCost(3e-6, 6e9, 1e99), activation_bytes_per_s={})
    assert {"attention_kv", "activations_head"}.isdisjoint(values(cheap))


def test_without_kept_weights_a_product_that_memory_binds_is_taken_as_it_ran() -> None:
    samples = {
        key: taken for key, taken in samples_of(KNOWN, HOST).items() if not (isinstance(key, Product) and key.kept)
    }
    curve = processor_facts(samples, HOST, "bandwidth")["gemm_efficiency"].value
    assert curve == Curve(((1.0, 0.1), (8.0, 0.6), (64.0, 1.0)))  # 10 GFLOP/s of 100


def test_a_curve_has_the_widest_spread_of_its_products_and_a_wide_one_is_noisy() -> None:
    samples = samples_of(KNOWN, HOST)
    slowest = next(key for key in samples if isinstance(key, Product) and key.rows == 64)
    second = samples[slowest][0]
    samples[slowest] = (second / 2, second, second * 1.5)
    samples[READ] = (*samples[READ], *samples[READ])
    facts = processor_facts(samples, HOST, "bandwidth")
    assert (facts["gemm_efficiency"].spread, facts["gemm_efficiency"].noisy) == (0.5, True)
    assert (facts["bandwidth"].n, facts["bandwidth"].spread, facts["bandwidth"].noisy) == (6, 0.0, False)


def test_a_fit_has_the_usual_spread_of_its_pieces() -> None:
    samples = samples_of(KNOWN, HOST)
    first, *_ = [key for key in samples if isinstance(key, Piece) and key.op == "head"]
    second = samples[first][0]
    samples[first] = (second / 2, second, second * 1.5)
    assert processor_facts(samples, HOST, "bandwidth")["overhead_head"].spread == 0.0
