"""Published systems as small timelines with exact ends, and what their jobs add up to."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from specsim import api
from specsim.acceptance import Acceptance, sample_accepted
from specsim.case import Case
from specsim.cost import timing
from specsim.cost.shapes import decode_shape
from specsim.errors import InfeasibleError
from specsim.schedule.graph import parse
from specsim.simulator import pricing
from specsim.systems import accelerate, deepspeed, fiddler, flexgen, llama_cpp, specoffload
from specsim.systems.layers import Pass, ffn_bytes, layer_bytes
from specsim.systems.outcome import Shares, busy, reaching, run, waits_for
from specsim.systems.prompts import longest
from specsim.systems.rounds import slowest_rounds
from specsim.systems.simulate import pass_seconds, stage_graphs
from specsim.systems.system import Policy, System
from specsim.systems.table import SYSTEMS
from specsim.units import GiB
from tests.conftest import ROOT
from tests.specsim import plans

CASE = api.case(machine="env1", target="mixtral-8x7b", workload="humaneval")
DRAFTED = api.case(
    machine="env1", target="mixtral-8x7b", draft="mistral-7b", workload="humaneval", acceptance=0.8, output_tokens=16
)


@cache
def chosen(name: str) -> tuple[Case, Policy]:
    """A case for a system, and the policy that it chooses there."""
    case = DRAFTED if SYSTEMS[name].drafts else CASE
    return case, SYSTEMS[name].choose(case)


def copy_s(size: float, *, pinned: bool) -> float:
    return size / timing.copy_rate(CASE.machine, "h2d", pinned=pinned)


def log(p: Pass) -> list[tuple[str, float, float]]:
    """(task, start, end) of a pass that has been laid."""
    graph = p.graph()
    starts, ends = pricing.run(graph, p.case.machine)
    return [(task.name.partition("/A/")[2], *span) for task, *span in zip(graph.tasks, starts, ends, strict=True)]


def test_accelerate_copies_and_computes_in_turn() -> None:
    done = run(CASE, accelerate.SYSTEM, Policy(16, 400))
    assert sum(busy(done).values()) == pytest.approx(1.0)
    assert done.decode_s > 31 * 31 * copy_s(layer_bytes(CASE.target), pinned=False)


def test_zero_inference_hides_computing_behind_copies() -> None:
    done = run(CASE, deepspeed.SYSTEM, Policy(16, 400))
    assert done.decode_s / 31 == pytest.approx(32 * copy_s(layer_bytes(CASE.target), pinned=True), rel=0.01)
    assert waits_for(done)[0] == "h2d"


def test_flexgen_hides_a_load_behind_the_first_batch_of_a_block_only() -> None:
    laid = Pass(CASE, "decode", decode_shape(4096, 1, 400))  # computes for longer than a layer loads
    flexgen.lay_step(laid, blocks=2, share=0.0)
    spans = log(laid)
    load = next(start for name, start, _ in spans if name == "L02/load")
    ffns = [end for name, _, end in spans if name == "L00/ffn"]
    first_of_layer_1 = next(start for name, start, _ in spans if name == "L01/proj")
    assert first_of_layer_1 == pytest.approx(ffns[1])  # the second batch of layer 0 is not hidden
    assert load == pytest.approx(first_of_layer_1)


def test_fiddler_computes_on_the_cpu_what_few_tokens_ask_for() -> None:
    shares = [fiddler.shares(Pass(CASE, "decode", decode_shape(rows, 1, 100))) for rows in (1, 40, 400)]
    on_cpu = [cpu for cpu, _, _ in shares]
    assert on_cpu[0] == pytest.approx(2 / 8)  # of one token, both experts; nobody asks for the other six
    assert on_cpu[0] < on_cpu[1] > on_cpu[2] == pytest.approx(0, abs=1e-6)
    assert [cpu + gpu <= 1 for cpu, gpu, _ in shares] == [True] * 3


def test_specoffload_overlaps_a_layer_s_load_with_its_attention_only() -> None:
    laid = Pass(DRAFTED, "decode", decode_shape(64, 5, 400))
    specoffload.lay_slot(laid, ())
    spans = {name: (start, end) for name, start, end in log(laid)}
    assert spans["L01/load"][0] == spans["L01/proj"][0] == spans["L00/ffn"][1]
    assert spans["L00/ffn"][0] == pytest.approx(max(spans["L00/load"][1], spans["L00/act_in"][1]))
    assert spans["L00/load"][1] >= copy_s(ffn_bytes(CASE.target), pinned=False)


def test_specoffload_counts_what_rows_generate_while_they_wait_for_the_slowest() -> None:
    policy = specoffload.policy(DRAFTED, 64, prefill_batch=32, gamma=4, draft_batch=8)
    job = run(DRAFTED, specoffload.SYSTEM, policy).job
    assert job.useful == 2 * 64 * 16
    assert job.counted > 1.2 * job.useful
    prefill = job.stages[0]
    assert (prefill.times, prefill.shapes[0].rows) == (4, 32)  # two sweeps for each of two batches


def test_the_slowest_of_a_batch_is_what_drawing_lots_says() -> None:
    acceptance, rows, tokens = Acceptance.constant(0.7, "given", "test"), 32, 20
    rng = np.random.default_rng(1)
    gains = sample_accepted(acceptance, 3, rng, 4000 * rows, tokens).reshape(4000, rows, tokens) + 1
    needed = (np.cumsum(gains, axis=2) < tokens).sum(axis=2).max(axis=1) + 1
    error = needed.std() / 4000**0.5
    assert slowest_rounds(acceptance, 3, rows, tokens) == pytest.approx(needed.mean(), abs=4 * error)
    assert slowest_rounds(Acceptance.constant(1.0, "given", "test"), 3, rows, 20) == pytest.approx(5)
    assert slowest_rounds(Acceptance.constant(0.0, "given", "test"), 3, rows, 20) == pytest.approx(20)
    assert slowest_rounds(Acceptance.constant(1.0, "given", "test"), 9, rows, 4) == pytest.approx(1)


def test_llama_cpp_needs_the_experts_in_ram_and_no_more() -> None:
    size = plans.case().target.layers * ffn_bytes(plans.case().target)
    assert run(plans.case(ram=size), llama_cpp.SYSTEM).peak_bytes["ram"] == size
    with pytest.raises(InfeasibleError):
        run(plans.case(ram=size - 1), llama_cpp.SYSTEM)


def test_llama_cpp_copies_experts_only_for_many_tokens() -> None:
    few, many = (run(CASE, llama_cpp.SYSTEM, Policy(batch, 158)) for batch in (4, 64))
    assert (waits_for(few)[0], waits_for(many)[0]) == ("cpu", "h2d")


def test_throughput_is_tokens_over_prefill_and_decode() -> None:
    done = run(CASE, accelerate.SYSTEM, Policy(16, 400))
    parts = [s.times * pass_seconds(stage_graphs(CASE, s), CASE.machine) for s in done.job.stages]
    assert [done.prefill_s, done.decode_s] == pytest.approx(parts)
    assert done.counted_per_s == pytest.approx(16 * 32 / sum(parts))


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_system_chooses_fits(name: str) -> None:
    case, policy = chosen(name)
    sizes, budgets = SYSTEMS[name].memory(case, policy), case.machine.budgets()
    assert all(size <= budgets[memory] for memory, size in sizes.items())


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_task_has_a_name_that_can_be_taken_apart(name: str) -> None:
    case, policy = chosen(name)
    laid = [graph for stage in SYSTEMS[name].job(case, policy).stages for graph in stage_graphs(case, stage)]
    assert {parse(task.name).batch for graph in laid for task in graph.tasks} == {"A"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_faster_link_never_makes_a_policy_slower(name: str) -> None:
    case, policy = chosen(name)
    faster = case.on(case.machine.scaled(link=2.0))
    assert run(faster, SYSTEMS[name], policy).seconds <= run(case, SYSTEMS[name], policy).seconds


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_run_small_models_and_short_outputs_too(name: str) -> None:
    """Where a batch of one or two tokens leaves most experts alone, and a round brings more tokens than are wanted."""
    case = plans.case(vram=GiB)
    case = replace(case, workload=replace(case.workload, requests=16))
    assert run(case, SYSTEMS[name]).useful_per_s > 0


def test_what_fits_nowhere_is_infeasible() -> None:
    small = api.case(machine="env1", target="mixtral-8x7b", workload="humaneval", vram=2 * 2**30)
    with pytest.raises(InfeasibleError, match="vram"):
        run(small, accelerate.SYSTEM)


def test_a_batch_is_padded_to_its_longest_prompt() -> None:
    work = CASE.workload
    assert longest(work, work.requests) == work.prompt_tokens_max
    assert longest(work, 1) == pytest.approx(work.prompt_tokens_mean)
    assert longest(work, 10) < longest(work, 100) < work.prompt_tokens_max


def test_shares_replace_a_machine_s_own_efficiencies() -> None:
    machine = reaching(CASE.machine, Shares(link=0.5, gpu=0.4, cpu=0.3, dram=0.6))
    assert CASE.machine.link is not None
    assert timing.copy_rate(machine, "h2d", pinned=False) == 0.5 * CASE.machine.link.bytes_per_s
    assert machine.processor("gpu").gemm_efficiency.at(100) == 0.4
    assert machine.processor("cpu").bandwidth_efficiency == 0.6
    assert reaching(CASE.machine, Shares()) == CASE.machine


def test_the_documentation_s_own_system_runs_in_at_most_60_lines() -> None:
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert source.count("\n") <= 60
    written: dict[str, object] = {}
    exec(compile(source, "docs/published.md", "exec"), written)
    system, case = written["SYSTEM"], CASE
    assert isinstance(system, System)
    assert isinstance(case, Case)
    assert run(case, system).useful_per_s > run(case, accelerate.SYSTEM).useful_per_s
