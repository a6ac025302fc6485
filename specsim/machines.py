"""Assemble a Machine from profiles and overrides, and write it down so that it reads back equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specsim import devices
from specsim.bounded import short
from specsim.check import Profile, Stated, check
from specsim.devices import FACTS as DEVICE_FACTS
from specsim.errors import InputError
from specsim.facts import Value, text, write
from specsim.hardware import Fact, Link, Machine, Peer
from specsim.machinefile import section, sections
from specsim.profiles import ENDINGS, load, to_disk, to_gpu, to_host, to_link
from specsim.schema import FACTS


def assemble(
    *,
    machine: str | None = None,
    gpu: str | None = None,
    host: str | None = None,
    link: str | None = None,
    disk: str | None = None,
    vram: float | None = None,
    ram: float | None = None,
    link_bytes_per_s: float | None = None,
    disk_bytes_per_s: float | None = None,
    devices: int | None = None,
    peer: float | None = None,
) -> Machine:
    """The machine that these names (or paths of profile files) and numbers describe.

    `machine` excludes `gpu` and `host`; `gpu` alone takes the card's default host; `host` alone, and
    `gpu="none"`, have no GPU. `vram` and `ram` are the bytes that a plan may use, by default capacity less
    reserve and, of RAM, what the process itself takes (more than the card has is a what-if). `link_bytes_per_s` is
    what a large pinned copy reaches, `disk_bytes_per_s` what a sequential read does. `devices` like ones, neighbours
    `peer` bytes per second apart. What was chosen for the caller is among the facts.
    Raises InputError for a contradiction, and when nothing is given.
    """
    numbers = {"vram": vram, "ram": ram, "link rate": link_bytes_per_s, "disk rate": disk_bytes_per_s}
    numbers |= {"number of devices": devices, "peer rate": peer}
    for name, number in numbers.items():
        if number is not None and not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} is {number}", hint="give a number above zero")
    if machine is None:
        spec = _named(gpu, host)
    elif gpu is None and host is None:
        spec = load("machine", machine)
    else:
        raise InputError("a machine and a GPU or host are given", hint="give --machine alone, or --gpu and --host")

    parts, stated = dict(spec.parts), dict(spec.stated)
    for key, choice in (("link", link), ("disk", disk)):
        if choice is not None:
            parts[key] = choice
            stated[key] = Stated(choice, choice, "given", f"--{key}")
    for key, budget in (("vram", vram), ("ram", ram)):
        if budget is not None:
            stated[f"{key}_budget"] = _stated("machine", f"{key}_budget", budget, "given", f"--{key}")
    for key, number in (("devices", devices), ("peer", peer)):
        if number is not None:
            stated[key] = _stated("machine", key, float(number), "given", f"--{key}")
    if devices is not None:  # another number of them than the profile has lies in nodes that it says nothing about
        stated.pop("node_devices", None)
    if devices == 1:  # which talks to none; so that the number can be varied
        stated = {key: fact for key, fact in stated.items() if key not in DEVICE_FACTS}
    built = build(replace(spec, parts=parts, stated=stated))
    if link_bytes_per_s is not None:
        built = _with_link_rate(built, link_bytes_per_s)
    if disk_bytes_per_s is not None:
        built = replace(built, disk=replace(built.disk, bytes_per_s=disk_bytes_per_s, efficiency=1.0))
        why = f"rate of a sequential read, in place of {built.disk.name}'s"
        built = _with_facts(built, "disk", {"bandwidth": disk_bytes_per_s, "efficiency": 1.0}, "given", why)
    return built


def _named(gpu: str | None, host: str | None) -> Profile:
    """The machine profile that stands for `--gpu` and `--host`."""
    if gpu is None or gpu == "none":
        if host is None:
            hint = "give --gpu NAME, --host NAME or --machine NAME (see specsim list)"
            raise InputError("no machine is given" if gpu is None else "no host is given", hint=hint)
        name = load("host", host).name
        return Profile("machine", name, name, name, {}, {"gpu": "none", "host": host})
    card = load("gpu", gpu)
    default = str(card.parts["host"])
    stated = {"host": Stated(default, default, "assumed", f"default host of {card.name}; choose with --host")}
    chosen = host or default
    name = f"{card.name} in {load('host', chosen).name}"
    return Profile("machine", name, name, name, {} if host else stated, {"gpu": gpu, "host": chosen})


def build(spec: Profile) -> Machine:
    """The Machine that a machine profile describes: its parts, link and disk chosen, budgets worked out."""
    gpu, host = _part(spec, "gpu"), _part(spec, "host")
    if host is None:
        raise InputError("a machine needs a host", where=spec.where, hint="name one after host:")
    stated = dict(spec.stated)

    link = _part(spec, "link")
    if gpu is None and (link or "vram_budget" in stated):
        what = "a link" if link else "a VRAM budget"
        hint = "leave it out, or name a GPU"
        raise InputError(f"{what} is given for a machine without a GPU", where=spec.where, hint=hint)
    if gpu is not None and link is None:
        offers = [load("link", str(part.parts["link"])) for part in (gpu, host)]
        link = min(offers, key=lambda offer: offer.number("bandwidth"))
        why = f"the slower of what {gpu.name} ({offers[0].name}) and {host.name} ({offers[1].name}) support"
        stated["link"] = Stated(link.name, link.name, "assumed", why)

    disk = _part(spec, "disk")
    if disk is None:
        disk = load("disk", str(host.parts["disk"]))
        stated["disk"] = Stated(disk.name, disk.name, "assumed", f"default disk of {host.name}")

    budgets = {"vram_budget": 0.0}
    for memory, owner in (("vram", gpu), ("ram", host)):
        if owner is not None:
            stated.setdefault(f"{memory}_budget", _budget(owner, memory))
            budgets[f"{memory}_budget"] = replace(spec, stated=stated).number(f"{memory}_budget")

    stated |= _of_devices(replace(spec, stated=stated), gpu, link)
    listed = {name: stated[name] for name in FACTS["machine"] if name in stated}
    whole = replace(spec, stated=listed)
    return Machine(
        name=spec.name,
        host=to_host(host),
        disk=to_disk(disk),
        gpu=to_gpu(gpu) if gpu else None,
        link=to_link(link) if link else None,
        vram_budget_bytes=budgets["vram_budget"],
        ram_budget_bytes=budgets["ram_budget"],
        facts=sum((part.facts() for part in (gpu, host, link, disk, whole) if part), ()),
        devices=int(whole.number_or("devices", 1)),
        node_devices=int(whole.number_or("node_devices", 1)),
        node_cores=int(whole.number("node_cores")) if "node_cores" in listed else None,
        peer=_peer(whole, "peer"),
        network=_peer(whole, "network"),
    )


def _of_devices(spec: Profile, gpu: Profile | None, link: Profile | None) -> dict[str, Stated]:
    """What has to be known of several devices and is not stated: GPUs share one host and talk through it, bare machines
    share nothing."""
    known = {n: spec.number(n) for n in devices.FACTS if n in spec.stated}
    devices.check(known, spec.where)
    if known.get("devices", 1) == 1:
        return {}
    new: dict[str, Stated] = {}
    if "node_devices" not in known:
        number, why = (known["devices"], "all in one host") if gpu is not None else (1.0, "each a machine of its own")
        new["node_devices"] = _stated("machine", "node_devices", number, "assumed", why)
    if "peer" not in known:
        if gpu is None or link is None:
            raise InputError("how its devices talk is not known", where=spec.where, hint="give --peer, such as 1.2GB/s")
        why = f"through the host, over {link.name}"
        new["peer"] = _stated("machine", "peer", to_link(link).rate(pinned=True), "assumed", why)
    for name, seconds in devices.LATENCIES_S.items():
        if name in known.keys() | new.keys() and f"{name}_latency" not in known:
            new[f"{name}_latency"] = _stated("machine", f"{name}_latency", seconds, "assumed", "starting one transfer")
    return new


def _peer(spec: Profile, name: str) -> Peer | None:
    return Peer(spec.number(name), spec.number(f"{name}_latency")) if name in spec.stated else None


def _part(spec: Profile, key: str) -> Profile | None:
    part = spec.parts.get(key)
    if isinstance(part, str):
        return None if part == "none" else load(key, part)
    return part


def _budget(owner: Profile, memory: str) -> Stated:
    """Capacity less reserve, of the same kind as the reserve is, and RAM less what the process itself takes. Raises
    InputError where nothing is left."""
    reserve = owner.stated[f"{memory}_reserve"]
    left, why = owner.number(memory) - owner.number(f"{memory}_reserve"), f"{memory} less {memory}_reserve"
    if memory == "ram":
        left, why = left - owner.number("process"), f"{why} and process"
    if left <= 0:
        what = f"{memory} of {owner.stated[memory].text} leaves nothing beside a reserve of {reserve.text}"
        raise InputError(what, where=owner.where, hint=f"set --{memory}, or a smaller {memory}_reserve")
    return _stated("machine", f"{memory}_budget", left, reserve.kind, why)


def _stated(section: str, fact: str, value: Value, kind: str, why: str) -> Stated:
    return Stated(text(write(value, FACTS[section][fact])), value, kind, why)


def _with_link_rate(machine: Machine, rate: float) -> Machine:
    """Set what a pinned copy reaches. A pageable one goes on being staged by the same memcpy, at rate m:
    1 / pageable = 1 / pinned + 1 / m, with m from the link's own two rates. So it never exceeds the pinned.
    """
    link = machine.link
    if link is None:
        hint = "leave it out, or name a GPU"
        raise InputError("a link rate is given for a machine without a GPU", where=machine.name, hint=hint)
    staging = 1 / link.rate(pinned=False) - 1 / link.rate(pinned=True)  # seconds per byte
    share = 1 / (1 + max(staging, 0.0) * rate)
    new = Link(link.name, link.title, rate, 1.0, share, link.latency_s)
    given = _with_facts(
        replace(machine, link=new),
        "link",
        {"bandwidth": rate, "efficiency": 1.0},
        "given",
        f"rate of a pinned copy, in place of {link.name}'s",
    )
    why = f"staging copies as with {link.name}: 1/pageable = 1/pinned + 1/memcpy"
    return _with_facts(given, "link", {"pageable_efficiency": share}, "assumed", why)


def _with_facts(machine: Machine, part: str, values: Mapping[str, Value], kind: str, why: str) -> Machine:
    """Replace the facts of those values, in their places."""
    new = {f"{part}.{name}": _stated(part, name, value, kind, why) for name, value in values.items()}
    facts = tuple(Fact(f.field, new[f.field].text, kind, why) if f.field in new else f for f in machine.facts)
    return replace(machine, facts=facts)


def to_dict(machine: Machine) -> dict[str, Any]:
    """`machine` as a machine profile (specsim.machine/1), all of its parts inline; what plan files carry."""
    budgets: dict[str, Value] = {"ram_budget": machine.ram_budget_bytes}
    if machine.gpu:
        budgets = {"vram_budget": machine.vram_budget_bytes, **budgets}
    budgets |= devices.facts_of(machine)
    facts = {fact.field: fact for fact in machine.facts}
    for name in ("host", "link", "disk"):
        if f"machine.{name}" in facts:
            budgets[name] = facts[f"machine.{name}"].value
    whole = section("machine", machine.name, machine.name, budgets, facts)
    return whole | {"gpu": "none"} | sections(machine, facts)


def from_dict(data: Any, where: str = "machine") -> Machine:
    """The Machine that `to_dict` wrote, or that any machine profile describes.

    Raises InputError naming the bad key, prefixed by `where`, and for a part that is a file of its own.
    """
    spec, errors = check(data, where, "machine", plan=True)
    if spec is None:
        raise errors[0]
    _refuse_files(spec)
    return build(spec)


def _refuse_files(spec: Profile) -> None:
    """A plan that somebody sent cannot make us read other files: its parts are there, or are shipped profiles."""
    for key, part in spec.parts.items():
        if isinstance(part, Profile):
            _refuse_files(part)
        elif part.endswith(ENDINGS):
            raise InputError(f"{key} names the file {short(part)}", where=spec.where, hint="put what it says there")
