"""Published systems as small timelines, and what their jobs add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specsim import api
from specsim.cost import timing
from specsim.errors import InfeasibleError
from specsim.systems import accelerate, deepspeed
from specsim.systems.layers import layer_bytes
from specsim.systems.outcome import Shares, busy, reaching, run, waits_for
from specsim.systems.prompts import longest
from specsim.systems.simulate import pass_seconds, stage_graphs
from specsim.systems.system import Policy, System
from specsim.systems.table import SYSTEMS
from specsim.units import GiB
from tests.specsim import plans

CASE = api.case(machine="env1", target="mixtral-8x7b", workload="humaneval")


def copy_s(pinned: bool) -> float:
    """Seconds to copy one layer."""
    return layer_bytes(CASE.target) / timing.copy_rate(CASE.machine, "h2d", pinned=pinned)


def test_accelerate_copies_and_computes_in_turn() -> None:
    done = run(CASE, accelerate.SYSTEM, Policy(16, 400))
    assert sum(busy(done).values()) == pytest.approx(1.0)
    assert done.decode_s > 31 * 31 * copy_s(pinned=False)


def test_zero_inference_hides_computing_behind_copies() -> None:
    done = run(CASE, deepspeed.SYSTEM, Policy(16, 400))
    assert done.decode_s / 31 == pytest.approx(32 * copy_s(pinned=True), rel=0.01)
    assert waits_for(done)[0] == "h2d"


def test_throughput_is_tokens_over_prefill_and_decode() -> None:
    done = run(CASE, accelerate.SYSTEM, Policy(16, 400))
    prefill, decode = done.job.stages
    parts = [s.times * pass_seconds(stage_graphs(CASE, s), CASE.machine) for s in (prefill, decode)]
    assert [done.prefill_s, done.decode_s] == pytest.approx(parts)
    assert done.counted_per_s == pytest.approx(16 * 32 / sum(parts))


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=lambda system: system.name)
def test_what_a_system_chooses_fits(system: System) -> None:
    draft = {"draft": "mistral-7b", "acceptance": 0.7} if system.drafts else {}
    case = api.case(machine="env1", target="mixtral-8x7b", workload="humaneval", **draft)
    sizes, budgets = system.memory(case, system.choose(case)), case.machine.budgets()
    assert all(size <= budgets[memory] for memory, size in sizes.items())


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
    machine = reaching(CASE.machine, Shares(link=0.5, gpu=0.4, cpu=0.3))
    assert timing.copy_rate(machine, "h2d", pinned=False) == 0.5 * CASE.machine.link.bytes_per_s  # type: ignore[union-attr]
    assert machine.processor("gpu").gemm_efficiency.at(100) == 0.4
    assert reaching(CASE.machine, Shares()) == CASE.machine


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=lambda system: system.name)
def test_systems_run_small_models_and_short_outputs_too(system: System) -> None:
    """Where a batch of one or two tokens leaves most experts alone, and a round brings more tokens than are wanted."""
    case = plans.case(vram=GiB)
    case = replace(case, workload=replace(case.workload, requests=16))
    assert run(case, system).useful_per_s > 0
