"""A field and a range become values in base units; what is mistyped is said in one line."""

from __future__ import annotations

import pytest

from specsim.errors import InputError, UnknownNameError
from specsim.units import GiB
from specsim.whatif.vary import FIELDS, axis, field


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("link", "8..64GB/s:4", (8e9, 16e9, 32e9, 64e9)),  # rates rise by factors
        ("link", "500MB/s..2GB/s:3", (5e8, 1e9, 2e9)),
        ("ram", "32,64,128GiB", (32.0 * GiB, 64.0 * GiB, 128.0 * GiB)),
        ("ram", "512MiB,1GiB", (GiB / 2, 1.0 * GiB)),
        ("acceptance", "0.5..0.9:5", (0.5, 0.6, 0.7, 0.8, 0.9)),  # chances by steps
        ("acceptance", "50..70%:3", (0.5, 0.6, 0.7)),
        ("acceptance", "0,some-pair", (0.0, "some-pair")),
        ("gamma", "0,4,8", (0, 4, 8)),
        ("target", "../x,qwen2.5-3b", ("../x", "qwen2.5-3b")),
        ("gamma", "0..8:3", (0, 4, 8)),
        ("requests", "1..16:9", (1, 2, 3, 4, 6, 8, 11, 16)),  # whole, and none twice
        ("draft", "none,mistral-7b", ("none", "mistral-7b")),
        ("refill", "true,false", (True, False)),
        ("cpu-factor", "1..4:3", (1.0, 2.0, 4.0)),
        ("prompt_tokens", "64,512", (64, 512)),
    ],
)
def test_text_is_read_in_base_units(name: str, text: str, values: tuple[object, ...]) -> None:
    found = axis(name, text).values
    assert [v if isinstance(v, str) else pytest.approx(v) for v in values] == list(found)
    assert [type(v) for v in found] == [type(v) for v in values]


def test_values_of_python_are_in_base_units_already() -> None:
    assert axis("link", [8e9, 16e9]).values == (8e9, 16e9)
    assert axis("gamma", [0, 4, 4]).values == (0, 4)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("link", "8..64:4", "has no unit of bytes/s"),
        ("link", "8..64GB:4", "has unit 'GB'"),
        ("link", "8..64GB/s", "write LOW..HIGH:COUNT"),
        ("link", "64..8GB/s:4", "does not rise"),
        ("link", "8..64GB/s:1", "does not rise"),
        ("acceptance", "mixtral..x:3", "is no range of numbers; list pairs"),
        ("link", "8..64GB/s:200000000", "200000000 values are too many; a sweep has at most 1000000 points"),
        ("gamma", "1.5", "no whole number"),
        ("refill", "yes", "neither true nor false"),
    ],
)
def test_what_is_mistyped_is_said_with_its_field(name: str, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        axis(name, text)
    assert said in str(error.value)
    assert f"--vary {name}" in str(error.value)


def test_an_unknown_field_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean acceptance"):
        field("acceptence")
    with pytest.raises(UnknownNameError, match=r"known: .*vram"):
        field("zzz")


@pytest.mark.parametrize("values", [[], ["8GB/s"], [float("nan")], [True]])
def test_values_of_another_kind_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError):
        axis("link", values)


def test_names_ask_another_question_and_numbers_do_not() -> None:
    assert {name for name, of in FIELDS.items() if of.names} == {
        *("machine", "gpu", "host", "disk", "target", "draft", "dtype", "workload", "devices")
    }
