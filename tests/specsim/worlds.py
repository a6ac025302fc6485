"""Worlds for property tests: machines with and without a GPU, models that do not fit them, jobs of a few requests.

Sizes are those of small real machines, so that every resource is the bottleneck of some world.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.hardware import OPS, AttentionCost, Curve, Disk, Gpu, Host, Link, Machine, Processor
from specsim.model import FeedForward, Model
from specsim.units import GiB
from specsim.workload import Workload

VOCAB = 8000
RISING = Curve(((1.0, 0.1), (64.0, 0.4), (1024.0, 0.8)))


def processor(flops_per_s: float, bytes_per_s: float, curve: Curve, overhead_s: float) -> Processor:
    return Processor({"bf16": flops_per_s, "fp32": flops_per_s / 2}, bytes_per_s, curve, 0.3, 0.8, overhead_s)


def measured(bare: Processor) -> Processor:
    """With all that only measuring tells."""
    return replace(
        bare,
        gemm_efficiencies={"projections": Curve(((1.0, 0.05), (256.0, 0.7)))},
        overheads_s=dict.fromkeys(OPS, 2e-4),
        activation_bytes_per_s=dict.fromkeys(OPS, 2e9),
        attention=AttentionCost(2e-5, bare.flops_per_s["fp32"] / 4, bare.bytes_per_s / 10),
        task_s=3e-5,
    )


def decoder(name: str, layers: int, hidden: int, ffn: FeedForward, *, window: int | None = None) -> Model:
    heads = hidden // 64
    return Model(
        name,
        "mixtral" if ffn.is_moe else "llama",
        hidden,
        layers,
        heads,
        max(1, heads // 4),
        64,
        VOCAB,
        10_000,
        False,
        "bfloat16",
        ffn,
        sliding_window=window,
    )


curves = st.sampled_from([Curve.flat(0.6), RISING])

targets = st.builds(
    decoder,
    st.just("target"),
    st.integers(2, 8),
    st.sampled_from([1024, 2048, 4096]),
    st.one_of(
        st.builds(FeedForward, st.sampled_from([2048, 8192, 24576])),
        st.builds(FeedForward, st.sampled_from([2048, 8192]), st.sampled_from([4, 8]), st.sampled_from([1, 2])),
    ),
    window=st.sampled_from([None, None, None, 64]),
)

drafts = st.builds(
    decoder,
    st.just("draft"),
    st.integers(1, 4),
    st.sampled_from([128, 512, 1024]),
    st.builds(FeedForward, st.sampled_from([512, 2048])),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Few requests, short outputs; prompts all alike or of many lengths."""
    mean = draw(st.sampled_from([8, 100, 500]))
    low, high = draw(st.sampled_from([(mean, mean), (mean // 4, 4 * mean)]))
    return Workload("few", "few", mean, high, low, draw(st.integers(4, 16)), draw(st.integers(4, 64)))


@st.composite
def machines(draw: st.DrawFn, weights: float, *, gpu: bool | None = None) -> Machine:
    """A machine whose memories hold some share of `weights` bytes, besides what every plan needs."""
    cpu = processor(
        draw(st.sampled_from([1e11, 1e12, 1e13])),
        draw(st.sampled_from([2e10, 1e11])),
        draw(curves),
        draw(st.sampled_from([0.0, 5e-6])),
    )
    ram = 2 * GiB + weights * draw(st.sampled_from([0.1, 0.5, 2.0]))
    ssd = Disk("disk", "disk", 1e13, draw(st.sampled_from([5e8, 5e9])), 0.9, 1e-4, 5.0, 2, 2**24)
    if draw(st.booleans()):
        cpu, ssd = measured(cpu), replace(ssd, cpu_bytes_per_s=3e10, lost_share=0.05)
    host = Host("host", "host", 8, 1, ram, cpu, "link", "disk", 100.0, 0.0)
    if not (draw(st.booleans()) if gpu is None else gpu):
        return Machine("bare", host, ssd, ram_budget_bytes=ram)
    fast = processor(
        draw(st.sampled_from([1e13, 1e14])),
        draw(st.sampled_from([3e11, 1e12])),
        draw(curves),
        draw(st.sampled_from([0.0, 1e-5])),
    )
    link = Link("link", "link", draw(st.sampled_from([4e9, 3e10])), 0.8, 0.4, draw(st.sampled_from([0.0, 1e-5])))
    vram = 1 * GiB + weights * draw(st.sampled_from([0.05, 0.3, 0.7, 2.0]))
    return Machine("full", host, ssd, Gpu("gpu", "gpu", vram, fast, "link", "host", 200.0), link, vram, ram)


rates = st.sampled_from([0.0, 0.3, 0.6, 0.8, 0.95, 1.0])


def accepting(*hazards: float) -> Acceptance:
    return Acceptance(hazards, "assumed", "tests")


acceptances = st.lists(rates, min_size=1, max_size=3).map(lambda hazards: accepting(*hazards))


@st.composite
def cases(draw: st.DrawFn, *, gpu: bool | None = None, draft: bool | None = None) -> Case:
    """`gpu` and `draft`: with, without, or either."""
    target = draw(targets)
    machine = draw(machines(float(target.weight_bytes), gpu=gpu))
    if not (draw(st.booleans()) if draft is None else draft):
        return Case(machine, target, draw(workloads()))
    return Case(machine, target, draw(workloads()), draw(drafts), draw(acceptances))
