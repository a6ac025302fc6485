"""What works on a machine, and what a person is told to do about what does not."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest

from specsim import doctor
from specsim.doctor import (
    CLUSTER,
    NOTEBOOKS,
    PARQUET,
    PICTURES,
    PLANNING,
    RUNNING,
    SERVING,
    Here,
    Purpose,
    advice,
    facts,
    purposes,
)
from specsim.here.gpus import Card, Gpus
from specsim.here.limits import Limits
from specsim.here.software import Torch
from specsim.here.storage import Storage
from specsim.here.system import System
from specsim.planner import solver
from tests.conftest import ROOT

GIB = 2**30
CARD = Card("RTX 4090", "NVIDIA 550.1", 24 * GIB, 23 * GIB, "PCIe 4 x16")
HERE = Here(
    software="Python 3.12, Linux 6",
    system=System("desk", "Some CPU", 8, 1, 64 * GIB, 60 * GIB),
    instructions=("AVX2",),
    limit=None,
    gpus=Gpus((CARD,)),
    storage=Storage("ext4", "SSD", 1000 * GIB, 900 * GIB),
    limits=Limits(None, 4096, "always", 0),
    packages=dict.fromkeys((*PLANNING, *PICTURES, *RUNNING, *SERVING, *NOTEBOOKS, *CLUSTER, *PARQUET), "1.0"),
    torch=Torch("CUDA 12.8", ("RTX 4090",), "AVX2"),
    solver="",
)


def without(*packages: str) -> Here:
    """The machine that lacks these."""
    torch = None if "torch" in packages else HERE.torch
    return replace(HERE, packages=HERE.packages | dict.fromkeys(packages), torch=torch)  # type: ignore[operator]


def works(here: Here) -> dict[str, bool]:
    return {purpose.name: purpose.works for purpose in purposes(here)}


def told(here: Here, name: str) -> Purpose:
    return next(purpose for purpose in purposes(here) if purpose.name == name)


def test_the_packages_that_are_looked_for_are_those_that_installing_brings() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(wanted: list[str]) -> set[str]:
        return {re.split(r"[<>=]", line)[0] for line in wanted}

    assert {"click", *PLANNING, *PICTURES} == names(project["dependencies"])
    wanted = {"run": RUNNING, "serve": SERVING, "notebooks": NOTEBOOKS, "cluster": CLUSTER, "parquet": PARQUET}
    assert {extra: names(project["optional-dependencies"][extra]) for extra in wanted} == {
        extra: set(packages) for extra, packages in wanted.items()
    }


def test_where_nothing_is_missing_nothing_is_advised() -> None:
    assert set(works(HERE).values()) == {True}
    assert [purpose.remedy for purpose in purposes(HERE) if purpose.remedy] == []
    assert advice(HERE) == []
    assert told(HERE, "running on a GPU").found == "torch for CUDA 12.8 sees RTX 4090"


def test_without_torch_planning_works_and_running_says_how_to_get_it() -> None:
    here = without("torch", "transformers")
    assert works(here) == {
        "planning": True,
        "pictures and reports": True,
        "running plans": False,
        "running on a GPU": False,
        "serving": True,
        "notebooks": True,
        "sweeps on a cluster": True,
        "sweeps as Parquet": True,
    }
    running = told(here, "running plans")
    assert running.found == "not installed: torch, transformers"
    assert running.remedy == "pip install 'specsim-offload[run]'"


def test_a_package_of_the_planner_or_its_solver_stops_planning() -> None:
    assert told(without("scipy"), "planning").found == "not installed: scipy"
    broken = told(replace(HERE, solver="the solver fails: no HiGHS"), "planning")
    assert not broken.works
    assert broken.found.endswith("; the solver fails: no HiGHS")
    assert broken.remedy == "pip install --force-reinstall scipy"


@pytest.mark.parametrize(
    ("here", "found", "remedy"),
    [
        (
            replace(HERE, gpus=Gpus(complaint="Driver/library version mismatch"), torch=Torch("CUDA 12.8")),
            "Driver/library version mismatch",
            "reinstall the GPU's driver, and restart",
        ),
        (replace(HERE, gpus=Gpus(), torch=Torch()), "no driver knows of an NVIDIA or AMD GPU", "plan with --gpu NAME"),
        (without("torch"), "needs torch, see above", "pip install 'specsim-offload[run]'"),
        (replace(HERE, torch=Torch()), "torch 1.0 is built for no GPU", "choose a build for it at "),
        (replace(HERE, torch=Torch("CUDA 13.0")), "torch for CUDA 13.0 sees none of the GPUs", "update the driver"),
    ],
)
def test_a_gpu_that_cannot_be_used_comes_with_the_reason_and_the_way_out(here: Here, found: str, remedy: str) -> None:
    purpose = told(here, "running on a GPU")
    assert not purpose.works
    assert purpose.found.startswith(found)
    assert purpose.remedy.startswith(remedy)


def test_a_torch_that_does_not_load_is_not_one_that_runs() -> None:
    here = replace(HERE, torch=Torch(complaint="ImportError: libgomp.so.1"))
    assert told(here, "running plans").found == "torch 1.0 does not load: ImportError: libgomp.so.1"
    assert told(here, "running on a GPU").found == "needs torch, see above"


def test_slow_storage_and_few_files_are_named() -> None:
    slow = replace(HERE, storage=Storage("nfs4", "network", GIB, GIB), limits=Limits(None, 256, "", 0))
    assert [line.split(":")[0] for line in advice(slow)] == [
        "this directory lies on the network",
        "256 open files are few for a large checkpoint",
    ]


def test_facts_are_what_a_person_asks_first() -> None:
    assert facts(HERE) | {"specsim": "-"} == {
        "specsim": "-",
        "processor": "Some CPU, 1 socket",
        "cores": "8 for this process",
        "instructions": "AVX2",
        "RAM": "64.0 GiB, 60.0 GiB of it free",
        "disk, here": "900 GiB free of 1000 GiB (SSD, ext4)",
        "limits": "4096 open files, any locked",
        "huge pages": "transparent always, none reserved",
        "torch": "1.0, built for CUDA 12.8, on the CPU AVX2",
        "GPU": "RTX 4090, 24.0 GiB, 23.0 GiB of it free, PCIe 4 x16, NVIDIA 550.1",
    }
    two = replace(HERE, gpus=Gpus((CARD, CARD)))
    assert [name for name in facts(two) if name.startswith("GPU")] == ["GPU 0", "GPU 1"]


def test_a_directory_that_is_gone_is_told_and_no_advice() -> None:
    gone = replace(HERE, storage=None)
    assert facts(gone)["disk, here"] == "unknown, as this directory is gone"
    assert advice(gone) == []


def test_the_solver_is_tried_on_a_program_whose_answer_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._solver() == ""
    monkeypatch.setattr(solver.Program, "solve", lambda self: (_ for _ in ()).throw(OSError("no library")))
    assert doctor._solver() == "the solver fails: no library"
    monkeypatch.setattr(solver.Program, "solve", lambda self: None)
    assert doctor._solver() == "the solver finds 0 where the least is -13"
