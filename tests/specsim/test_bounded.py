"""JSON of strangers, and the bounds on every file: size, depth, kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from specsim.bounded import MAX_DEPTH, loads, read_bounded, read_json
from specsim.errors import InputError


@pytest.mark.parametrize("inside", ["[]", "{}", '"x"', "1"])
def test_json_may_nest_so_deep_and_no_deeper(inside: str) -> None:
    depth = MAX_DEPTH if inside in ("[]", "{}") else MAX_DEPTH + 1
    assert loads("[" * depth + inside + "]" * depth) is not None
    for deeper in (depth + 1, 900, 100_000):  # at 900 parsing succeeds, and repr of it would not
        with pytest.raises(ValueError, match="nested"):
            loads('{"a":' * deeper + inside + "}" * deeper)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", "{}".encode("utf-16"), b"\xef\xbb\xbf{}", b'{"a": 1, "a": 2}', b"1" * 5000, b"{}{}"]
)
def test_what_is_not_strict_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  of many kinds, which the caller puts into words
        loads(text)


def test_a_key_that_comes_twice_is_named() -> None:
    with pytest.raises(ValueError, match="it has 'b' twice"):
        loads('{"a": [{"b": 1, "c": 2, "b": 3}]}')


def test_a_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="has more than 67108864 bytes; is it the right file"):
        read_json(tmp_path / "config.json", hint="")


def test_what_is_no_regular_file_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="cannot be read: it is not a regular file"):
            read_bounded(path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("blob")
    assert read_bounded(tmp_path / "link") == b"{}"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be read: Too many levels of symbolic links"):
        read_bounded(tmp_path / "loop")


def test_a_message_is_one_printable_line_whatever_a_file_says() -> None:
    error = InputError("a\nb\x1b[2J\u2028\ud800" + "x" * 100_000, where="p\r", hint="h\x07")
    assert str(error).isprintable()
    assert str(error).startswith("p : a b\\x1b[2J\\u2028\\ud800xxx")
    assert str(error).endswith("x...; h\\x07")
    assert len(str(error)) < 2100
