"""Check a profile against the schema: all that is wrong with it, or its facts with their provenance."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import FieldInfo

from specsim.errors import InputError
from specsim.facts import REQUIRED, Value, parse, text, write
from specsim.hardware import Fact
from specsim.schema import FACTS, FILES, File, Source


@dataclass(frozen=True, slots=True)
class Stated:
    """A fact with its provenance: `text` as written, `value` in base units."""

    text: str
    value: Value
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A checked profile. `parts` holds what it names (link, host, disk, ...): a name or an inline section."""

    kind: str
    name: str
    title: str
    where: str
    stated: Mapping[str, Stated]
    parts: Mapping[str, str | Profile]

    def number(self, fact: str) -> float:
        value = self.stated[fact].value
        assert isinstance(value, int | float), f"{fact} of {self.name} is no number"
        return value

    def number_or(self, fact: str, default: float) -> float:
        """Of a fact that may be left out."""
        return self.number(fact) if fact in self.stated else default

    def facts(self) -> tuple[Fact, ...]:
        """Every number with its source, as a Machine lists them; without those whose source is unstated."""
        listed = ((f"{self.kind}.{name}", stated) for name, stated in self.stated.items())
        return tuple(Fact(f, s.text, s.kind, s.source) for f, s in listed if s.kind != "unstated")


def check(
    raw: Any, where: str, kind: str | None = None, *, plan: bool = False
) -> tuple[Profile | None, list[InputError]]:
    """The Profile that the plain value `raw` is, or None and all that is wrong with it.

    `kind` is what it has to be, where the caller knows; `plan` allows facts whose source is unstated.
    """
    if not isinstance(raw, dict):
        return None, [InputError("is not a mapping of keys to values", where=where)]
    known = {f"specsim.{name}/1": name for name in FILES if kind in (None, name)}
    schema = raw.get("schema")
    if not isinstance(schema, str) or schema not in known:
        return None, [InputError(f"schema is {schema!r}", where=where, hint=f"write {' or '.join(known)}")]
    kind = known[schema]
    file, errors = _shape(raw, FILES[kind], where)
    sources: dict[str, Source] = file["sources"]
    errors += _sources(sources, where, plan)
    stated, more = _facts(file["facts"], sources, kind, where)
    parts: dict[str, str | Profile] = {}
    for key in file.keys() - File.__struct_fields__:
        if isinstance(file[key], str):
            parts[key] = file[key]
        elif file[key] is not None:
            part, wrong = check(file[key], f"{where}: {key}", key, plan=plan)
            errors += wrong
            if part:
                parts[key] = part
    errors += more
    if errors:
        return None, errors
    return Profile(kind, file["name"], file["title"], where, stated, parts), []


def _shape(raw: dict[Any, Any], shape: type[File], where: str) -> tuple[dict[str, Any], list[InputError]]:
    """The file's fields, each converted to its type; one that is missing or wrong comes out empty."""
    fields = _fields(shape)
    errors = [_unknown("key", key, fields, where) for key in raw if key not in fields]
    values: dict[str, Any] = {"sources": {}, "facts": {}}
    for name, field in fields.items():
        if name in raw:
            try:
                values[name] = msgspec.convert(raw[name], field.type)
            except msgspec.ValidationError as error:
                errors.append(InputError(str(error).replace("`", ""), where=f"{where}: {name}"))
        elif field.required:
            errors.append(InputError(f"{name} is missing", where=where, hint=f"add {name}:"))
    return values, errors


@cache
def _fields(shape: type[File]) -> dict[str, FieldInfo]:
    """By name. msgspec evaluates the annotations anew each time that it is asked."""
    return {field.name: field for field in msgspec.structs.fields(shape)}


def _sources(sources: Mapping[str, Source], where: str, plan: bool) -> list[InputError]:
    errors = []
    for key, source in sources.items():
        if source.missing():
            what = f"{source.kind} source does not say its {source.missing()}"
            errors.append(InputError(what, where=f"{where}: sources.{key}"))
        if source.kind == "unstated" and not plan:
            errors.append(InputError("source is unstated", where=f"{where}: sources.{key}", hint="say where from"))
    return errors


def _facts(
    facts: Mapping[str, Any], sources: Mapping[str, Source], kind: str, where: str
) -> tuple[dict[str, Stated], list[InputError]]:
    rules = FACTS[kind]
    errors = [_unknown("fact", name, rules, f"{where}: facts") for name in facts if name not in rules]
    used, stated = set(), {}
    for name, rule in rules.items():
        place = f"{where}: facts.{name}"
        if name not in facts:
            if rule.default == REQUIRED:
                hint = f"add {name}: [value, source]"
                errors.append(InputError(f"{name} is missing", where=f"{where}: facts", hint=hint))
            elif rule.assumed and rule.instead not in facts:
                value = parse(rule.default, rule, place)
                stated[name] = Stated(text(rule.default), value, "assumed", f"default: {rule.why}")
            continue
        entry = facts[name]
        if not isinstance(entry, list) or len(entry) != 2:
            errors.append(InputError(f"{entry!r} is not a fact", where=place, hint="write [value, source key]"))
            continue
        written, key = entry
        used.add(str(key))
        if not isinstance(key, str) or key not in sources:
            errors.append(_unknown("source", key, sources, place))
            continue
        try:
            value = parse(written, rule, place)
        except InputError as error:
            errors.append(error)
            continue
        shown = written if isinstance(value, float | int | str) else write(value, rule)
        stated[name] = Stated(text(shown), value, sources[key].kind, sources[key].text())
    for key in sources:
        if key not in used:
            errors.append(InputError("no fact uses this source", where=f"{where}: sources.{key}", hint="remove it"))
    return stated, errors


def _unknown(what: str, key: Any, known: Iterable[str], where: str) -> InputError:
    near = difflib.get_close_matches(str(key), list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
    return InputError(f"unknown {what} {str(key)!r}", where=where, hint=hint)
