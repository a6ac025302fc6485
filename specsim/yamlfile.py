"""Read a YAML file strictly: plain values alone, no key twice, dates stay text, an error names its line.

The values are made of the parser's events: PyYAML's own composer recurses in C, where 100 kB of brackets end the
process, and expands aliases, of which a few lines stand for gigabytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

try:
    from yaml import CSafeLoader as _Base  # libyaml, about ten times faster
except ImportError:
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

from specsim.bounded import MAX_DEPTH, read_bounded, short
from specsim.errors import InputError

_MAX_BYTES: Final = 16 * 2**20
_MERGE: Final = "tag:yaml.org,2002:merge"
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
#: "=" is text too, though YAML 1.1 once had plans for it
_TEXT: Final = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:value")
# JSON writes 1e-05, which YAML 1.1 takes for text as it has no dot
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"))


class _Loader(_Base):
    # `date: 2025-06-01` is the text that was written, not a datetime object
    yaml_implicit_resolvers = {  # noqa: RUF012  (read by PyYAML, never changed)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        + ([_EXPONENT] if first in set("-+0123456789") else [])
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


def read_yaml(path: str | Path) -> Any:
    """The plain value in `path` (dicts, lists, str, int, float, bool, None).

    Raises InputError for a file that cannot be read or is larger than 16 MiB, and where `parse_yaml` does.
    """
    return parse_yaml(read_bounded(path, most=_MAX_BYTES, pipe=True), str(path))


def parse_yaml(content: bytes, where: str) -> Any:
    """The plain value in a document, None for an empty one.

    Raises InputError for what is not UTF-8 or not YAML, and for what is, but not plain: tags, aliases, a merge, keys
    that are no scalars, whole numbers beyond 64 bits, a key twice, more than `MAX_DEPTH` levels.
    """
    try:
        loader = _Loader(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError("cannot be read: not UTF-8 text", where=where) from None
    except yaml.YAMLError:  # a control character: no mark
        raise InputError("not YAML", where=where) from None
    try:
        return _document(loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{line}{error.problem or 'not YAML'}", where=where) from None
    except yaml.YAMLError:
        raise InputError("not YAML", where=where) from None
    finally:
        loader.dispose()


def _document(loader: Any) -> Any:
    loader.get_event()  # the stream's start
    if isinstance(loader.get_event(), yaml.StreamEndEvent):
        return None
    value = _value(loader, loader.get_event(), 0)
    loader.get_event()  # the document's end
    after = loader.get_event()
    if not isinstance(after, yaml.StreamEndEvent):
        raise _refused("a second document", after)
    return value


def _value(loader: Any, event: Any, depth: int) -> Any:
    """The value that begins with `event`; its other events are taken from the loader."""
    if isinstance(event, yaml.AliasEvent):
        raise _refused(f"the alias *{event.anchor} is not supported; write the value out", event)
    if event.tag is not None:
        raise _refused(f"the tag {short(event.tag)} is not supported", event)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(loader, event)
    if depth == MAX_DEPTH:
        raise _refused(f"nested more than {MAX_DEPTH} deep", event)
    if isinstance(event, yaml.SequenceStartEvent):
        values = []
        while not isinstance(after := loader.get_event(), yaml.SequenceEndEvent):
            values.append(_value(loader, after, depth + 1))
        return values
    made: dict[Any, Any] = {}
    while not isinstance(key_event := loader.get_event(), yaml.MappingEndEvent):
        if not isinstance(key_event, yaml.ScalarEvent):
            raise _refused("a key has to be a plain value", key_event)
        key = _value(loader, key_event, depth + 1)
        if key in made:
            raise _refused(f"key {short(key_event.value)} twice", key_event)
        made[key] = _value(loader, loader.get_event(), depth + 1)
    return made


def _scalar(loader: Any, event: yaml.ScalarEvent) -> Any:
    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    if tag in _TEXT:
        return event.value
    if tag == _MERGE:
        raise _refused("a merge (<<) is not supported; write the keys out", event)
    try:
        value = loader.construct_object(yaml.ScalarNode(tag, event.value))
    except (ValueError, OverflowError):  # Python reads whole numbers of up to 4300 digits
        raise _refused(f"{short(event.value)} is not a number that can be read", event) from None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise _refused(f"{short(event.value)} has more than 64 bits", event)
    return value


def _refused(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
