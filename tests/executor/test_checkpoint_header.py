"""A safetensors header is read as the library reads it, and one that lies is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from executor.checkpoint.header import TensorSpan, read_header
from specsim.errors import InputError
from tests.executor.checkpoint_stories import write_safetensors

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_spans_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "a", {"__metadata__": {"format": "pt"}, "x": F32}, bytes(8))
    data = file.stat().st_size - 8
    assert read_header(file) == {"x": TensorSpan("x", file, data, 8, "float32", (2,))}


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"", "has a header that is not JSON"),
        (b"{", "has a header that is not JSON"),
        (b"\xff\xfe", "has a header that is not JSON"),
        (b"[" * 100_000, "has a header that is not JSON"),
        (b'{"x": ' + b"1" * 5000 + b"}", "has a header that is not JSON"),
        (b'{"x": {}, "x": {}}', "has a header that is not JSON: it has 'x' twice"),
        ([], "is not a JSON object"),
        ({"x": 1}, "describes tensor 'x' by something that is not a JSON object"),
        ({"x": F32 | {"dtype": "F4"}}, "unknown dtype 'F4'"),
        ({"x": F32 | {"dtype": ["F32"]}}, "unknown dtype"),
        ({"x": F32 | {"shape": [-2]}}, "no valid shape"),
        ({"x": F32 | {"shape": [2.0]}}, "no valid shape"),
        ({"x": F32 | {"shape": [True]}}, "no valid shape"),
        ({"x": F32 | {"shape": [2**63]}}, "no valid shape"),
        ({"x": F32 | {"shape": [1] * 17}}, "no valid shape"),
        ({"x": F32 | {"shape": None}}, "no valid shape"),
        ({"x": F32 | {"shape": [2**40, 2**40]}}, "gives tensor 'x' 8 bytes, but it is [1099511627776,"),
        ({"x": F32 | {"shape": [3]}}, "gives tensor 'x' 8 bytes, but it is [3] of float32"),
        ({"x": F32 | {"data_offsets": [8, 0]}}, "no valid data_offsets"),
        ({"x": F32 | {"data_offsets": [-8, 0]}}, "no valid data_offsets"),
        ({"x": F32 | {"data_offsets": ["0", 8]}}, "no valid data_offsets"),
        ({"x": F32 | {"data_offsets": [0, 4, 8]}}, "no valid data_offsets"),
        ({"x": F32, "y": F32 | {"data_offsets": [4, 12]}}, "overlapping tensors 'x' and 'y'"),
        ({"x" * 1000: 1}, f"describes tensor '{'x' * 100}...' by"),
    ],
)
def test_a_header_that_lies_is_refused(header: Any, complaint: str, tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "a", header, bytes(16))
    with pytest.raises(InputError) as caught:
        read_header(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"1234567", (17).to_bytes(8, "little") + b"{}", b"\xff" * 20])
def test_a_length_past_the_end_of_the_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="is cut short"):
        read_header(tmp_path / "a")


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)  # sparse
    with pytest.raises(InputError, match="100000001 bytes, more than 100000000"):
        read_header(tmp_path / "a")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def consistent_or_refused(file: Path) -> None:
    try:
        spans = read_header(file)
    except InputError:
        return
    for span in spans.values():
        assert span.offset >= 8
        assert span.nbytes == math.prod(span.shape) * getattr(torch, span.dtype).itemsize


numbers = st.one_of(st.integers(-2, 20), st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "U8", "BOOL", "f32", "", None, 3]),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | st.tuples(st.integers(0, 9), st.integers(0, 40)) | numbers,
    },
)
headers = st.dictionaries(st.text(max_size=4), entries | numbers, max_size=4)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes"
    file.write_bytes(content)
    consistent_or_refused(file)


@given(headers)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
    consistent_or_refused(write_safetensors(tmp_path_factory.getbasetemp() / "json", text, bytes(40)))


@given(st.data())
def test_a_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(save({"a": torch.ones(3, 2), "b": torch.ones(2, dtype=torch.bfloat16)}))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "changed"
    file.write_bytes(content)
    consistent_or_refused(file)
