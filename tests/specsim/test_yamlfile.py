"""YAML of strangers: plain values are read, and whatever could cost more than its own length is refused by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specsim.errors import InputError
from specsim.yamlfile import parse_yaml, read_yaml

LAUGHS = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(20))


def refusal(content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        parse_yaml(content.encode() if isinstance(content, str) else content, "f.yaml")
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a: [1, -2.5, 1e-05, 0x10, true, null, ~]", {"a": [1, -2.5, 1e-05, 16, True, None, None]}),
        ("a: 2025-06-01\nb: '1'\nc: no", {"a": "2025-06-01", "b": "1", "c": False}),
        ("1: 0.5\n2: |\n  two\n  lines\n", {1: 0.5, 2: "two\nlines\n"}),
        ('{"a": {"b": []}}', {"a": {"b": []}}),
        ("a: &anchor 3", {"a": 3}),
        ("a: .inf", {"a": float("inf")}),
        ("18446744073709551615", 2**64 - 1),
        ("a: =", {"a": "="}),
    ],
)
def test_plain_values_are_read(text: str, value: Any) -> None:
    assert parse_yaml(text.encode(), "f.yaml") == value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 1_000_000, "line 1: nested more than 64 deep"),  # the composer in C ran out of stack: a dead process
        ("a: " + "{b: " * 70, "line 1: nested more than 64 deep"),
        ("- " * 100_000, "line 1: nested more than 64 deep"),
        (LAUGHS, "line 2: the alias *l0 is not supported; write the value out"),
        ("a: &a [*a]", "the alias *a is not supported"),
        ("a: !!python/object/apply:os.system ['true']", "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is"),
        ("a: !!int x", "the tag 'tag:yaml.org,2002:int' is not supported"),  # was a ValueError
        ("a: !!bool x", "the tag 'tag:yaml.org,2002:bool' is not supported"),  # a KeyError
        ("a: !!timestamp x", "the tag 'tag:yaml.org,2002:timestamp' is not supported"),  # an AttributeError
        ("a: 1\n<<: {b: 2}", "line 2: a merge (<<) is not supported"),
        ("a: " + "1" * 5000, "is not a number that can be read"),  # a ValueError: Python reads 4300 digits
        ("a: 0x" + "f" * 5000, "has more than 64 bits"),  # a ValueError once it was shown
        ("a: 18446744073709551616", "'18446744073709551616' has more than 64 bits"),
        ("a: -9223372036854775809", "has more than 64 bits"),
        ("a: 1\na: 2", "line 2: key 'a' twice"),
        ("1: a\n1.0: b", "line 2: key '1.0' twice"),
        ("? [a]\n: b", "line 1: a key has to be a plain value"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: 'b", "line 1: found unexpected end of stream"),
        ('"\\ud800"', "line 1: found invalid Unicode character escape code"),
        ("a: \x00", "not YAML"),
        (b"\xff\xfe", "cannot be read: not UTF-8 text"),
    ],
)
def test_what_is_not_plain_is_refused(text: str | bytes, complaint: str) -> None:
    assert complaint in refusal(text)


def test_sixty_four_levels_are_enough() -> None:
    value = parse_yaml(b"[" * 64 + b"]" * 64, "f.yaml")
    for _ in range(63):
        [value] = value
    assert value == []


def test_a_file_without_end_is_not_read_to_the_end() -> None:
    with pytest.raises(InputError, match="/dev/zero: has more than 16777216 bytes; is it the right file"):
        read_yaml("/dev/zero")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.yaml", tmp_path, tmp_path / ("a" * 300), Path("a\0b")):
        with pytest.raises(InputError, match="cannot be read: "):
            read_yaml(path)
