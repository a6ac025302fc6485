"""`python -m tests.bounds EXTRA...`: the lowest versions that pyproject.toml allows, as constraints for pip.

`make bounds` installs them in an environment of their own and runs the tests there. pip takes the newest versions by
itself, so that every other environment is the check of those.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement

from tests.conftest import ROOT


def requirements() -> dict[str, list[Requirement]]:
    """What the project asks for, by extra; "" is what it always needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in listed.items()}


def bounds(requirement: Requirement) -> dict[str, str]:
    """Its versions by operator."""
    return {one.operator: one.version for one in requirement.specifier}


def lowest(extras: Sequence[str]) -> Iterator[str]:
    """Constraints that hold all direct dependencies of these extras at their lowest version."""
    for extra in ("", *extras):
        for requirement in requirements()[extra]:
            yield f"{requirement.name}=={bounds(requirement)['>=']}"


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
