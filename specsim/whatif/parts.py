"""What can be bought for a machine, and the question as it is asked once that is built in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, Literal, get_args

from specsim import machines, profiles
from specsim.case import Case
from specsim.check import Stated, check
from specsim.errors import InputError, UnitError, UnknownNameError
from specsim.hardware import Fact, Gpu, Machine
from specsim.model import DTYPE_RATE, read_config
from specsim.pairing import able_drafts, pair_acceptance
from specsim.units import GiB, exact, parse, show

Kind = Literal["gpu", "link", "ram", "disk", "draft"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: RAM is offered in these multiples of what there is: half as many modules more, twice as many, larger ones
RAM_STEPS: Final = (1.5, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Part:
    """A profile's name, or of RAM the whole size as in "128GiB"."""

    kind: Kind
    name: str


def named(name: str, where: str) -> Part:
    """The part that is called so. Raises UnknownNameError naming `where`, with near matches."""
    known: dict[str, Kind] = dict.fromkeys(profiles.names("model"), "draft")
    known |= {part: kind for kind in ("gpu", "link", "disk") for part in profiles.names(kind)}
    if name in known:
        return Part(known[name], name)
    try:
        return _ram(parse(name, "bytes"))
    except UnitError:
        raise UnknownNameError("part", name, known, where=where) from None


def in_order(case: Case, parts: Iterable[Part]) -> list[Part]:
    """Each once, by kind, and of each kind from the smallest step to the largest: as `offers` has them. Drafts are no
    steps and stay in their order."""

    def step(part: Part) -> float:
        match part.kind:
            case "gpu":
                return _arithmetic(profiles.gpu(part.name), case)
            case "link":
                return profiles.link(part.name).bytes_per_s
            case "ram":
                return parse(part.name, "bytes")
            case "disk":
                return profiles.disk(part.name).rate()
            case "draft":
                return 0.0

    return sorted(dict.fromkeys(parts), key=lambda part: (KINDS.index(part.kind), step(part)))


def _arithmetic(card: Gpu, case: Case) -> float:
    """FLOP/s in the dtype of the target."""
    return card.processor.flops_per_s.get(DTYPE_RATE[case.target.dtype], 0.0)


def offers(case: Case) -> list[Part]:
    """What is worth a look, each kind from its smallest step to its largest: cards that are better than the present one
    in something, the faster full slots, more RAM, faster disks, drafts with the target's vocabulary."""
    machine = case.machine
    cards = [name for name in profiles.names("gpu") if _better(profiles.gpu(name), case)]
    links = [profiles.link(name) for name in profiles.names("link") if name.endswith("x16")]
    disks = [profiles.disk(name) for name in profiles.names("disk")]
    found = [Part("gpu", name) for name in cards]
    if machine.link is not None:
        faster = [link for link in links if link.bytes_per_s > machine.link.bytes_per_s * 1.01]
        found += [Part("link", link.name) for link in faster]
    found += [_ram(step * machine.host.ram_bytes) for step in RAM_STEPS]
    faster_disks = [disk for disk in disks if disk.rate() > machine.disk.rate()]
    found += [Part("disk", disk.name) for disk in faster_disks]
    found += [Part("draft", name) for name in able_drafts(case.target) if case.draft is None or name != case.draft.name]
    return in_order(case, found)


def built_in(case: Case, parts: tuple[Part, ...]) -> Case:
    """The question with these parts in place of the present ones. Raises InputError where one does not fit."""
    order = sorted(parts, key=lambda part: KINDS.index(part.kind))  # the card before the slot that it needs
    built = reduce(_with, order, case)
    return built.on(replace(built.machine, name=f"{case.machine.name} with {', '.join(part.name for part in parts)}"))


def _with(case: Case, part: Part) -> Case:
    machine = case.machine
    match part.kind:
        case "gpu":
            return case.on(_with_gpu(machine, part.name))
        case "link":
            return case.on(_with_link(machine, part.name))
        case "ram":
            return case.on(_with_ram(machine, parse(part.name, "bytes")))
        case "disk":
            return case.on(_with_disk(machine, part.name))
        case "draft":
            draft = read_config(profiles.find("model", part.name))
            draft = replace(draft, dtype=case.target.dtype)
            return replace(case, draft=draft, acceptance=pair_acceptance(case.target, draft, case.workload.name))


def _with_gpu(machine: Machine, name: str) -> Machine:
    """A card comes with its own VRAM. It gets the present slot at the speed that both support, or keeps a link whose
    rate was measured or given."""
    card, old, present = profiles.gpu(name), machine.gpu, machine.link
    if card.form:
        raise InputError(f"is a module ({card.form}), which fits no slot", where=name)
    if old is None or present is None:
        slot = machine.host.link
    elif present.name not in profiles.names("link") or present != profiles.link(present.name):
        return _rebuilt(machine, {"gpu": name})
    else:  # a link like the old card's may have been held back by it
        slot = machine.host.link if present.name == old.link else present.name
    slower = min((card.link, slot), key=lambda link: profiles.link(link).bytes_per_s)
    return _rebuilt(machine, {"gpu": name, "link": slower})


def _with_link(machine: Machine, name: str) -> Machine:
    gpu = machine.gpu
    if gpu is None:
        raise InputError("there is no GPU for it", where=name)
    if profiles.link(name).bytes_per_s > profiles.link(gpu.link).bytes_per_s:
        raise InputError(f"{gpu.name} supports {gpu.link} at most", where=name)
    return _rebuilt(machine, {"link": name})


def _with_ram(machine: Machine, size: float) -> Machine:
    """More modules of the same speed; what the system keeps stays as it is."""
    host = machine.host
    if size > host.ram_max_bytes:
        raise InputError(f"the board holds {exact(host.ram_max_bytes, 'bytes')} at most", where=_ram(size).name)
    budget = machine.ram_budget_bytes + size - host.ram_bytes
    given = {"host.ram": size, "machine.ram_budget": budget}
    facts = tuple(
        Fact(f.field, exact(given[f.field], "bytes"), "given", "what-if") if f.field in given else f
        for f in machine.facts
    )
    return replace(machine, host=replace(host, ram_bytes=size), ram_budget_bytes=budget, facts=facts)


def _with_disk(machine: Machine, name: str) -> Machine:
    """A drive has a quarter of the lanes that the board's widest slot has."""
    links = [profiles.link(machine.host.link), *([machine.link] if machine.link is not None else [])]
    carried = max(link.bytes_per_s for link in links) / 4
    if profiles.disk(name).bytes_per_s > carried:
        raise InputError(f"the board gives a drive {show(carried, 'bytes/s')} at most", where=name)
    return _rebuilt(machine, {"disk": name})


def _rebuilt(machine: Machine, parts: dict[str, str]) -> Machine:
    """The machine with these profiles in place of its parts; the budget of VRAM is the new card's."""
    spec, errors = check(machines.to_dict(machine), machine.name, "machine", plan=True)
    if spec is None:
        raise errors[0]
    stated = {key: fact for key, fact in spec.stated.items() if key not in parts}
    if "gpu" in parts:
        stated.pop("vram_budget", None)
    stated |= {key: Stated(name, name, "given", "what-if") for key, name in parts.items() if key != "gpu"}
    return machines.build(replace(spec, parts={**spec.parts, **parts}, stated=stated))


def _better(card: Gpu, case: Case) -> bool:
    """Whether it fits a slot and has more VRAM, bandwidth or arithmetic than the present card."""
    old, dtype = case.machine.gpu, DTYPE_RATE[case.target.dtype]
    if card.form or old is None:
        return not card.form
    new, present = (
        (gpu.vram_bytes, gpu.processor.bytes_per_s, gpu.processor.flops_per_s.get(dtype, 0.0)) for gpu in (card, old)
    )
    return any(a > b for a, b in zip(new, present, strict=True))


def _ram(size: float) -> Part:
    return Part("ram", f"{size / GiB:g}GiB")
