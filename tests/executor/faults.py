"""Every fault that is injected into a run, and how it ends: the table of docs/faults.md is made of these rows, and the
tests of test_faults.py hold each of them. `python -m tests.executor.faults` writes the table anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs/faults.md"
BEGIN: Final = "<!-- table -->\n"
END: Final = "<!-- end of table -->\n"

#: what is kept -> as a reader of the table is told
KEPT: Final = {
    "all": "every output, the same tokens",
    "nothing begun": "nothing was begun, no file was made",
    "begun": "nothing had finished; `--resume` gives every output, the same tokens",
    "finished": "finished outputs; `--resume` gives the rest, the same tokens",
    "outputs": "every output; `--resume` writes what is missing",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`line` is what stderr shows, "" where nothing; "…" in it stands for anything, OUT for the directory of the run.
    `status` is the exit status, -N where signal N kills the process. `kept` is a key of KEPT."""

    name: str
    what: str
    line: str
    status: int
    kept: str


def _error(line: str) -> str:
    return f"specsim: error: {line}"


_HANGS: Final = "run: … has not ended for … s: does the disk hang?"
_AGAIN: Final = "out of memory in prefill: going on with 1 of 2 sequences at a time in prefill"
_MEMORY: Final = "plan again with a smaller --ram or --vram: the process itself needs some too"
_OTHER: Final = "run: this is not the machine of the plan"
_RESUME: Final = "2 finished outputs are kept in OUT; go on with: specsim run --resume OUT"

FAULTS: Final = (
    Fault("short-read", "reads give fewer bytes than asked for", "", 0, "all"),
    Fault(
        "eio-loading",
        "EIO while weights are loaded",
        _error("…: cannot read it at byte …: Input/output error"),
        2,
        "begun",
    ),
    Fault(
        "eio-streaming",
        "EIO in mid-run",
        _error("…: cannot read it at byte …: Input/output error"),
        2,
        "finished",
    ),
    Fault(
        "file-shrinks",
        "a shard that has become shorter in mid-run",
        _error("…: has become too short: it ends at byte …, and its weights at … or later; was it replaced while…"),
        2,
        "finished",
    ),
    Fault("slow-disk", "a disk far slower than planned", "", 0, "all"),
    Fault("slow-link", "a link far slower than planned", "", 0, "all"),
    Fault(
        "stalled-loading",
        "a disk that hangs while weights are loaded",
        _error("run: loading has read nothing for … s: does the disk hang?"),
        2,
        "begun",
    ),
    Fault("stalled-streaming", "a disk that hangs in mid-run", _error(_HANGS), 2, "finished"),
    Fault(
        "thread-dies",
        "a thread of the engine that is ended",
        _error("run: the thread of cpu was ended by SystemExit"),
        2,
        "finished",
    ),
    Fault("no-helpers", "no more threads for parallel reads", "", 0, "all"),
    Fault(
        "no-threads",
        "no more threads for the run itself",
        _error("run: cannot start the thread …; raise the limit on processes and threads (ulimit -u), or end other…"),
        2,
        "begun",
    ),
    Fault(
        "full-outputs",
        "ENOSPC on outputs.jsonl",
        _error("OUT/outputs.jsonl: cannot be written: No space left on device; it keeps 2 outputs; make room, and…"),
        2,
        "finished",
    ),
    Fault(
        "full-journal",
        "ENOSPC on the journal",
        _error("OUT/journal.jsonl: cannot be written: No space left on device; it keeps all before; make room and…"),
        2,
        "finished",
    ),
    Fault(
        "full-metrics",
        "ENOSPC on metrics.json",
        _error("OUT/metrics.json: cannot be written: No space left on device"),
        2,
        "outputs",
    ),
    Fault(
        "full-trace",
        "ENOSPC on trace.json",
        _error("OUT/trace.json: cannot write the trace: No space left on device"),
        2,
        "outputs",
    ),
    Fault(
        "full-before",
        "a disk too full for what the run may write",
        _error("OUT: the files of the run may take …, and … are left; make room or choose another -o"),
        2,
        "nothing begun",
    ),
    Fault("host-memory", "torch gets no RAM for a pass", f"specsim: {_AGAIN}", 0, "all"),
    Fault("device-memory", "torch gets no VRAM for a pass (emulated)", f"specsim: {_AGAIN}", 0, "all"),
    Fault(
        "least-memory",
        "no memory even for the smallest pass",
        f"specsim: {_AGAIN}\n" + _error(f"run: out of memory; {_MEMORY}"),
        2,
        "finished",
    ),
    Fault("loading-memory", "no memory for the weights", _error(f"run: out of memory; {_MEMORY}"), 2, "begun"),
    Fault(
        "ram-gone",
        "other programs have taken the RAM since the plan was made",
        _error("run: needs …; this machine has … left; end other programs, or plan …"),
        2,
        "nothing begun",
    ),
    Fault(
        "group-limit",
        "a control group that allows less RAM",
        _error("run: needs …; the memory control group allows …; raise the limit, or plan …"),
        2,
        "nothing begun",
    ),
    Fault(
        "fewer-cores",
        "fewer cores than were measured",
        _error(f"{_OTHER}: it had 4096 cores, and this process may use …; measure and plan again, or run it --anyway"),
        2,
        "nothing begun",
    ),
    Fault(
        "other-gpu",
        "another GPU than was measured (emulated)",
        _error(f"{_OTHER}: its GPU was gpu, and this one is Card 9000; measure and plan again, or run it --anyway"),
        2,
        "nothing begun",
    ),
    Fault(
        "vram-gone",
        "other programs have taken the VRAM (emulated)",
        _error("run: needs … of VRAM for the plan's stores; the GPU has … left; end what else uses it, or plan…"),
        2,
        "nothing begun",
    ),
    Fault("clock-jumps", "the wall clock jumps by years, there and back", "", 0, "all"),
    Fault("sigint", "SIGINT (Ctrl-C) in mid-run", f"specsim: interrupted; {_RESUME}", 130, "finished"),
    Fault("sigterm", "SIGTERM while the disk hangs", f"specsim: terminated; {_RESUME}", 143, "finished"),
    Fault("sigint-twice", "SIGINT twice while the disk hangs", "", -2, "finished"),
    Fault("sigkill", "SIGKILL in mid-run", "", -9, "finished"),
    Fault("group-kill", "more RAM taken than a control group allows", "", -9, "finished"),
)


def table() -> str:
    """The rows, as Markdown."""
    rows = ["| fault | injected | what the user sees | exit status | what is kept |", "| --- | --- | --- | --- | --- |"]
    for f in FAULTS:
        shown = "<br>".join(f"`{line}`" for line in f.line.splitlines()) or "nothing"
        status = f"{f.status}" if f.status >= 0 else f"killed by signal {-f.status}"
        rows.append(f"| {f.name} | {f.what} | {shown} | {status} | {KEPT[f.kept]} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with the table as it should be."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
