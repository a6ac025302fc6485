"""Shipped profiles are all good, and each thing that can be wrong with a file is reported by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from specsim import profiles
from specsim.errors import InputError, UnknownNameError

SHIPPED = [path for kind, folder in profiles.KINDS.items() for path in sorted((profiles.root() / folder).iterdir())]

GPU = """\
schema: specsim.gpu/1
name: tiny
title: Tiny card
sources:
  sheet: {kind: datasheet, document: "Tiny card data sheet"}
  run: {kind: measured, date: 2025-01-31, tool: specsim 0.1, n: 20, spread: 2 %}
facts:
  vram: [2 GiB, sheet]
  vram_bandwidth: [100 GB/s, sheet]
  bf16: [10 TFLOP/s, sheet]
  fp32: [5 TFLOP/s, sheet]
  power: [50 W, sheet]
  gemm_efficiency: [{1: 0.02, 64: 50 %}, run]
link: pcie4x8
host: desktop-ddr4-64g
"""


def file(folder: Path, text: str, name: str = "tiny.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.suffix == ".yaml"], ids=lambda path: path.stem)
def test_shipped_profiles_have_no_problems(path: Path) -> None:
    assert profiles.problems(path) == []


def test_a_gpu_reads_in_base_units(tmp_path: Path) -> None:
    gpu = profiles.gpu(str(file(tmp_path, GPU)))
    assert (gpu.name, gpu.title, gpu.link, gpu.host) == ("tiny", "Tiny card", "pcie4x8", "desktop-ddr4-64g")
    assert (gpu.vram_bytes, gpu.power_watts) == (2 * 2**30, 50.0)
    assert gpu.processor.flops_per_s == {"bf16": 10e12, "fp32": 5e12}
    assert gpu.processor.gemm_efficiency.points == ((1.0, 0.02), (64.0, 0.5))
    assert gpu.processor.overhead_s == 20e-6


def test_facts_carry_their_source_and_defaults_are_assumed(tmp_path: Path) -> None:
    facts = {fact.field: fact for fact in profiles.read(file(tmp_path, GPU)).facts()}
    assert facts["gpu.vram"].value == "2 GiB"
    assert (facts["gpu.vram"].kind, facts["gpu.vram"].source) == ("datasheet", "Tiny card data sheet")
    assert facts["gpu.gemm_efficiency"].value == "1: 0.02, 64: 0.5"
    assert facts["gpu.gemm_efficiency"].source == "2025-01-31, specsim 0.1, n=20, spread 2 %"
    assert (facts["gpu.overhead"].value, facts["gpu.overhead"].kind) == ("20 us", "assumed")
    assert "gpu.fp16" not in facts


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "vram: [2 GiB",
            "vram: [2 GB/s",
            "facts.vram: '2 GB/s' has unit 'GB/s', which is not one of bytes; use",
        ),
        ("  power: [50 W, sheet]\n", "", "facts: power is missing; add power: [value, source]"),
        ("  power:", "  pwoer: [1 W, sheet]\n  power:", "facts: unknown fact 'pwoer'; did you mean power?"),
        ("title:", "titel: x\ntitle:", "unknown key 'titel'; did you mean title?"),
        ("title: Tiny card\n", "", "title is missing; add title:"),
        ("title: Tiny card", "title: 7", "title: Expected str, got int"),
        ("[50 W, sheet]", "[50 W, shet]", "facts.power: unknown source 'shet'; did you mean sheet?"),
        ("[50 W, sheet]", "50 W", "facts.power: '50 W' is not a fact; write [value, source key]"),
        ("%}, run]", "%}, sheet]", "sources.run: no fact uses this source; remove it"),
        (", n: 20", "", "sources.run: measured source does not say its n"),
        ("{kind: datasheet, ", "{kind: rumour, ", "sources: Invalid enum value 'rumour' - at $[...].kind"),
        ("name: tiny", "name: huge", "name is 'huge'; name it as its file: tiny"),
        ("64: 50 %", "64: 1.5", "facts.gemm_efficiency: 1.5 is more than 1; a share lies between 0 and 1"),
        ("{1: 0.02", "{128: 0.02", "facts.gemm_efficiency: {128: 0.02, 64: '50 %'} is not a curve; write"),
        ("pcie4x8", "pcie4x9", "unknown link 'pcie4x9'; did you mean pcie4x8"),
        ("gpu/1", "gpu/2", "schema is 'specsim.gpu/2'; write specsim.gpu/1 or"),
        ("power:", "vram:", "line 12: key 'vram' twice"),
        ("facts:", "facts: [", "line 9: "),
    ],
)
def test_each_problem_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GPU
    path = file(tmp_path, GPU.replace(old, new, 1))
    lines = profiles.problems(path)
    assert [line for line in lines if line.startswith(f"{path}: {problem}")], lines
    assert all("\n" not in line for line in lines)


def test_all_problems_of_a_file_are_listed_and_reading_raises_the_first(tmp_path: Path) -> None:
    text = GPU.replace("title:", "titel:").replace("2 GiB", "2").replace("50 W", "50 J")
    path = file(tmp_path, text)
    keys = [line.removeprefix(f"{path}: ").split(";")[0] for line in profiles.problems(path)]
    assert keys == [
        "unknown key 'titel'",
        "title is missing",
        "facts.vram: '2' has no unit of bytes",
        "facts.power: '50 J' has unit 'J', which is not one of watts",
    ]
    with pytest.raises(InputError, match="unknown key 'titel'"):
        profiles.read(path)


def test_unstated_sources_are_for_plan_files_only(tmp_path: Path) -> None:
    path = file(tmp_path, GPU.replace('datasheet, document: "Tiny card data sheet"', "unstated"))
    assert profiles.problems(path) == [f"{path}: sources.sheet: source is unstated; say where from"]


def test_pageable_copies_are_never_faster_than_pinned_ones(tmp_path: Path) -> None:
    text = """\
schema: specsim.link/1
name: odd
title: Odd link
sources: {guess: {kind: assumed, why: test}}
facts: {bandwidth: [1 GB/s, guess], pageable_efficiency: [0.9, guess]}
"""
    path = file(tmp_path, text, "odd.yaml")
    assert profiles.problems(path) == [f"{path}: pageable_efficiency 0.9 is above efficiency 0.8"]
    for name in profiles.names("link"):
        link = profiles.link(name)
        assert link.rate(pinned=False) < link.rate(pinned=True)


def test_pairs_hold_acceptance_by_position(tmp_path: Path) -> None:
    text = """\
schema: specsim.pair/1
name: big--small--code
title: Big with small on code
target: big
draft: small
text: code
sources: {run: {kind: measured, document: "a report of this test"}}
facts: {acceptance: [[0.8, 0.75], run], spread: [0.04, run]}
"""
    path = file(tmp_path, text, "big--small--code.yaml")
    assert profiles.problems(path) == []
    pair = profiles.pair(str(path))
    assert (pair.target, pair.draft, pair.text, pair.spread) == ("big", "small", "code", 0.04)
    assert pair.acceptance.hazards == (0.8, 0.75)
    assert (pair.acceptance.kind, pair.acceptance.source) == ("measured", "a report of this test")
    path.write_text(text.replace("0.75", "1.75"))
    assert profiles.problems(path)[0].startswith(f"{path}: facts.acceptance: 1.75 is more than 1")


def test_the_example_in_the_readme_of_pairs_is_a_good_profile(tmp_path: Path) -> None:
    readme = (profiles.root() / "pairs" / "README.md").read_text()
    example = readme.split("```yaml\n")[1].split("```")[0]
    path = file(tmp_path, example, "mixtral-8x7b--mistral-7b--humaneval.yaml")
    assert profiles.problems(path) == []


def test_workloads_read_as_published() -> None:
    w = profiles.workload("samsum")
    assert (w.prompt_tokens_mean, w.prompt_tokens_max, w.prompt_tokens_min) == (168, 1144, 56)
    assert (w.output_tokens, w.requests) == (32, 512)


def test_datasheet_values_that_plans_rest_on() -> None:
    assert profiles.gpu("rtx4090").processor.flops_per_s["bf16"] == pytest.approx(165.2e12)
    assert profiles.gpu("rtx3090").processor.flops_per_s["bf16"] == pytest.approx(71e12)
    assert profiles.link("pcie3x16").rate(pinned=True) == pytest.approx(12.6e9, rel=1e-3)
    assert 5e9 < profiles.link("pcie3x16").rate(pinned=False) < 6e9
    assert profiles.host("env1").ram_bytes == 256 * 2**30
    assert profiles.disk("nvme-gen4").rate() == pytest.approx(0.85 * 7.45e9)


def test_names_and_paths_that_are_not_there() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown gpu 'rtx4900'; did you mean rtx4090 or "):
        profiles.find("gpu", "rtx4900")
    with pytest.raises(InputError, match=r"^rtx4090.yaml: no such file; names need no ending: rtx4090$"):
        profiles.find("gpu", "rtx4090.yaml")
    for kind, name in (("gpu", "x" * 300 + ".yaml"), ("model", "x" * 300 + ".json"), ("gpu", "x\0.yaml")):
        with pytest.raises(InputError, match="no such file"):  # though to the system it is an error to ask
            profiles.find(kind, name)
    assert profiles.find("gpu", "rtx4090") == profiles.root() / "gpus" / "rtx4090.yaml"


def test_files_that_are_no_profiles(tmp_path: Path) -> None:
    assert profiles.problems(file(tmp_path, "- 1")) == [f"{tmp_path / 'tiny.yaml'}: is not a mapping of keys to values"]
    assert profiles.problems(tmp_path / "gone.yaml") == [
        f"{tmp_path / 'gone.yaml'}: cannot be read: No such file or directory"
    ]
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert profiles.problems(tmp_path / "bytes.yaml") == [f"{tmp_path / 'bytes.yaml'}: cannot be read: not UTF-8 text"]
