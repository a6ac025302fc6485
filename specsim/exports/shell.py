"""Shell scripts that start an engine: one flag a line, every value quoted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from specsim.case import Case


def flags(program: str, options: Mapping[str, str | int | None]) -> str:
    """`program` with its options; None is a flag without a value."""
    words = [name if value is None else f"{name} {shlex.quote(str(value))}" for name, value in options.items()]
    return " \\\n  ".join([f"exec {program}", *words])


def script(case: Case, engine: str, commands: Sequence[str]) -> str:
    """A script that runs `commands`, the last of which goes on serving. A name is no more than a comment, whatever is
    in it."""
    about = f"{case.target.name} on {case.machine.name} for {case.workload.requests} x {case.workload.name}"
    about = " ".join(about.split())
    return "\n".join(["#!/bin/sh", f"# {engine}: {about}, as specsim export wrote it", "set -eu", *commands, ""])
