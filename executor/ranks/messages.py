"""What rank 0 tells the others, and what they report: int64 heads, then numbers or bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import msgspec
import torch

from executor.engine import Engine
from executor.memory import Ledger
from executor.process import peak_bytes
from executor.ranks.world import Channel
from specsim.schedule.round import RoundShape
from specsim.timeline.timeline import Span


@dataclass(frozen=True, slots=True)
class Room:
    """Make caches of so many places."""

    places: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Lower sweeps for prompts of these lengths; a wave begins."""

    first_sweep: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Lower one more round."""

    number: int
    shape: RoundShape


@dataclass(frozen=True, slots=True)
class End:
    """Finish what was lowered, and report: all is done, or, where `failed`, nobody will ask any more."""

    failed: bool = False


Order = Room | Prefill | Round | End
_KINDS: Final = (Room, Prefill, Round, End)


def tell(channel: Channel, order: Order) -> None:
    """To one rank."""
    number, values = 0, list[float]()
    match order:
        case Room(places):
            number = places
        case Prefill(first_sweep, lengths):
            number, values = first_sweep, list(map(float, lengths))
        case Round(index, shape):
            number, values = index, [shape.rows, shape.context, shape.joining]
        case End(failed):
            number = int(failed)
    channel.send(torch.tensor([_KINDS.index(type(order)), number, len(values)]))
    if values:
        channel.send(torch.tensor(values, dtype=torch.float64))


def hear(channel: Channel) -> Order:
    """The next order; the call waits for it."""
    kind, number, count = channel.receive((3,), torch.int64).tolist()
    values = channel.receive((count,), torch.float64).tolist() if count else []
    if _KINDS[kind] is Room:
        return Room(number)
    if _KINDS[kind] is Prefill:
        return Prefill(number, tuple(map(int, values)))
    if _KINDS[kind] is Round:
        return Round(number, RoundShape(*values))
    return End(bool(number))


class Kind(IntEnum):
    """Of a report: the rank's weights are there; an error ended it; all is done; it goes on."""

    READY = 0
    FAILED = 1
    DONE = 2
    BEAT = 3


@dataclass(frozen=True, slots=True)
class Share:
    """What a rank did of a run: its spans, with what each depended on; the most that it held of each memory; the bytes
    that its streams moved; what its process held at most."""

    spans: tuple[Span, ...] = ()
    preds: tuple[tuple[int, ...], ...] = ()
    peak_bytes: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    process_bytes: int | None = None

    @classmethod
    def of(cls, engine: Engine, ledger: Ledger) -> Share:
        """So far."""
        measured = engine.timeline()
        return cls(measured.spans, measured.preds, ledger.peaks, engine.moved, peak_bytes())


@dataclass(frozen=True, slots=True)
class Report:
    """`text` is that of an error, `share` what was done."""

    kind: Kind
    text: str = ""
    share: Share | None = None


def report(channel: Channel, what: Report) -> None:
    """To rank 0."""
    body = msgspec.json.encode((what.text, what.share))
    channel.send(torch.tensor([what.kind, len(body)]))
    channel.send(torch.frombuffer(bytearray(body), dtype=torch.uint8))


def read_report(channel: Channel) -> Report:
    """The next report of a rank; the call waits for it."""
    kind, size = channel.receive((2,), torch.int64).tolist()
    body = bytes(channel.receive((size,), torch.uint8).numpy())
    text, share = msgspec.json.decode(body, type=tuple[str, Share | None])
    return Report(Kind(kind), text, share)
