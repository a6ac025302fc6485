"""Made-up samples of a processor that is known: the analysis finds that processor again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor.profile.analysis import processor_facts
from executor.profile.decode import DecodeShape, dense_model
from executor.profile.probes import READ, Product
from specsim.hardware import Curve, Processor
from tests.executor.profile_stories import HOST, samples_of

#: one row of bf16 is bound by memory: 2 bytes per parameter at 10 GB/s, against 2 FLOPs at 20 GFLOP/s
KNOWN = Processor(
    flops_per_s={"bf16": 100e9, "fp32": 50e9, "fp16": 5e9},
    bytes_per_s=10e9,
    gemm_efficiency=Curve(((1.0, 0.2), (8.0, 0.6), (64.0, 1.0))),
    attention_efficiency=0.25,
    bandwidth_efficiency=1.0,
    overhead_s=50e-6,
)
#: attention that arithmetic bounds; nothing runs here, so that it may be large
SIZES = replace(HOST, attention=DecodeShape(dense_model(1024, 2048, 1, 16, 4, 128), sequences=8, new=4, context=512))


def values(processor: Processor) -> dict[str, object]:
    return {
        name: fact.value for name, fact in processor_facts(samples_of(processor, SIZES), SIZES, "bandwidth").items()
    }


def test_the_known_processor_comes_out_also_where_memory_hides_its_arithmetic() -> None:
    assert values(KNOWN) == {
        "bandwidth": 10e9,
        "bandwidth_efficiency": 1.0,
        "bf16": 100e9,
        "fp32": 50e9,
        "fp16": 5e9,
        "gemm_efficiency": KNOWN.gemm_efficiency,
        "overhead": pytest.approx(50e-6, rel=1e-3),
        "attention_efficiency": pytest.approx(0.25, rel=1e-3),
    }


def test_without_kept_weights_a_product_that_memory_binds_is_taken_as_it_ran() -> None:
    samples = {
        key: taken for key, taken in samples_of(KNOWN, SIZES).items() if not (isinstance(key, Product) and key.kept)
    }
    curve = processor_facts(samples, SIZES, "bandwidth")["gemm_efficiency"].value
    assert curve == Curve(((1.0, 0.1), (8.0, 0.6), (64.0, 1.0)))  # 10 GFLOP/s of 100


def test_attention_faster_than_the_peak_is_the_peak() -> None:
    assert values(replace(KNOWN, attention_efficiency=10.0))["attention_efficiency"] == 1.0


def test_a_curve_has_the_widest_spread_of_its_products_and_a_wide_one_is_noisy() -> None:
    samples = samples_of(KNOWN, SIZES)
    slowest = Product("bf16", 64, HOST.hidden, HOST.width)
    second = samples[slowest][0]
    samples[slowest] = (second / 2, second, second * 1.5)
    samples[READ] = (*samples[READ], *samples[READ])
    facts = processor_facts(samples, SIZES, "bandwidth")
    assert (facts["gemm_efficiency"].spread, facts["gemm_efficiency"].noisy) == (0.5, True)
    assert (facts["bandwidth"].n, facts["bandwidth"].spread, facts["bandwidth"].noisy) == (6, 0.0, False)
