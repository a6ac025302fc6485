"""Memory by tier and phase as a picture: what fills each memory when it is fullest, beside what the plan may use.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from specsim.answer import Plan
from specsim.memory import PHASES, Items, peak_items
from specsim.report.sections import used_memories
from specsim.report.style import INK, PALETTE, PAPER, PLAIN, QUIET, heading, heading_inches, legend, new_figure, quiet
from specsim.units import show

#: what a person tells apart -> items of `specsim.memory`; all others are workspaces
GROUPS: Final = {
    "weights": ("weights", "pinned weights", "pageable weights"),
    "KV cache": ("kv",),
    "draft": ("draft weights", "draft weights (to load)", "draft kv", "draft kv (working set)", "draft workspace"),
    "ring and staging": ("ring", "kv staging", "disk staging"),
    "embedding and head": ("embedding", "head"),
}
WORKSPACES: Final = "workspaces"
COLOURS: Final = dict(zip((*GROUPS, WORKSPACES), PALETTE, strict=False))
_GROUP_OF: Final = {item: group for group, items in GROUPS.items() for item in items}

_WIDTH, _LEFT, _RIGHT = 9.0, 0.95, 0.95  # inches
_ROW, _PANEL, _BOTTOM = 0.3, 0.55, 0.3  # inches: of a phase, around a memory's phases, of the legend's margin
#: a budget that is more than so many times what is used would leave a picture of nothing
_FAR = 4.0


def memory_picture(plan: Plan) -> Figure:
    """A panel per memory, each on its own scale: a bar per phase, its parts, and a line at the budget."""
    peaks = peak_items(plan.case, plan.decision)
    budgets = {memory: plan.case.machine.budgets()[memory] for memory in used_memories(plan)}
    subtitle = "Most bytes that are held at once, by phase; the line is what the plan may use. Predicted."
    height = heading_inches(subtitle, _WIDTH) + len(budgets) * (len(PHASES) * _ROW + _PANEL) + _BOTTOM
    figure = new_figure(_WIDTH, height)
    top = height - heading_inches(subtitle, _WIDTH)
    drawn: set[str] = set()
    for memory, budget in budgets.items():
        phases = {phase: grouped(peaks[phase][memory]) for phase in PHASES}
        drawn |= {group for groups in phases.values() for group, size in groups.items() if size}
        low = top - len(PHASES) * _ROW - 0.3
        box = (_LEFT / _WIDTH, low / height, 1 - (_LEFT + _RIGHT) / _WIDTH, len(PHASES) * _ROW / height)
        _panel(figure.add_axes(box), memory, phases, budget)
        top = low - _PANEL + 0.3
    legend(figure, [Patch(color=colour, label=group) for group, colour in COLOURS.items() if group in drawn])
    heading(figure, f"Memory: {plan.case.target.name} on {plan.case.machine.name}", subtitle)
    return figure


def grouped(items: Items) -> Mapping[str, float]:
    """Bytes by group, in the order of `GROUPS`, workspaces last."""
    sums = dict.fromkeys(COLOURS, 0.0)
    for item, size in items.items():
        sums[_GROUP_OF.get(item, WORKSPACES)] += size
    return sums


def _panel(axes: Axes, memory: str, phases: Mapping[str, Mapping[str, float]], budget: float) -> None:
    quiet(axes)
    used = max(sum(groups.values()) for groups in phases.values())
    near = budget <= _FAR * used
    most = max(used, budget if near else 0.0) or 1.0
    axes.set_xlim(0, 1.02 * most)
    axes.set_ylim(len(phases) - 0.5, -0.5)
    for row, groups in enumerate(phases.values()):
        for (group, size), end in zip(groups.items(), accumulate(groups.values()), strict=True):
            if size:
                axes.barh(row, size, left=end - size, height=0.72, color=COLOURS[group], edgecolor=PAPER, linewidth=0.5)
        text = show(sum(groups.values()), "bytes")
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", size=9.5, color=INK)
    if near:
        axes.axvline(budget, color=INK, linewidth=1.2)
    name = memory.upper() if memory != "disk" else memory
    axes.set_title(f"{name}, of {show(budget, 'bytes')}", loc="left", size=9.5, weight="bold", color=INK, **PLAIN)
    axes.set_yticks(range(len(phases)), list(phases))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(labelcolor=QUIET)
