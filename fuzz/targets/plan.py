"""A plan file, YAML or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from specsim.errors import InputError
from specsim.planfile import dump_yaml, from_dict, to_dict
from specsim.yamlfile import parse_yaml

_JSON: Final = tuple(file.read_bytes() for file in sorted((Path(__file__).parents[1] / "seeds").glob("plan-*.json")))
SEEDS: Final = (*_JSON, *(dump_yaml(parse_yaml(plan, "seed")).encode() for plan in _JSON))
WORDS: Final = (
    "0-1023",
    "0-99999999999",
    "vram",
    "pinned",
    "pageable",
    "ram",
    "disk",
    "gpu",
    "cpu",
    "none",
    "ngram",
    "unstated",
    "x.yaml",
    "/etc/x.yaml",
    "rtx4090",
    "desktop-ddr5-64g",
    "1 GiB",
    "0 s",
    "1e308 PB",
    "-1 GB/s",
    "100 %",
    "serial",
)


def read(content: bytes) -> None:
    value = parse_yaml(content, "plan.yaml")
    if not isinstance(value, dict):
        raise InputError("is not a plan")
    plan = from_dict(value, "plan.yaml")
    assert from_dict(to_dict(plan), "again").decision == plan.decision
