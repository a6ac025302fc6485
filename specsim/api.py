"""The library behind the command line: the same questions from a notebook, typed values as answers.

>>> import specsim
>>> plan = specsim.plan(gpu="rtx4090", target="mixtral-8x7b", draft="mistral-7b", workload="humaneval")
>>> plan.predicted.tokens_per_second, specsim.simulate(plan).to_frame()
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from specsim import machines
from specsim.answer import Plan
from specsim.case import Case
from specsim.energy import Tariff
from specsim.errors import InfeasibleError, InputError
from specsim.hardware import Machine
from specsim.memory import peak_items, shortfall
from specsim.planfile import dump_yaml, read_plan, write_plan
from specsim.planner.ablation import Ablation, ablate
from specsim.planner.candidates import Fixed
from specsim.planner.explain import Explanation, explain_plan
from specsim.planner.plan import make_plan
from specsim.planner.predict import mid_job_shape, round_timeline
from specsim.planner.search import Progress
from specsim.question import case, model
from specsim.runtime import executor
from specsim.schedule.lower import lower_prefill
from specsim.simulator.job import JobResult, simulate_job
from specsim.simulator.pricing import simulate as simulate_graph
from specsim.timeline import Timeline, utilisation
from specsim.units import show
from specsim.validation.record import read_run
from specsim.validation.throughput import Comparison as Compared
from specsim.validation.throughput import Ran
from specsim.validation.throughput import compare as compare_run
from specsim.whatif.breakeven import ACCEPTANCES, BreakEvenMap, Over, find_break_even
from specsim.whatif.budget import KEEP, POINTS, MemoryCurve, find_curve
from specsim.whatif.parts import named
from specsim.whatif.prices import Prices, read_prices, with_prices
from specsim.whatif.upgrade import Upgrades, find_upgrades
from specsim.workload import prompt_lengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from specsim.exports.export import Export
    from specsim.planner.compare import Comparison
    from specsim.whatif.sweep import Sweep
    from specsim.whatif.vary import Field, Value

__all__ = [
    "Simulation",
    "Tariff",
    "Validation",
    "ablation",
    "breakeven",
    "budget",
    "case",
    "compare",
    "draw",
    "explain",
    "export",
    "measure",
    "model",
    "plan",
    "read_plan",
    "run",
    "simulate",
    "sweep",
    "upgrade",
    "validate",
    "write_plan",
]


@dataclass(frozen=True, slots=True)
class Simulation:
    """One round in mid-job, the prefill, and the whole job of a plan."""

    round: Timeline
    prefill: Timeline
    job: JobResult

    def to_frame(self) -> Any:
        """The tasks of the round as a pandas DataFrame."""
        return self.round.to_frame()

    @property
    def utilisation(self) -> Mapping[str, float]:
        """Share of the round that each resource is busy."""
        return utilisation(self.round)


@dataclass(frozen=True, slots=True)
class Validation:
    """A plan beside its run: what was measured, where the error lies, and the timelines `predicted` (for the rounds as
    they turned out) and `measured`."""

    plan: Plan
    ran: Ran
    comparison: Compared
    timelines: Mapping[str, Timeline]


#: what `draw` has pictures of
Answer: TypeAlias = "Plan | Comparison | Ablation | Sweep | Upgrades | BreakEvenMap | MemoryCurve | Validation"


def plan(
    question: Case | None = None,
    *,
    fix: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Plan:
    """The fastest lossless plan for a case, or for the `options` of `case`; `fix` settles policy fields in advance.

    Raises InputError for bad input and InfeasibleError where nothing fits.
    """
    return make_plan(question or case(**options), fixed(fix or {}), progress=progress)


def simulate(plan: Plan | str | Path) -> Simulation:
    """The timelines of a plan, or of a plan file. Raises InfeasibleError for one that exceeds a memory's budget, as a
    plan edited by hand may."""
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    question, decision = plan.case, plan.decision
    short = shortfall(question.machine.budgets(), peak_items(question, decision))
    if short is not None:
        phase, memory, missing = short
        what = f"the plan exceeds what it may use of {memory} by {show(missing, 'bytes')} in {phase}"
        raise InfeasibleError(f"{what}; plan again, or give it more")
    lengths = prompt_lengths(question.workload)[: decision.policy.in_flight].tolist()
    prefill = simulate_graph(lower_prefill(question, decision, lengths), question.machine)
    one = round_timeline(question, decision, mid_job_shape(question, decision))
    return Simulation(one, prefill, simulate_job(question, decision))


def explain(plan: Plan | str | Path, progress: Progress | None = None) -> Explanation:
    """What bounds a plan, and what would make it faster: see `Explanation`."""
    return explain_plan(plan if isinstance(plan, Plan) else read_plan(plan), progress)


def ablation(question: Case | None = None, *, progress: Progress | None = None, **options: Any) -> Ablation:
    """What each decision of the planner is worth for a case, or for the `options` of `case`: see `Ablation`."""
    return ablate(question or case(**options), progress)


def compare(question: Case | None = None, *, progress: Progress | None = None, **options: Any) -> Comparison:
    """Every way to run a case, or the `options` of `case`, side by side: see `Comparison`."""
    comparing = import_module("specsim.planner.compare")  # only who compares waits for what published systems import
    found: Comparison = comparing.compare_all(question or case(**options), progress)
    return found


def export(plan: Plan | str | Path, *, for_: str) -> Export:
    """A plan, or a plan file, as a configuration of the engine `for_` ("accelerate", "llama.cpp", "vllm"), with what is
    lost on the way and how fast it would be: see `Export`. Raises UnknownNameError for another engine, InputError or
    InfeasibleError for a plan that it cannot run."""
    engines = import_module("specsim.exports.table")  # published systems again: see `compare`
    found: Export = engines.export_for(plan if isinstance(plan, Plan) else read_plan(plan), for_)
    return found


def sweep(
    vary: Mapping[str, str | Sequence[Value]],
    *,
    fix: Mapping[str, Any] | None = None,
    thorough: bool = False,
    jobs: int = -1,
    cluster: str | None = None,
    journal: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Sweep:
    """The question of `options` (those of `case`) planned anew wherever the fields that `vary` names take its values:
    `{"link": "8..64GB/s:5", "gamma": [0, 4]}`, numbers in base units. For the rest see `run_sweep`.

    Raises InputError for bad input.
    """
    varying, sweeping = (import_module(f"specsim.whatif.{name}") for name in ("vary", "sweep"))
    axes = [varying.axis(name, values) for name, values in vary.items()]

    def ask(values: Mapping[Field, Value]) -> tuple[Case, Fixed]:
        by_owner: dict[str, dict[str, Any]] = {"option": dict(options), "fix": dict(fix or {}), "scale": {}}
        for field, value in values.items():
            by_owner[field.owner][field.key] = value
        asked, fixes, factors = by_owner.values()
        if "draft" in vary and str(asked.get("draft") or "none") == "none":
            asked.pop("acceptance", None)  # an acceptance is for the drafts that there are
        question = case(**asked)
        if question.machine.gpu is None and {"gpu", "vram_bw"} & factors.keys():
            hint = "name a --gpu, or vary the CPU's"
            raise InputError("there is no GPU to make faster", where="--vary gpu-factor, vram-bw-factor", hint=hint)
        return question.on(question.machine.scaled(**factors)), fixed(fixes)

    found: Sweep = sweeping.run_sweep(
        ask,
        axes,
        thorough=thorough,
        jobs=jobs,
        cluster=cluster,
        journal=None if journal is None else Path(journal),
        progress=progress,
    )
    return found


def upgrade(
    question: Case | None = None,
    *,
    consider: Sequence[str] | None = None,
    prices: Prices | Mapping[str, float] | str | Path | None = None,
    tariff: Tariff | None = None,
    thorough: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Upgrades:
    """What to buy for a case, or for the `options` of `case`: see `Upgrades`.

    `consider` names parts, or of RAM whole sizes such as "128GiB"; without it everything that fits and is better in
    something is tried. `prices` are by those names, or a price file.
    """
    parts = None if consider is None else [named(name, "consider") for name in consider]
    if isinstance(prices, Mapping):
        prices = with_prices(Prices(), prices, "prices")
    elif isinstance(prices, str | Path):
        prices = read_prices(prices)
    asked = question or case(**options)
    return find_upgrades(asked, consider=parts, prices=prices, tariff=tariff, thorough=thorough, progress=progress)


def breakeven(
    question: Case | None = None,
    *,
    over: Over | None = None,
    rates: Sequence[float] | None = None,
    acceptances: Sequence[float] = ACCEPTANCES,
    thorough: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> BreakEvenMap:
    """From which acceptance speculation pays, by the rate at which weights come (bytes/s): see `BreakEvenMap`."""
    asked = question or case(**options)
    return find_break_even(asked, over=over, rates=rates, acceptances=acceptances, thorough=thorough, progress=progress)


def budget(
    question: Case | None = None,
    *,
    keep: float = KEEP,
    points: int = POINTS,
    progress: Progress | None = None,
    **options: Any,
) -> MemoryCurve:
    """What memory is worth for a case, or for the `options` of `case`: see `MemoryCurve`."""
    return find_curve(question or case(**options), keep=keep, points=points, progress=progress)


def draw(answer: Answer, view: str = "timeline") -> Figure:
    """The picture of an answer, as the command of that question draws it: of what `plan`, `compare`, `ablation`,
    `sweep`, `upgrade`, `breakeven`, `budget` and `validate` return. `view` is for plans: one round's "timeline", the
    "memory" by phase, or the "roofline". Raises InputError for anything else."""
    figure: Figure = import_module("specsim.report.draw").draw(answer, view)  # matplotlib takes long to load
    return figure


def measure(
    out: str | Path, *, disk_path: str | Path = ".", quick: bool = False, progress: Progress | None = None
) -> Machine:
    """Measure this machine, with the disk that holds `disk_path`, and write it to `out` (.yaml): a minute if
    `quick`, else some. Raises InputError where `out` cannot be written or torch is not installed."""
    measuring, writing = executor("executor.profile.measure"), executor("executor.profile.machine")
    effort = measuring.QUICK if quick else measuring.LONG
    found = measuring.measure(Path(disk_path), effort=effort, say=progress or _silent)
    words = dump_yaml(writing.to_profile(found, datetime.date.today()))
    try:
        Path(out).write_text(words, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(out)) from None
    return machines.assemble(machine=str(out))


def run(plan: Plan | str | Path, *, target: str | Path, prompts: str | Path, out: str | Path, **options: Any) -> Any:
    """A plan, or a plan file, executed with the real weights in the directory `target` (and `draft`) on the `prompts`
    of a file; what comes of it is in the directory `out`. The other `options` are those of
    `executor.options.RunOptions`, the answer its `RunResult`. Raises InputError for bad input, or without torch."""
    if options.get("draft") is not None:
        options["draft"] = Path(options["draft"])
    asked = executor("executor.options").RunOptions(
        target=Path(target), prompts=Path(prompts), out=Path(out), **options
    )
    return executor("executor.run").run(plan if isinstance(plan, Plan) else read_plan(plan), asked)


def validate(plan: Plan | str | Path, out: str | Path) -> Validation:
    """A plan, or a plan file, beside its run in the directory `out`. Raises InputError where there is none."""
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    ran, timelines = read_run(Path(out))
    return Validation(plan, ran, compare_run(plan, ran, timelines["predicted"], timelines["measured"]), timelines)


def fixed(fix: Mapping[str, Any]) -> Fixed:
    """Policy fields that are settled in advance, from plain values."""
    names = list(Fixed.__slots__)
    for name in fix:
        if name not in names:
            raise InputError(f"{name!r} cannot be fixed", where="--fix", hint=f"use one of: {', '.join(names)}")
    return Fixed(**fix)


def _silent(_: str) -> None:
    """Progress that nobody looks at."""
