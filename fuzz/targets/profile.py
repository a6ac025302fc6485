"""A profile of any kind: GPUs, hosts, links, disks, machines, workloads, pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from specsim import machines, profiles
from specsim.schema import FILES
from specsim.yamlfile import parse_yaml

_FILES: Final = [
    sorted((profiles.root() / folder).glob("*.yaml"))[:4] for kind, folder in profiles.KINDS.items() if kind != "model"
]
_SHIPPED: Final = tuple(file.read_bytes() for files in _FILES for file in files)
_BEGUN: Final = tuple(f"schema: specsim.{kind}/1\n".encode() for kind in FILES)
SEEDS: Final = (*_BEGUN, *_SHIPPED, *(json.dumps(parse_yaml(text, "seed")).encode() for text in _SHIPPED))
WORDS: Final = (
    "specsim.gpu/1",
    "specsim.host/1",
    "specsim.machine/1",
    "specsim.pair/1",
    "datasheet",
    "measured",
    "assumed",
    "none",
    "x.yaml",
    "rtx4090",
    "1 GiB",
    "1e308 PB",
    "0 s",
    "-1 GB/s",
    "100 %",
    "1" * 400 + "x",
    " " * 400,
    "{1: 0.5, 2: 0.7}",
)


def read(content: bytes) -> None:
    raw = parse_yaml(content, "some.yaml")
    name = raw.get("name") if isinstance(raw, dict) else None
    profile, errors = profiles.checked(raw, Path(f"{name}.yaml"))  # as if it were called as it has to be
    if profile is None:
        raise errors[0]
    if profile.kind == "machine":
        machine = machines.build(profile)
        assert machines.from_dict(machines.to_dict(machine)).host == machine.host
    else:
        profiles.typed(profile)
