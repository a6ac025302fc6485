"""What a run measured, beside what its plan predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import msgspec

from executor.outputs import write_whole
from specsim.acceptance import expected_tokens
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.units import show
from specsim.validation.record import METRICS


class AcceptanceCounter:
    """Counts how far verification got in what was proposed, one sequence and round at a time."""

    def __init__(self) -> None:
        self.rounds = 0
        self.proposed = 0
        self.accepted = 0
        self._reached: list[int] = []  # by position: how often all before it were accepted
        self._passed: list[int] = []  # and how often it was, too
        self._requests: dict[int, list[int]] = {}  # by request: tokens that were judged, and that were accepted

    def add(self, proposed: int, accepted: int, request: int = 0) -> None:
        """The target accepted the first `accepted` of `proposed` tokens. Proposing none counts as a round."""
        if not 0 <= accepted <= proposed:
            raise ValueError(f"{accepted} of {proposed} proposed tokens cannot be accepted")
        self.rounds += 1
        self.proposed += proposed
        self.accepted += accepted
        missing = proposed - len(self._reached)
        self._reached += [0] * missing
        self._passed += [0] * missing
        for position in range(min(accepted + 1, proposed)):
            self._reached[position] += 1
            self._passed[position] += position < accepted
        own = self._requests.setdefault(request, [0, 0])
        own[0] += min(accepted + 1, proposed)
        own[1] += accepted

    def forget_requests(self) -> None:
        """What `spread` knows of each so far: for who serves without end."""
        self._requests.clear()

    @property
    def hazards(self) -> tuple[float, ...]:
        """By position: the share of those accepted where all before were (as `specsim.acceptance.Acceptance` has
        it). Positions that were never reached are left out; they come last."""
        pairs = zip(self._passed, self._reached, strict=True)
        return tuple(passed / reached for passed, reached in pairs if reached)

    @property
    def rate(self) -> float | None:
        """The share of accepted tokens among those that the target got to judge; None before there are any."""
        reached = sum(self._reached)
        return self.accepted / reached if reached else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the acceptance between requests, less what chance alone makes of it: of a rate p that
        was found by n tokens, the variance is p (1 - p) / n. None for fewer than two requests that were judged."""
        judged = [(passed / n, n) for n, passed in self._requests.values() if n]
        if len(judged) < 2 or self.rate is None:
            return None
        chance = fmean(self.rate * (1 - self.rate) / n for _, n in judged)
        return math.sqrt(max(0.0, variance(share for share, _ in judged) - chance))

    @property
    def per_round(self) -> float:
        """Mean tokens accepted of a sequence in a round, the target's own token not counted."""
        return self.accepted / self.rounds if self.rounds else 0.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """The plan's own figures, for its own workload. `acceptance` is by position, both it and its mean None where the
    plan does not speculate; `peak_bytes` by memory are the largest of all phases, `process_bytes` what the process
    takes of RAM beside them, `peak_process_bytes` both together."""

    requests: int
    useful_tokens: int
    tokens_per_second: float
    seconds: float
    prefill_s: float
    decode_s: float
    acceptance: tuple[float, ...] | None
    accepted_per_round: float | None
    peak_bytes: Mapping[str, int]
    process_bytes: int
    peak_process_bytes: int

    @classmethod
    def of(cls, plan: Plan, in_ram: Collection[str] = ("ram",)) -> Predicted:
        """`in_ram`: the memories that are RAM of this process; an emulated GPU's is."""
        predicted, gamma, work = plan.predicted, plan.decision.policy.gamma, plan.case.workload
        acceptance = plan.case.acceptance if gamma else None
        phases = predicted.peak_bytes.values()
        itself = int(plan.case.machine.host.process_bytes)
        memories = dict.fromkeys(memory for phase in phases for memory in phase)
        return cls(
            requests=work.requests,
            useful_tokens=work.requests * work.output_tokens,
            tokens_per_second=predicted.tokens_per_second,
            seconds=predicted.makespan_s,
            prefill_s=predicted.prefill_s,
            decode_s=predicted.decode_s,
            acceptance=tuple(acceptance.at(i) for i in range(gamma)) if acceptance else None,
            accepted_per_round=expected_tokens(acceptance, gamma) - 1 if acceptance else None,
            peak_bytes={memory: max(phase.get(memory, 0) for phase in phases) for memory in memories},
            process_bytes=itself,
            peak_process_bytes=itself + max((sum(phase.get(m, 0) for m in in_ram) for phase in phases), default=0),
        )


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a resumed run had before it went on: requests that had ended, and tokens that were committed."""

    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """A run in numbers. `seconds` go from the start of the first prefill to the last token, of them `prefill_s` in
    sweeps and `decode_s` in rounds; `load_s` was before that. The four of acceptance are an `AcceptanceCounter`'s;
    `peak_bytes` by memory are the ledger's: what was stored, and the temporaries as planned. `process_bytes` is what
    the process took of RAM before that, and `peak_process_bytes` the most that it ever took, all together, by the
    kernel's count (both None where the kernel does not say). `utilisation` (0..1 of `seconds`) is by resource,
    `bytes_moved` by stream. `replayed_s` is what the cost model gives for these prompts and rounds as they turned out,
    where the plan had to guess them; `between_tasks` the share (0..1) of `seconds` in which what everything waited for
    had ended and what waited had not begun: what the engine adds. `shrunk` says what was made smaller after out of
    memory, in that order. All of it counts what was done since the run was resumed, if it was: `earlier` is what there
    was before, and None otherwise."""

    requests: int
    useful_tokens: int
    seconds: float
    prefill_s: float
    decode_s: float
    load_s: float
    rounds: int
    acceptance: tuple[float, ...]
    acceptance_spread: float | None
    accepted_per_round: float
    proposed: int
    peak_bytes: Mapping[str, int]
    process_bytes: int | None
    peak_process_bytes: int | None
    utilisation: Mapping[str, float]
    bytes_moved: Mapping[str, int]
    numerics: str
    strategy: str
    gamma: int
    predicted: Predicted
    replayed_s: float
    between_tasks: float
    shrunk: Sequence[str] = ()
    earlier: Earlier | None = None
    preemptions: int = 0
    restored_positions: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Useful tokens per second; loading apart."""
        return self.useful_tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The metrics as metrics.json has them."""
        return {"tokens_per_second": self.tokens_per_second, **asdict(self)}

    def write(self, directory: str | Path) -> Path:
        """Write `directory`/metrics.json at once or not at all. Raises InputError where that fails."""
        path = Path(directory) / METRICS
        write_whole(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path

    def comparison(self) -> list[tuple[str, str, str, str]]:
        """Rows for a person: what, measured, predicted, and how many times the prediction the measurement is."""
        predicted = self.predicted
        rows = [
            _row("useful tokens/s", self.tokens_per_second, predicted.tokens_per_second),
            _row("prefill", self.prefill_s, predicted.prefill_s, "seconds"),
            _row("decode", self.decode_s, predicted.decode_s, "seconds"),
            _row("the rounds as they were", self.seconds, self.replayed_s, "seconds"),
        ]
        if self.gamma:
            rows.append(_row("accepted per round", self.accepted_per_round, predicted.accepted_per_round))
        peaks = {memory: taken for memory, taken in self.peak_bytes.items() if taken}
        rows += [_row(f"peak {m}", taken, predicted.peak_bytes.get(m), "bytes") for m, taken in peaks.items()]
        if self.process_bytes is not None:
            rows.append(_row("process itself", self.process_bytes, predicted.process_bytes, "bytes"))
        if self.peak_process_bytes is not None:
            rows.append(_row("peak, all in all", self.peak_process_bytes, predicted.peak_process_bytes, "bytes"))
        return rows


def read_metrics(directory: str | Path) -> Metrics:
    """What `Metrics.write` left in `directory`. Raises InputError where that is not there."""
    path = Path(directory) / METRICS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Metrics)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except msgspec.DecodeError as error:
        raise InputError(f"is not the metrics of a run: {error}", where=str(path)) from None


def _row(what: str, measured: float, predicted: float | None, dimension: str = "") -> tuple[str, str, str, str]:
    def text(value: float) -> str:
        return show(value, dimension) if dimension else f"{value:.3g}" if value < 1000 else f"{value:.0f}"

    if predicted is None:
        return what, text(measured), "-", "-"
    return what, text(measured), text(predicted), f"{measured / predicted:.2f}" if predicted else "-"
