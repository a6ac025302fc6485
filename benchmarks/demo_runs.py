"""Runs of the demo pair that are killed, resumed and compared: what kills.py and soak.py do things to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import specsim
from executor import demo
from specsim.planfile import write_plan

REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 6, 100, 12
WARM: Final = ("--temperature", "0.9", "--top-p", "0.95", "--seed", "7")
_WORK: Final = {"requests": REQUESTS, "prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS}


@dataclass(frozen=True, slots=True)
class Kind:
    """A plan for the demo pair, and how its tokens are chosen."""

    name: str
    fix: dict[str, Any]
    ram: float  # bytes: most of the target streams from the disk
    draft: bool
    sampling: tuple[str, ...] = ()

    def command(self, folder: Path) -> tuple[str, ...]:
        """`specsim run` without the place of its outputs."""
        draft = ("--draft", str(demo.draft_directory())) if self.draft else ()
        given = ("--target", str(demo.target_directory()), *draft, "--prompts", str(demo.prompts_file()))
        return "run", str(self.plan(folder)), *given, "--limit", str(REQUESTS), *self.sampling

    def plan(self, folder: Path) -> Path:
        return folder / f"{self.name}.yaml"

    def write_plan(self, folder: Path) -> None:
        made = specsim.plan(
            host="desktop-ddr5-64g",
            ram=self.ram,
            target=demo.target_directory(),
            draft=demo.draft_directory() if self.draft else "ngram",
            acceptance=0.6,
            fix=self.fix,
            **_WORK,
        )
        write_plan(made, self.plan(folder))


#: greedy and sampled tokens in turn, and both drafts of each
KINDS: Final = (
    Kind("greedy-model", {"strategy": "serial", "gamma": 3, "batch": 3, "refill": True}, 28e6, True),
    Kind("sampled-ngram", {"strategy": "merged", "gamma": 2, "batch": 3, "refill": False}, 8e6, False, WARM),
    Kind("greedy-ngram", {"strategy": "interleaved", "gamma": 3, "batch": 3}, 8e6, False),
    Kind("sampled-model", {"strategy": "interleaved", "gamma": 2, "batch": 3, "refill": True}, 34e6, True, WARM),
)


@dataclass(slots=True)
class Found:
    """What is wrong with outputs: requests that are missing, or there twice; tokens that differ, and whole lines."""

    lost: int = 0
    duplicated: int = 0
    differing_tokens: int = 0
    differing_lines: int = 0
    requests: int = field(default=0)

    def add(self, out: Path, reference: Path) -> None:
        """Compare the outputs of a run that ended."""
        expected, seen = dict(_lines(reference)), Counter(id for id, _ in _lines(out))
        self.requests += len(expected)
        self.lost += len(expected.keys() - seen.keys())
        self.duplicated += sum(count - 1 for count in seen.values())
        for id, line in _lines(out):
            self.differing_lines += line != expected.get(id)
            self.differing_tokens += _differing(line, expected.get(id))

    @property
    def mismatches(self) -> int:
        return self.lost + self.duplicated + self.differing_tokens + self.differing_lines


def _lines(out: Path) -> Iterator[tuple[str, bytes]]:
    for line in (out / "outputs.jsonl").read_bytes().splitlines(keepends=True):
        yield json.loads(line)["id"], line


def _differing(found: bytes, expected: bytes | None) -> int:
    """Places where the tokens of two outputs are not the same; all, where nothing is expected."""
    ids = json.loads(found)["output_ids"]
    known = json.loads(expected)["output_ids"] if expected is not None else []
    return abs(len(ids) - len(known)) + sum(a != b for a, b in zip(ids, known, strict=False))


def stage(out: Path) -> str:
    """How far a run came that was killed, by what it left behind."""
    journal = _read(out / "journal.jsonl").splitlines(keepends=True)
    if len(journal) < 2:
        return "before it had begun"
    if len(journal) == 2:
        return "loading or prefill"
    if journal[-1].endswith(b'{"over":true}\n'):
        return "after its end"
    ended = _read(out / "outputs.jsonl").count(b"\n")
    return "decoding" if ended < REQUESTS else "after its last output"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
