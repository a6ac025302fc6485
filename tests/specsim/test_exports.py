"""Plans for other engines: flags that these have, memory that there is, and only losses that there are."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import specsim
from specsim.answer import Plan
from specsim.decision import AttentionPlacement, LayerPlacement, PartPlacement
from specsim.errors import InfeasibleError, InputError, UnknownNameError
from specsim.exports.export import Export, documented
from specsim.exports.modules import Module, assign, modules
from specsim.exports.table import ENGINES
from specsim.hardware import Peer
from specsim.model import from_config
from specsim.systems import accelerate, llama_cpp
from specsim.systems.outcome import run
from specsim.systems.policies import plain_job, simple_policy
from specsim.units import GiB, MiB
from tests.specsim import plans

STUB = '#!/bin/sh\nprintf "%s\\n" "$(basename "$0")" "$@" "" >> "$CALLS"\n'
#: what converts also makes its file, or half of it and no more
CONVERTS = STUB + 'while [ "$1" != --outfile ]; do shift; done\necho > "$2"\n'
STOPS = CONVERTS + "exit 1\n"


def called(export: Export, folder: Path, *arguments: str, python: str = CONVERTS, status: int = 0) -> list[list[str]]:
    """The command lines that an export's script really calls, with programs that do little but write theirs down."""
    for program, stub in {"llama-server": STUB, "vllm": STUB, "python": python}.items():
        (folder / program).write_text(stub)
        (folder / program).chmod(0o755)
    ((name, text),) = export.files.items()
    (folder / name).write_text(text)
    (folder / "calls").unlink(missing_ok=True)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(folder / "calls")}
    assert subprocess.run(["sh", name, *arguments], cwd=folder, env=environment, check=False).returncode == status
    return [call.split("\n") for call in (folder / "calls").read_text().removesuffix("\n\n").split("\n\n")]


def options(call: list[str]) -> dict[str, str]:
    """Flags with their values; a flag without one has "". None of these engines' values here begins with a dash."""
    found: dict[str, str] = {}
    for word, following in zip(call, [*call[1:], "-"], strict=True):
        if word.startswith("-"):
            found[word] = "" if following.startswith("-") else following
    return found


def with_policy(plan: Plan, **changes: Any) -> Plan:
    decision = plan.decision
    return replace(
        plan, decision=msgspec.structs.replace(decision, policy=msgspec.structs.replace(decision.policy, **changes))
    )


def on(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, case=replace(plan.case, **changes))


def lost(export: Export) -> dict[str, str]:
    return {loss.what: loss.here for loss in export.lost}


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("drafter", ["model", "ngram", "none"])
@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_flags_are_those_that_the_named_version_documents(engine: str, drafter: str, gpu: bool, tmp_path: Path) -> None:
    plan = plans.plan(gpu=gpu)
    if drafter == "ngram":
        plan = with_policy(on(plan, draft=None), draft=None)
    elif drafter == "none":
        plan = with_policy(replace(plan, case=plan.case.plain()), gamma=0, draft=None)
    if engine == "vllm" and not gpu:
        with pytest.raises(InputError, match="vLLM offloads to RAM from a GPU, and the plan has none; choose --for"):
            specsim.export(plan, for_=engine)
        return
    export = specsim.export(plan, for_=engine)
    known = documented(engine)
    served = called(export, tmp_path, "TARGET", "a draft's folder")[-1]
    assert options(served).keys() <= known.flags
    assert export.version == known.version
    assert all(source.startswith("https://") for source in known.sources)


def test_llama_cpp_without_a_gpu_has_the_plan_s_draft_and_converts_both_models(tmp_path: Path) -> None:
    plan = plans.plan(gpu=False)
    *converted, served = called(specsim.export(plan, for_="llama.cpp"), tmp_path, "big folder", "small")
    assert [call[1:3] for call in converted] == [
        ["convert_hf_to_gguf.py", "big folder"],
        ["convert_hf_to_gguf.py", "small"],
    ]
    assert [options(call) for call in converted] == [
        {"--outtype": "bf16", "--outfile": f"{name}-bf16.gguf.part"} for name in ("target", "draft")
    ]
    assert options(served) == {
        "-m": "target-bf16.gguf",
        "-ngl": "0",
        "-c": str(4 * (16 + 8 + 3)),  # 4 sequences in flight, each 16 + 8 tokens and 3 candidates
        "-kvu": "",
        "-np": "4",
        "-b": "64",
        "-ub": "64",
        "-md": "draft-bf16.gguf",
        "-ngld": "0",
        "--spec-type": "draft-simple",
        "--spec-draft-n-max": "3",
    }


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
@pytest.mark.parametrize("name", ["my model", "x$(touch harm)", "it's; touch harm", "x\ntouch harm\n", "`touch harm`"])
def test_no_name_is_ever_run(engine: str, name: str, tmp_path: Path) -> None:
    plan = plans.plan()
    case = plan.case
    assert case.draft is not None
    named = on(
        plan,
        target=replace(case.target, name=name),
        draft=replace(case.draft, name=name),
        machine=replace(case.machine, name=name),
        workload=replace(case.workload, name=name),
    )
    *converted, served = called(specsim.export(named, for_=engine), tmp_path, "TARGET", "DRAFT")
    assert not (tmp_path / "harm").exists()
    assert served[0] in ("llama-server", "vllm")
    assert all(call[0] == "python" for call in converted)
    if engine == "llama.cpp":
        assert (tmp_path / f"{name}-bf16.gguf").is_file()


def test_a_conversion_that_was_interrupted_is_made_anew_and_one_that_was_not_is_kept(tmp_path: Path) -> None:
    export = specsim.export(plans.plan(gpu=False), for_="llama.cpp")
    for python, status, programs in (
        (STOPS, 1, ["python"]),
        (CONVERTS, 0, ["python", "python", "llama-server"]),
        (CONVERTS, 0, ["llama-server"]),
    ):
        calls = called(export, tmp_path, "TARGET", "DRAFT", python=python, status=status)
        assert [call[0] for call in calls] == programs


def test_llama_cpp_keeps_the_experts_of_the_last_layers_that_fit(tmp_path: Path) -> None:
    plan = plans.plan()
    experts = 4 * 3 * 1024 * 2048 * 2  # bytes of a layer's
    for vram, kept in ((320 * MiB, 4), (320 * MiB - experts, 3), (2 * GiB, 8)):
        folder = tmp_path / str(vram)
        folder.mkdir()
        export = specsim.export(on(plan, machine=replace(plan.case.machine, vram_budget_bytes=vram)), for_="llama.cpp")
        flags = options(called(export, folder, "TARGET", "DRAFT")[-1])
        assert int(flags.get("--n-cpu-moe", 0)) == 8 - kept
        assert flags["-ngl"] == "9"  # 8 layers and the head


def test_llama_cpp_is_predicted_only_with_what_the_cpu_computes_in_ram() -> None:
    plan, experts = plans.plan(), 4 * 3 * 1024 * 2048 * 2
    speeds = []
    for ram in (4 * experts, 2 * experts):  # 4 of 8 layers are kept in VRAM
        export = specsim.export(on(plan, machine=replace(plan.case.machine, ram_budget_bytes=ram)), for_="llama.cpp")
        assert "--n-cpu-moe 4" in export.files["llama.cpp.sh"]
        speeds.append(export.speed)
    assert (speeds[0].tokens_per_second or 0.0) > 0.0
    assert speeds[1].tokens_per_second is None
    assert speeds[1].basis == (
        "its CPU computes with 192 MiB of weights, and there are 96.0 MiB of RAM: "
        "specsim models llama.cpp with all of them in RAM, not on the disk"
    )


def test_llama_cpp_has_fewer_slots_where_more_would_leave_too_much_to_ram() -> None:
    plan, experts = plans.plan(), 4 * 3 * 1024 * 2048 * 2
    long = replace(plan.case.workload, prompt_tokens_mean=400, prompt_tokens_min=400, prompt_tokens_max=400)
    many = with_policy(on(plan, workload=replace(long, requests=64)), gamma=0, draft=None, batch=64, prefill_batch=64)
    chosen = {}
    for ram in (8 * experts, 4 * experts):
        export = specsim.export(on(many, machine=replace(plan.case.machine, ram_budget_bytes=ram)), for_="llama.cpp")
        assert export.speed.tokens_per_second is not None
        chosen[ram] = int(export.files["llama.cpp.sh"].split("-np ")[1].split()[0])
    assert chosen[8 * experts] > chosen[4 * experts]


def test_llama_cpp_names_the_ffns_of_a_dense_model(tmp_path: Path) -> None:
    dense = from_config({**plans.TARGET, "model_type": "mistral", "intermediate_size": 8192}, name="d", where="tests")
    case = replace(plans.case(), target=dense)
    plan = specsim.plan(case, fix=plans.QUICK | {"gamma": 0})
    flags = options(called(specsim.export(plan, for_="llama.cpp"), tmp_path, "TARGET", "DRAFT")[-1])
    assert flags["-ot"].startswith(r"blk\.(0|1|")
    assert flags["-ot"].endswith(r")\.ffn_(gate|up|down)\.weight=CPU")


def test_what_llama_cpp_keeps_in_vram_makes_it_faster() -> None:
    case = plans.case()
    policy = simple_policy(case, 4)
    rates = []
    for kept in (0, 4, 8):
        system = replace(llama_cpp.SYSTEM, job=lambda case, policy, kept=kept: llama_cpp.job(case, policy, kept))
        rates.append(run(case, system, policy).useful_per_s)
    assert rates[0] < rates[1] < rates[2]


def test_vllm_is_told_of_the_draft_and_of_the_memory(tmp_path: Path) -> None:
    plan = plans.plan()
    call = called(specsim.export(plan, for_="vllm"), tmp_path, "TARGET", 'a "draft"')[-1]
    flags = options(call)
    assert call[:3] == ["vllm", "serve", "TARGET"]
    assert (flags["--max-model-len"], flags["--max-num-seqs"], flags["--dtype"]) == ("24", "4", "bfloat16")
    offloaded = float(flags["--cpu-offload-gb"]) * GiB
    stays = float(flags["--gpu-memory-utilization"]) * plan.case.machine.gpu.vram_bytes
    assert offloaded + stays > plan.case.target.weight_bytes
    assert stays <= plan.case.machine.vram_budget_bytes
    assert '"num_speculative_tokens": 3' in flags["--speculative-config"]


def test_vllm_s_speculation_is_json(tmp_path: Path) -> None:
    call = called(specsim.export(plans.plan(), for_="vllm"), tmp_path, "TARGET", "DRAFT")[-1]
    wanted = {"method": "draft_model", "num_speculative_tokens": 3, "model": "DRAFT"}
    assert json.loads(options(call)["--speculative-config"]) == wanted


def test_only_what_the_plan_has_is_lost() -> None:
    whole = LayerPlacement(AttentionPlacement("vram", "gpu", "gpu", "vram"), (PartPlacement("vram", "gpu"),) * 4)
    plan = plans.plan()
    policy = {"gamma": 0, "draft": None, "prefill_batch": 4, "prefill_micro_batches": 1, "refill": False}
    plan = with_policy(plan, **policy)
    plan = replace(
        plan, decision=msgspec.structs.replace(plan.decision, strategy="serial", layers=(whole,) * 8, tails=())
    )
    plan = on(plan, machine=replace(plan.case.machine, vram_budget_bytes=8.0 * GiB))
    for engine in ENGINES:
        assert lost(specsim.export(plan, for_=engine)).keys() == {"exactness"}

    mixed = LayerPlacement(
        AttentionPlacement("pinned", "cpu", "gpu", "ram"),
        (PartPlacement("vram", "gpu"), PartPlacement("pinned", "gpu"), *(PartPlacement("pinned", "cpu"),) * 2),
    )
    decision = msgspec.structs.replace(plan.decision, layers=(mixed, *(whole,) * 7))
    export = specsim.export(replace(plan, decision=decision), for_="accelerate")
    told = {loss.what: loss.plan for loss in export.lost}
    assert told == {
        "loading": f"a ring of {decision.policy.ring_slots} slots: weights come while others compute",
        "attention": "1 of 8 layers attend on the CPU",
        "KV": "1 of 8 layers keep their caches in RAM",
        "FFN": "2 of 32 parts are computed by the CPU, beside the GPU",
        "pinning": "weights in page-locked RAM",
        "placement": "1 of 8 layers have FFN parts in several places",
        "exactness": "with specsim run, tokens depend on neither batch, placement nor draft",
    }


def test_a_batch_that_does_not_fit_is_halved() -> None:
    plan = plans.plan()
    least = specsim.export(plan, for_="accelerate")
    assert "batch" not in lost(least)
    long = replace(
        plan.case.workload, prompt_tokens_mean=400, prompt_tokens_min=400, prompt_tokens_max=400, requests=64
    )
    many = with_policy(on(plan, workload=long), batch=64, prefill_batch=64)
    chosen = json.loads(specsim.export(many, for_="accelerate").files["accelerate.json"])["batch"]
    assert chosen < 64
    assert lost(specsim.export(many, for_="accelerate"))["batch"] == f"{chosen} at a time, as caches have to fit VRAM"


def test_the_memory_that_is_short_is_named() -> None:
    plan = plans.plan()
    size = plan.case.target.weight_bytes
    small = on(plan, machine=replace(plan.case.machine, ram_budget_bytes=size - 64 * MiB))
    with pytest.raises(InfeasibleError, match=r"vLLM cannot hold one sequence of target: it needs 64\.0 MiB more ram"):
        specsim.export(small, for_="vllm")
    small = on(plan, machine=replace(plan.case.machine, vram_budget_bytes=1.0 * MiB))
    with pytest.raises(InfeasibleError, match=r"cannot hold one sequence of target: it needs [\d.]+ MiB more vram"):
        specsim.export(small, for_="llama.cpp")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_cannot_hold_one_sequence_says_so(engine: str) -> None:
    plan = plans.plan()
    small = on(plan, machine=replace(plan.case.machine, vram_budget_bytes=1.0 * MiB))
    with pytest.raises(InfeasibleError, match="one sequence"):
        specsim.export(small, for_=engine)


def test_an_engine_that_nobody_knows() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown engine 'llama'; did you mean llama"):
        specsim.export(plans.plan(), for_="llama")


def test_memories_are_filled_with_what_the_plan_has_most_of_there() -> None:
    parts = [
        Module("a", 0, 10, {"vram": 0.2, "ram": 0.8}),
        Module("b", 0, 10, {"vram": 0.6, "ram": 0.4}),
        Module("c", 1, 10, {"disk": 1.0}),
        Module("d", 1, 5, {"ram": 1.0}),
    ]
    homes = {"a": "ram", "b": "vram", "c": "disk", "d": "ram"}
    assert assign(parts, {"vram": 10, "ram": 19, "disk": 0}) == homes
    assert assign(parts, {"vram": 15, "ram": 19, "disk": 0}) == homes | {"d": "vram"}
    assert assign(parts, {"ram": 0, "disk": 0}) == dict.fromkeys("abcd", "disk")


def test_modules_add_up_to_the_layers() -> None:
    plan = plans.plan()
    target = plan.case.target
    layers = sum(n * target.layer_parameters(ffn) for ffn, n in target.ffn_kinds.items())
    assert sum(part.bytes for part in modules(plan.case, plan.decision)) == layers * target.element_bytes


def test_what_is_placed_on_the_gpu_fits_and_is_not_copied() -> None:
    plan = plans.plan()
    chosen = json.loads(specsim.export(plan, for_="accelerate").files["accelerate.json"])
    fast = [name for name, device in chosen["device_map"].items() if device == 0]
    there = [m for m in modules(plan.case, plan.decision) if m.name in fast or f"model.layers.{m.layer}" in fast]
    assert 0 < sum(part.bytes for part in there) < chosen["max_memory"]["0"] < 320 * MiB

    def system(copied: list[float] | None) -> float:
        def lay(p: Any) -> None:
            accelerate.lay(p, copied)

        job = lambda case, policy: plain_job(case, policy, lay, lay)  # noqa: E731
        return run(plan.case, replace(accelerate.SYSTEM, job=job), simple_policy(plan.case, 4)).useful_per_s

    assert system(None) == system(accelerate.copies(plan.case.target))
    assert system([0.0] * 9) > system(None)


@pytest.mark.parametrize("engine", ENGINES)
def test_devices_beside_the_first_are_lost(engine: str) -> None:
    plan = plans.plan(gpu=True)
    assert "devices" not in lost(ENGINES[engine].export(plan))
    several = on(plan, machine=replace(plan.case.machine, devices=2, node_devices=2, peer=Peer(1e9, 0.0)))
    export = ENGINES[engine].export(with_policy(several, stages=2))
    assert lost(export)["devices"] == "files and speed are for one device"
