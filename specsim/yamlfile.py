"""Read a YAML file strictly: no key twice, dates stay text, a syntax error names its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Base  # libyaml, about ten times faster
except ImportError:
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

from specsim.errors import InputError

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
# JSON writes 1e-05, which YAML 1.1 takes for text as it has no dot
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"))


class _Loader(_Base):
    # `date: 2025-06-01` is the text that was written, not a datetime object
    yaml_implicit_resolvers = {  # noqa: RUF012  (read by PyYAML, never changed)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        + ([_EXPONENT] if first in set("-+0123456789") else [])
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"key {key.value!r} twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: str | Path) -> Any:
    """The plain value in `path` (dicts, lists, str, int, float, bool, None).

    Raises InputError for a file that cannot be read, is not UTF-8, is not YAML, or has a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"cannot be read: {reason}", where=str(path)) from error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{line}{error.problem or 'not YAML'}", where=str(path)) from error
    except yaml.YAMLError as error:  # for example a control character: no mark
        raise InputError("not YAML", where=str(path)) from error
