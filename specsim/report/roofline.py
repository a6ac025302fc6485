"""The machine's roofs and the plan under them: FLOP/s reached against FLOPs for each byte that a resource moves.

Williams, Waterman, Patterson, "Roofline", CACM 52 (2009), with a roof for every memory that bytes come from, as in the
hierarchical roofline of Yang, Kurth, Williams, Concurrency and Computation 32 (2020): VRAM, link, DRAM, disk.
matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specsim.answer import Plan
from specsim.api import Simulation
from specsim.case import Case
from specsim.cost.timing import copy_rate, resource
from specsim.hardware import OPS, Processor
from specsim.model import DTYPE_RATE
from specsim.report.style import GRID, INK, PALETTE, QUIET, heading, heading_inches, legend, new_figure, quiet
from specsim.timeline import Timeline
from specsim.units import show

#: resource -> colour, and where its bytes come from
ROOFS: Final = {
    "gpu": (PALETTE[2], "GPU, from VRAM"),
    "h2d": (PALETTE[0], "GPU, over the link"),
    "cpu": (PALETTE[1], "CPU, from DRAM"),
    "disk": (PALETTE[5], "from the disk"),
}
PHASES: Final = {"prefill": "^", "decode": "o"}
_WIDTH, _PLOT, _LEFT, _BELOW = 9.0, 4.6, 1.25, 1.35  # inches


@dataclass(frozen=True, slots=True)
class Roof:
    """The most FLOP/s that a resource allows: its bytes/s x FLOPs per byte, up to what its processor computes."""

    flops_per_s: float
    bytes_per_s: float

    def at(self, intensity: float) -> float:
        """FLOP/s at so many FLOPs per byte."""
        return min(self.flops_per_s, self.bytes_per_s * intensity)


@dataclass(frozen=True, slots=True)
class Point:
    """Where a phase works: FLOPs per byte that `resource` moves, and the FLOP/s that come of it."""

    phase: str
    resource: str
    intensity: float
    flops_per_s: float


def roofs(case: Case) -> dict[str, Roof]:
    """By resource: rates that are reached, not datasheet peaks, as the simulator has them."""
    machine, rate = case.machine, DTYPE_RATE[case.target.dtype]
    processors = [name for name in ("gpu", "cpu") if name != "gpu" or machine.gpu is not None]
    computes = {name: _flops_per_s(machine.processor(name), rate) for name in processors}
    found = {name: Roof(most, _bytes_per_s(machine.processor(name))) for name, most in computes.items()}
    if machine.gpu is not None:
        found["h2d"] = Roof(computes["gpu"], copy_rate(machine, "h2d", pinned=True))
    found["disk"] = Roof(sum(computes.values()), copy_rate(machine, "disk", pinned=True))
    return found


def points(phase: str, timeline: Timeline) -> list[Point]:
    """One for every resource that moves bytes for a computation. The link's bytes are there for the GPU's FLOPs, the
    disk's for all."""
    flops: dict[str, float] = defaultdict(float)
    moved: dict[str, float] = defaultdict(float)
    for span in timeline.spans:
        flops[resource(span.stream)] += span.flops
        moved[resource(span.stream)] += span.bytes
    served = {"gpu": flops["gpu"], "cpu": flops["cpu"], "h2d": flops["gpu"], "disk": flops["gpu"] + flops["cpu"]}
    return [
        Point(phase, name, served[name] / moved[name], served[name] / timeline.makespan)
        for name in ROOFS
        if served[name] and moved[name]
    ]


def roofline(plan: Plan, found: Simulation) -> Figure:
    """Roofs of the resources that the plan uses, and its points: prefill, and a decode round in mid-job."""
    marks = points("prefill", found.prefill) + points("decode", found.round)
    used = {point.resource for point in marks}
    known = {name: roof for name, roof in roofs(plan.case).items() if name in used}
    subtitle = (
        "What lies between a point and its roof is idle time, and operations that are too small to reach the peak. "
        "A point on a slope waits for bytes, one under a flat roof computes. Predicted."
    )
    height = heading_inches(subtitle, _WIDTH) + _PLOT + _BELOW
    figure = new_figure(_WIDTH, height)
    box = (_LEFT / _WIDTH, _BELOW / height, 1 - (_LEFT + 0.3) / _WIDTH, _PLOT / height)
    _draw(figure.add_axes(box), known, marks)
    handles: list[Artist] = [
        Line2D([], [], color=ROOFS[name][0], label=f"{ROOFS[name][1]}: {_told(roof)}") for name, roof in known.items()
    ]
    handles += [
        Line2D([], [], color=QUIET, marker=mark, linestyle="", label=phase)
        for phase, mark in PHASES.items()
        if any(point.phase == phase for point in marks)
    ]
    legend(figure, handles, left=_LEFT, columns=2)
    heading(figure, f"Roofline: {plan.case.target.name} on {plan.case.machine.name}", subtitle)
    return figure


def _draw(axes: Axes, known: Mapping[str, Roof], marks: Sequence[Point]) -> None:
    quiet(axes, grid="both")
    ridges = [roof.flops_per_s / roof.bytes_per_s for roof in known.values()]
    left = min([p.intensity for p in marks] + ridges) / 4
    right = max([p.intensity for p in marks] + ridges) * 6
    bottom = min([p.flops_per_s for p in marks] + [roof.at(left) for roof in known.values()]) / 2
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    axes.set_ylim(bottom, 2 * max(roof.flops_per_s for roof in known.values()))
    for name, roof in known.items():
        x = np.array([left, roof.flops_per_s / roof.bytes_per_s, right])
        axes.plot(x, [roof.at(value) for value in x], color=ROOFS[name][0], linewidth=1.6, zorder=2)
    for p in marks:
        colour = ROOFS[p.resource][0]
        top = known[p.resource].at(p.intensity)
        axes.vlines(p.intensity, p.flops_per_s, max(top, p.flops_per_s), color=colour, linestyle=":", linewidth=1)
        axes.plot(p.intensity, p.flops_per_s, marker=PHASES[p.phase], color=colour, ms=9, mec=INK, mew=0.6, zorder=3)
    axes.yaxis.set_major_formatter(lambda value, _: show(value, "FLOP/s", 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("FLOPs per byte moved")
    axes.spines[["left", "bottom"]].set_color(GRID)


def _told(roof: Roof) -> str:
    return f"{show(roof.bytes_per_s, 'bytes/s')}, {show(roof.flops_per_s, 'FLOP/s')}"


def _bytes_per_s(processor: Processor) -> float:
    return processor.bytes_per_s * processor.bandwidth_efficiency


def _flops_per_s(processor: Processor, rate: str) -> float:
    """At the best efficiency that the processor is known to reach."""
    dtype = rate if rate in processor.flops_per_s else "fp32"  # what a processor cannot do it converts
    known = processor.gemm_efficiencies
    curves = [known[name] for name in (dtype, "packed", *OPS) if name in known] or [processor.gemm_efficiency]
    return processor.flops_per_s[dtype] * max(share for curve in curves for _, share in curve.points)
