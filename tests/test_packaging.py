"""What `pip install specsim-offload` brings: built from checkout and sdist, and used away from both."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import specsim
from tests.conftest import ROOT

NAME = f"specsim_offload-{specsim.__version__}"
INFO = f"{NAME}.dist-info"


def build(source: Path, target: str, into: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = into.iterdir()
    return built


def files(folder: str, pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_packages_the_facts_and_the_licence(wheel: Path) -> None:
    names = contents(wheel).keys()
    code = files("specsim", "*.py") | files("executor", "*.py") | files("executor/demo", "*.*")
    code |= files("specsim", "*.css") | files("specsim", "*.js")
    facts = {f"specsim/_{name}" for name in files("profiles", "*.*")}
    licences = {f"{INFO}/licenses/LICENSE", f"{INFO}/licenses/executor/demo/LICENSE-PSF"}
    assert code | facts | licences | {"specsim/py.typed"} <= names
    assert "specsim/_profiles/gpus/rtx4090.yaml" in names
    assert {name.split("/")[0] for name in names} == {"specsim", "executor", INFO}


def test_the_metadata_names_the_command_and_asks_for_neither_torch_nor_dask_nor_a_browser(wheel: Path) -> None:
    held = contents(wheel)
    metadata = Parser().parsestr(held[f"{INFO}/METADATA"].decode())
    assert (metadata["Name"], metadata["Requires-Python"]) == ("specsim-offload", ">=3.11")
    assert metadata["License-Expression"] == "Apache-2.0 AND PSF-2.0"
    assert metadata.get_all("Provides-Extra") == ["cluster", "dev", "fuzz", "notebooks", "parquet", "run", "serve"]
    plain = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert [r for r in plain if r.startswith(("torch", "transformers", "dask", "distributed", "ray", "selenium"))] == []
    assert held[f"{INFO}/entry_points.txt"] == b"[console_scripts]\nspecsim = specsim.cli.process:command\n"


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        # By name, as Python before 3.11.4 has no such filter, and from 3.12 to 3.13 warns without one.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    rebuilt = build(tmp_path / NAME, "wheel", tmp_path / "rebuilt")
    assert contents(rebuilt) == contents(wheel)


def test_away_from_the_checkout_the_facts_are_found_in_the_package(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    story = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from specsim import profiles\n"
        "print(profiles.root()); print('rtx4090' in profiles.names('gpu'))"
    )
    command = [sys.executable, "-I", "-c", story, str(site)]  # -I: neither this directory nor PYTHONPATH
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{site / 'specsim' / '_profiles'}\nTrue\n", "")
