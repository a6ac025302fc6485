"""Dependencies are bounded on both sides, and what is installed here lies between."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.requirements import Requirement

from tests.bounds import bounds, lowest, requirements

#: what only those who work on the project install may be of any newer version
RUNTIME = [(extra, one) for extra, listed in requirements().items() if extra != "dev" for one in listed]
ALL = [one for listed in requirements().values() for one in listed]


@pytest.mark.parametrize(("extra", "requirement"), RUNTIME, ids=lambda value: str(value) or "always")
def test_every_dependency_has_both_bounds(extra: str, requirement: Requirement) -> None:
    assert bounds(requirement).keys() == {">=", "<"}


@pytest.mark.parametrize("requirement", ALL, ids=str)
def test_what_is_installed_lies_within_them(requirement: Requirement) -> None:
    if requirement.marker and not requirement.marker.evaluate():
        pytest.skip("not for this Python")
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")
    assert requirement.specifier.contains(version, prereleases=True), version


def test_the_lowest_versions_are_constraints_for_pip() -> None:
    found = list(lowest(["run"]))
    assert "torch==2.6" in found
    assert all(Requirement(line).specifier for line in found)
