"""The library: typed answers to the same questions, whatever form the question has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import specsim
from specsim import api, profiles
from specsim.answer import Plan
from specsim.errors import InputError, UnknownNameError
from specsim.planfile import to_dict, write_plan
from specsim.planner import anew as anew_module
from specsim.planner import explain as explain_module
from specsim.planner.explain import Explanation
from specsim.simulator.job import simulate_job
from specsim.timeline import Timeline
from specsim.units import GiB, MiB
from specsim.workload import Workload
from tests.specsim import plans
from tests.specsim.plans import QUICK

WORK: dict[str, Any] = {"prompt_tokens": 16, "output_tokens": 8, "requests": 4}

#: what a config.json of this model holds besides the facts, as transformers writes it
EXTRA = {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.02,
    "transformers_version": "4.36.0.dev0",
    "use_cache": True,
}


def named(folder: Path) -> dict[str, Any]:
    """The tiny question as options of `specsim.plan`."""
    target, draft = (
        plans.checkpoint(folder / "target", plans.TARGET),
        plans.checkpoint(folder / "draft", plans.DRAFT),
    )
    return {"gpu": "rtx4090", "vram": 320 * MiB, "target": target, "draft": draft, **WORK}


def test_a_plan_is_a_value_and_is_made_of_names_or_of_a_case(tmp_path: Path) -> None:
    by_name = specsim.plan(**named(tmp_path), acceptance=0.7, fix=QUICK)
    assert isinstance(by_name, Plan)
    assert by_name.decision == plans.plan().decision
    assert by_name.predicted.tokens_per_second == plans.plan().predicted.tokens_per_second
    assert specsim.plan(by_name.case, fix=QUICK).decision == by_name.decision


def test_what_is_fixed_stays_fixed(tmp_path: Path) -> None:
    plan = specsim.plan(plans.case(), fix={"gamma": 2, "batch": 1, "strategy": "interleaved", "ring_slots": 2})
    policy = plan.decision.policy
    assert (plan.decision.strategy, policy.gamma, policy.batch, policy.batches) == ("interleaved", 2, 1, 2)
    assert policy.ring_slots == 2
    assert specsim.plan(plans.case(), fix={"gamma": 0, "batch": 4}).decision.policy.draft is None


@pytest.mark.parametrize(
    ("fix", "says"),
    [
        ({"gama": 3}, "--fix: 'gama' cannot be fixed; use one of: strategy, gamma, batch"),
        ({"strategy": "serail"}, "--fix strategy: unknown strategy 'serail'; did you mean serial?"),
        ({"gamma": -1}, "--fix gamma: gamma is -1; give a whole number from 0"),
        ({"attention": "tpu"}, "--fix attention: unknown attention 'tpu'; "),
    ],
)
def test_what_cannot_be_fixed_is_told(fix: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        specsim.plan(plans.case(), fix=fix)
    assert str(caught.value).startswith(says)


def test_speculation_without_a_draft_cannot_be_fixed() -> None:
    with pytest.raises(InputError, match="--fix gamma: gamma 3 needs a draft; name a --draft"):
        specsim.plan(plans.case().plain(), fix={"gamma": 3})


def test_drafting_from_the_text_needs_no_model(tmp_path: Path) -> None:
    options = named(tmp_path) | {"draft": "ngram"}
    given = api.case(**options, acceptance=0.6)
    assert given.draft is None
    assert given.acceptance is not None
    assert (given.acceptance.hazards, given.acceptance.kind) == ((0.6,), "given")
    plan = specsim.plan(**options, fix=QUICK)
    assert (plan.decision.policy.gamma, plan.decision.policy.draft) == (3, None)
    assert plan.provenance.assumptions[0] == (
        "acceptance 0.3 (n-gram drafting: it depends wholly on the text; give --acceptance, or measure it)"
    )
    assert list(plan.predicted.band) == ["0.15", "0.45"]


def test_progress_is_told_what_is_done() -> None:
    said: list[str] = []
    specsim.plan(plans.case(), fix=QUICK, progress=said.append)
    assert said[0] == "bounding 1 policies"
    assert "placing serial, gamma 3, 1 x 4" in said


def test_a_simulation_holds_a_round_the_prefill_and_the_job(tmp_path: Path) -> None:
    plan = plans.plan()
    found = specsim.simulate(plan)
    assert isinstance(found.round, Timeline)
    assert isinstance(found.prefill, Timeline)
    assert found.job == simulate_job(plan.case, plan.decision)
    assert found.job.tokens == 4 * 8
    assert {name: round(share, 4) for name, share in found.utilisation.items()} == plan.predicted.utilisation
    frame = found.to_frame()
    assert len(frame) == len(found.round.spans)
    assert len(found.job.to_frame()) == len(found.job.rounds)
    write_plan(plan, tmp_path / "plan.yaml")
    assert specsim.simulate(tmp_path / "plan.yaml") == found
    assert specsim.simulate(str(tmp_path / "plan.yaml")) == found


def test_drafting_from_the_text_is_explained_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    monkeypatch.setattr(explain_module, "STEPS", 1)
    found = specsim.explain(specsim.plan(replace(plans.case(gpu=False), draft=None), fix=QUICK))
    assert [s.change for s in found.sensitivities][3:] == ["acceptance -0.1", "acceptance +0.1"]
    assert "speculation " in found.sentence


def test_an_explanation_doubles_every_resource_and_moves_the_acceptance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    monkeypatch.setattr(explain_module, "STEPS", 1)
    write_plan(plans.plan(gpu=False), tmp_path / "plan.yaml")
    found = specsim.explain(tmp_path / "plan.yaml")
    assert isinstance(found, Explanation)
    changes = [s.change for s in found.sensitivities]
    assert sorted(changes[:3]) == ["2x CPU and DRAM bandwidth", "2x RAM", "2x disk bandwidth"]
    assert changes[3:] == ["acceptance -0.1", "acceptance +0.1"]
    gains = [s.gain for s in found.sensitivities]
    assert gains[:3] == sorted(gains[:3], reverse=True)
    for s in found.sensitivities:
        assert s.gain == s.tokens_per_second / found.base_tokens_per_second - 1
    assert found.break_even in (None, 0.0, 0.5, 1.0)
    assert found.sentence.startswith(plans.plan(gpu=False).predicted.bottleneck)
    assert list(found.to_frame()["change"]) == changes


def test_an_explanation_starts_from_a_plan_no_slower_than_the_one_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))  # hardly more than the kept policy is left
    monkeypatch.setattr(explain_module, "STEPS", 0)
    plan = plans.plan(gpu=False)
    base = explain_module.explain_plan(plan).base_tokens_per_second
    assert base == pytest.approx(plan.predicted.tokens_per_second, rel=0.05)  # the grid of round shapes is coarser


def test_a_checkpoint_directory_plans_as_the_profile_of_the_same_model(tmp_path: Path) -> None:
    profile = json.loads(profiles.find("model", "mixtral-8x7b").read_text(encoding="utf-8"))
    config = {key: value for key, value in profile.items() if key != "specsim"} | EXTRA
    folder = plans.checkpoint(tmp_path / "mixtral-8x7b", config)
    rest: dict[str, Any] = {"gpu": "rtx4090", "workload": "humaneval", "requests": 8, "draft": "mistral-7b"}
    fix = QUICK | {"batch": 8}
    shipped, local = (specsim.plan(target=target, fix=fix, **rest) for target in ("mixtral-8x7b", folder))
    assert local.case == shipped.case
    assert local.decision == shipped.decision
    assert local.predicted == shipped.predicted
    file = specsim.plan(target=f"{folder}/config.json", fix=fix, **rest)
    assert {**to_dict(file), "search": None} == {**to_dict(shipped), "search": None}


def test_workloads_come_from_a_profile_from_numbers_or_from_both() -> None:
    target = "mixtral-8x7b"
    assert api.case(target=target, gpu="rtx4090", **WORK).workload == Workload("given", "given", 16, 16, 16, 8, 4)
    whole = api.case(target=target, gpu="rtx4090", workload="humaneval").workload
    assert whole == profiles.workload("humaneval")
    mixed = api.case(target=target, gpu="rtx4090", workload="humaneval", requests=3).workload
    assert (mixed.requests, mixed.prompt_tokens_mean, mixed.output_tokens) == (3, 158, 32)
    shorter = api.case(target=target, gpu="rtx4090", workload="humaneval", prompt_tokens=20).workload
    assert (shorter.prompt_tokens_min, shorter.prompt_tokens_mean, shorter.prompt_tokens_max) == (20, 20, 20)
    own = Workload("own", "own", 5, 5, 5, 5, 5)
    assert api.case(target=target, gpu="rtx4090", workload=own).workload is own


def test_an_acceptance_is_given_or_announced_as_assumed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "mixtral-8x7b", "draft": "mistral-7b", "gpu": "rtx4090"}
    given = api.case(**options, workload="humaneval", acceptance="0.8").acceptance
    assert given is not None
    assert (given.hazards, given.kind) == ((0.8,), "given")
    assumed = api.case(**options, workload="humaneval").acceptance
    assert assumed is not None
    assert (assumed.hazards, assumed.kind) == ((0.7,), "assumed")
    pair = tmp_path / "measured.yaml"
    pair.write_text(
        "schema: specsim.pair/1\nname: measured\ntitle: t\n"
        "target: mixtral-8x7b\ndraft: mistral-7b\ntext: humaneval\n"
        "sources: {run: {kind: published, document: a paper}}\nfacts: {acceptance: [[0.8, 0.6], run]}\n",
        encoding="utf-8",
    )
    known = api.case(**options, workload="humaneval", acceptance=str(pair)).acceptance
    assert known is not None
    assert (known.hazards, known.kind, known.source) == ((0.8, 0.6), "published", "a paper")


def test_only_a_plan_on_an_assumed_acceptance_shows_a_band() -> None:
    assert list(plans.plan().predicted.band) == ["0.55", "0.85"]
    assert plans.plan().provenance.assumptions[0] == "acceptance 0.7 (tests)"


def test_no_draft_is_none_and_auto_makes_nothing_up() -> None:
    options: dict[str, Any] = {"gpu": "rtx4090", "workload": "humaneval"}
    assert api.case(target="mixtral-8x7b", draft="none", **options).draft is None
    with pytest.raises(InputError) as caught:
        api.case(target="mixtral-8x7b", draft="auto", **options)
    assert str(caught.value).startswith("--draft auto: no pair profile says which draft suits 'mixtral-8x7b'; name one")
    assert "mistral-7b" in str(caught.value)


def test_a_dtype_replaces_that_of_the_config() -> None:
    assert api.model("mixtral-8x7b").weight_bytes == 2 * 46_702_792_704
    assert api.model("mixtral-8x7b", "float32").weight_bytes == 4 * 46_702_792_704
    with pytest.raises(InputError, match="--dtype: dtype 'int4' is not supported; use one of: bfloat16, float16"):
        api.model("mixtral-8x7b", "int4")


def test_a_machine_is_a_name_parts_or_a_value() -> None:
    built = api.case(target="mixtral-8x7b", gpu="rtx4090", vram=8.0 * GiB, workload="humaneval").machine
    assert built.vram_budget_bytes == 8 * GiB
    assert api.case(target="mixtral-8x7b", machine=built, workload="humaneval").machine is built
    with pytest.raises(UnknownNameError, match="unknown machine 'env3'; did you mean env2 or env1"):
        api.case(target="mixtral-8x7b", machine="env3", workload="humaneval")
