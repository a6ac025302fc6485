"""The plan file: what is written reads back equal, and what is wrong is said in one line that names the key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.case import Case
from specsim.decision import AttentionPlacement, LayerPlacement, PartPlacement, Tail
from specsim.errors import InputError
from specsim.planfile import from_dict, read_plan, to_dict, write_plan
from specsim.planner.candidates import Fixed
from specsim.planner.plan import make_plan
from specsim.simulator.job import simulate_job
from tests.specsim import plans, stories

Keys = tuple[str | int, ...]


def at(data: Any, path: Keys) -> Any:
    for key in path:
        data = data[key]
    return data


def error(data: Any) -> str:
    """What reading `data` says, in one line."""
    with pytest.raises(InputError) as caught:
        from_dict(data, "p.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(read: Callable[..., Plan], *arguments: Any) -> Plan | str:
    """The plan that is read, or the error that says why not; anything else is raised."""
    try:
        return read(*arguments)
    except InputError as found:
        return str(found)


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("name", ["plan.yaml", "plan.json", "plan"])
def test_what_is_written_reads_back_equal(tmp_path: Path, name: str, gpu: bool) -> None:
    plan = plans.plan(gpu=gpu)
    write_plan(plan, tmp_path / name)
    assert read_plan(tmp_path / name) == plan


def test_a_plan_without_a_draft_model_names_how_it_drafts(tmp_path: Path) -> None:
    plan = make_plan(replace(plans.case(), draft=None), Fixed(**plans.QUICK))
    assert (plan.decision.policy.gamma, plan.decision.policy.draft) == (3, None)
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == plan
    data = to_dict(plan)
    assert data["draft"] == {
        "name": "ngram",
        "acceptance": [0.7],
        "acceptance_kind": "assumed",
        "acceptance_source": "tests",
        "acceptance_spread": 0.0,
        "config": None,
    }
    data["draft"]["name"] = "mistral-7b"
    assert error(data) == "p.yaml: draft 'mistral-7b' lacks its config; only 'ngram' is a draft without one"
    data["draft"] = None
    assert error(data) == "p.yaml: policy.gamma is 3 but there is no draft"


def test_a_policy_cannot_run_a_draft_that_is_no_model() -> None:
    data = plans.data()
    data["draft"] |= {"name": "ngram", "config": None}
    assert error(data) == "p.yaml: policy.draft says how a draft runs, but the plan has no draft model"


def test_json_and_yaml_hold_the_same(tmp_path: Path) -> None:
    write_plan(plans.plan(), tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert json.loads(text) == to_dict(plans.plan())
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")  # JSON is YAML
    assert read_plan(tmp_path / "plan.yaml") == plans.plan()


def test_top_level_keys_stand_in_the_order_of_the_design(tmp_path: Path) -> None:
    keys = "schema machine target draft workload strategy policy placement predicted search provenance"
    assert list(plans.data()) == keys.split()


def test_a_plan_that_was_read_simulates_to_the_predicted_numbers(tmp_path: Path) -> None:
    write_plan(plans.plan(), tmp_path / "plan.yaml")
    plan = read_plan(tmp_path / "plan.yaml")
    job = simulate_job(plan.case, plan.decision)
    predicted = plans.plan().predicted
    assert (job.tokens_per_second, job.makespan_s) == (predicted.tokens_per_second, predicted.makespan_s)


def test_a_number_that_json_writes_without_a_dot_is_a_number(tmp_path: Path) -> None:
    plan = plans.plan()
    small = msgspec.structs.replace(plan.predicted, slot_s=1e-05, decode_s=1e22)
    changed = Plan(plan.case, plan.decision, small, plan.search, plan.provenance)
    write_plan(changed, tmp_path / "plan.json")
    assert '"slot_s": 1e-05,' in (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert read_plan(tmp_path / "plan.json").predicted == small


def handmade() -> Plan:
    """Five layers of four parts: parts whose homes alternate, layers that are grouped, tails, no draft."""
    target = stories.moe(layers=5)
    gpu = AttentionPlacement("vram", "gpu", "gpu", "vram")
    here, there = PartPlacement("vram", "gpu"), PartPlacement("pinned", "cpu")
    mixed = LayerPlacement(gpu, (here, there, here, there))
    resident = LayerPlacement(gpu, (here,) * 4)
    layers = (mixed, mixed, resident, mixed, resident)
    tails = (Tail(2, (mixed,) * 5), Tail(1, (resident, *layers[1:])))
    decision = msgspec.structs.replace(stories.decision("serial", layers), tails=tails)
    plan = plans.plan()
    return Plan(stories.case(target=target), decision, plan.predicted, plan.search, plan.provenance)


def test_layers_and_parts_keep_their_order_and_tails_come_back(tmp_path: Path) -> None:
    plan = handmade()
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").decision == plan.decision
    written = to_dict(plan)["placement"]["layers"]
    assert [(group["layers"], [part["parts"] for part in group["ffn"]]) for group in written] == [
        ("0-1 3", [1, 1, 1, 1]),
        ("2 4", [4]),
    ]


ACCEPTANCE = Acceptance((0.9, 0.75, 1.0, 0.0), "measured", "n=164", 0.05)


def test_acceptance_by_position_comes_back(tmp_path: Path) -> None:
    plan = plans.plan()
    case = Case(plan.case.machine, plan.case.target, plan.case.workload, plan.case.draft, ACCEPTANCE)
    write_plan(Plan(case, plan.decision, plan.predicted, plan.search, plan.provenance), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").case.acceptance == ACCEPTANCE


#: every mapping of the file with keys of its own, and a key that it needs
MAPPINGS: list[tuple[Keys, str]] = [
    ((), "policy"),
    (("machine",), "host"),
    (("machine", "gpu"), "facts"),
    (("machine", "gpu", "facts"), "vram"),
    (("machine", "link", "facts"), "bandwidth"),
    (("target",), "config"),
    (("target", "config"), "hidden_size"),
    (("draft",), "acceptance"),
    (("workload",), "requests"),
    (("policy",), "gamma"),
    (("policy", "draft"), "micro_batch"),
    (("placement",), "layers"),
    (("placement", "layers", 0), "attention"),
    (("placement", "layers", 0, "attention"), "kv"),
    (("placement", "layers", 0, "ffn", 0), "weights"),
    (("predicted",), "tokens_per_second"),
    (("search",), "candidates"),
    (("search", "runners_up", 0), "reason"),
    (("search", "upgrades", 0), "gain"),
    (("provenance",), "version"),
]


@pytest.mark.parametrize("path", [path for path, _ in MAPPINGS if path != ("target", "config")])
def test_a_key_that_nobody_knows_is_named(path: Keys) -> None:
    data = plans.data()
    at(data, path)["gama"] = 1
    message = error(data)
    assert message.startswith("p.yaml: ")
    assert "gama" in message


@pytest.mark.parametrize(("path", "key"), MAPPINGS)
def test_a_key_that_is_missing_is_named(path: Keys, key: str) -> None:
    data = plans.data()
    del at(data, path)[key]
    message = error(data)
    assert message.startswith("p.yaml: ")
    assert key in message


def test_a_key_with_a_default_may_be_left_out() -> None:
    data = plans.data()
    del data["predicted"]["band"], data["search"]["upgrades"], data["placement"]["tails"]
    del data["policy"]["refill"], data["provenance"]["assumptions"]
    plan = from_dict(data, "p.yaml")
    assert (plan.predicted.band, plan.search.upgrades, plan.provenance.assumptions) == ({}, [], [])
    assert plan.decision == msgspec.structs.replace(plans.plan().decision, tails=())


def test_a_file_from_before_parts_had_a_size_is_cut_as_it_was_then() -> None:
    data = plans.data()
    del data["policy"]["part_bytes"], data["placement"]["tails"]
    for alike in data["placement"]["layers"]:
        alike["ffn"] = [{"parts": 1, "weights": "pinned", "processor": "gpu"}]
    decision = from_dict(data, "p.yaml").decision
    assert decision.policy.part_bytes == 512 * 2**20
    assert {len(place.ffn) for place in decision.layers} == {1}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), "specsim.plan/2", "p.yaml: schema is 'specsim.plan/2'; this version reads specsim.plan/1"),
        (("machine", "gpu", "facts", "vram", 0), "24 GW", "p.yaml: machine: gpu: facts.vram: '24 GW' has unit 'GW'"),
        (("machine", "link", "facts", "bandwidth", 0), "-1 GB/s", "facts.bandwidth: '-1 GB/s' must be more than zero"),
        (("machine", "gpu"), "none", "a link is given for a machine without a GPU"),
        (("target", "config", "model_type"), "gpt2", "p.yaml: target: model_type 'gpt2' is not supported"),
        (("target", "config", "model_type"), [], "p.yaml: target: model_type [] is not supported"),
        (("draft", "config", "vocab_size"), 999, "draft 'draft' has a vocabulary of 999 tokens"),
        (("draft", "acceptance"), [0.5, 1.5], "acceptance at position 1 is 1.5; give 0 to 1"),
        (("workload", "requests"), 0, "workload work: requests is 0; give 1 or more"),
        (("workload", "requests"), 10**12, "requests is 1000000000000; give 10000000 or less"),
        (("workload", "output_tokens"), 10**400, "output_tokens is 1000"),
        (
            ("machine", "host"),
            "/etc/x.yaml",
            "p.yaml: machine: host names the file '/etc/x.yaml'; put what it says there",
        ),
        (("machine", "host", "link"), "../x.yml", "p.yaml: machine: host: link names the file '../x.yml'"),
        (("strategy",), "parallel", "p.yaml: strategy: Invalid enum value 'parallel'"),
        (("policy", "gamma"), "four", "p.yaml: policy.gamma: Expected `int`, got `str`"),
        (("policy", "gamma"), -1, "policy.gamma and policy.ring_slots must be 0 or more"),
        (("policy", "gamma"), 10**12, "p.yaml: policy.gamma is 1000000000000; at most 1024 will do"),
        (("policy", "batch"), 2**31, "p.yaml: policy.batch is 2147483648; at most 2147483647 will do"),
        (("policy", "part_bytes"), 0, "p.yaml: policy.part_bytes is 0; it must be 1 or more"),
        (("policy", "batch"), 0, "p.yaml: policy.batch is 0; it must be 1 or more"),
        (("policy", "draft"), None, "p.yaml: policy.gamma is 3 but there is no draft"),
        (("policy", "draft", "micro_batch"), 0, "p.yaml: policy.draft.micro_batch is 0; it must be 1 or more"),
        (("policy", "ring_slots"), 0, "p.yaml: weights are streamed but policy.ring_slots is 0"),
        (("predicted", "slot_s"), float("nan"), "p.yaml: predicted.slot_s is nan; it must be zero or more"),
        (("predicted", "bound_tokens_per_second"), 0, "predicted.bound_tokens_per_second is 0; it must be more"),
        (("placement", "layers", 0, "attention", "weights"), "ram", "placement uses ["),
        (("placement", "layers", 0, "ffn", 0, "parts"), 2, "p.yaml: placement: "),
        (("placement", "layers", 0, "ffn", 0, "parts"), 10**12, "p.yaml: placement: "),
        (("placement", "layers", 0, "ffn", 0, "parts"), -1, "p.yaml: placement: "),
        (("placement", "layers", 0, "layers"), "0 x", "p.yaml: placement: layers '0 x' is not like '0-3 7'"),
        (("placement", "layers", 0, "layers"), "\N{SUPERSCRIPT TWO}", "is not like '0-3 7'"),
        (("placement", "layers", 0, "layers"), "9" * 5000, "is not like '0-3 7'"),
        (("placement", "layers", 0, "layers"), "-3", "p.yaml: placement: layers '-3' is not like '0-3 7'"),
    ],
)
def test_a_value_that_cannot_be_is_told(path: Keys, value: Any, says: str) -> None:
    data = plans.data()
    at(data, path[:-1])[path[-1]] = value
    assert says in error(data)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("0-6", "p.yaml: placement: layer 7 is not placed"),
        ("0-8", "p.yaml: placement: layer 8 does not exist in 'target'"),
        ("0-999999999999", "p.yaml: placement: layer 8 does not exist in 'target'"),
        ("0-7 3", "p.yaml: placement: layer 3 is placed twice"),
        ("", "p.yaml: placement: layer 0 is not placed"),
    ],
)
def test_a_placement_has_to_fit_the_model(layers: str, says: str) -> None:
    data = plans.data()
    data["placement"] = {"layers": [data["placement"]["layers"][0] | {"layers": layers}]}
    assert error(data) == says


def test_a_placement_that_needs_a_gpu_does_not_read_without_one() -> None:
    data = plans.data(gpu=False)
    data["placement"]["layers"][0]["ffn"][0]["processor"] = "gpu"
    assert "on a machine without a GPU" in error(data)
    data = plans.data(gpu=False)
    data["policy"]["draft"]["processor"] = "gpu"
    assert error(data) == "p.yaml: policy.draft uses a GPU on a machine without one"


#: what a value may be replaced by
WRONG: tuple[Any, ...] = (None, -1, "x", [], {}, float("nan"))


def leaves(data: Any, path: Keys = ()) -> list[Keys]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(leaf for key, value in items for leaf in leaves(value, (*path, key)))]


@pytest.mark.parametrize("gpu", [True, False])
def test_whatever_one_value_is_replaced_by_reading_never_crashes(gpu: bool) -> None:
    data = plans.data(gpu=gpu)
    for path in leaves(data)[1:]:
        holder, key = at(data, path[:-1]), path[-1]
        kept = holder[key]
        for value in WRONG:
            holder[key] = value
            found = outcome(from_dict, data, "p.yaml")
            assert isinstance(found, Plan) or "\n" not in found, path
        holder[key] = kept


@pytest.mark.parametrize(("name", "step"), [("plan.yaml", 151), ("plan.json", 499)])
def test_a_file_that_ends_too_soon_is_bad_input(tmp_path: Path, name: str, step: int) -> None:
    write_plan(plans.plan(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for size in range(0, len(whole) - 1, step):
        (tmp_path / name).write_bytes(whole[:size])
        found = outcome(read_plan, tmp_path / name)
        if isinstance(found, Plan):
            assert name == "plan.yaml"  # some of its last lines may be left out
        else:
            assert found.startswith(str(tmp_path / name)), size
            assert "\n" not in found, size


@pytest.mark.parametrize("text", ["", "[]", "42", "schema: [", "\x00", "a: &a [*a]"])
def test_a_file_that_is_no_plan_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"plan\.yaml: "):
        read_plan(tmp_path / "plan.yaml")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "plan.yaml"
    old.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"plan\.yaml: cannot be written: No space left on device"):
        write_plan(plans.plan(), old)
    assert [file.name for file in tmp_path.iterdir()] == ["plan.yaml"]
    assert old.read_text(encoding="utf-8") == "old"


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write_plan(plans.plan(), tmp_path / "nowhere" / "plan.yaml")


def test_the_frame_has_one_row_of_policy_and_prediction() -> None:
    plan = plans.plan()
    (row,) = plan.to_frame().to_dict("records")
    assert row["machine"] == "rtx4090 in desktop-ddr5-128g"
    assert row["policy_batch"] == plan.decision.policy.batch
    assert row["tokens_per_second"] == plan.predicted.tokens_per_second
