"""Quantities read from text come out in base units, are written back exactly, and bad ones say why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specsim import units
from specsim.errors import UnitError


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("24 GiB", "bytes", 24 * 2**30),
        ("24GiB", "bytes", 24 * 2**30),
        ("24 GB", "bytes", 24e9),
        (" 0.5 TiB ", "bytes", 2**39),
        ("1008 GB/s", "bytes/s", 1008e9),
        ("2 GiB/s", "bytes/s", 2 * 2**30),
        ("165.2 TFLOP/s", "FLOP/s", 165.2e12),
        ("70 GFLOPS", "FLOP/s", 70e9),
        ("20 us", "seconds", 20e-6),
        ("1.5e3 ms", "seconds", 1.5),
        ("0.3 kW", "watts", 300.0),
        ("80 %", "ratio", 0.8),
        (0.8, "ratio", 0.8),
    ],
)
def test_parse(text: str | float, dimension: str, value: float) -> None:
    assert units.parse(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("24", "bytes", "'24' has no unit of bytes; use one of: B, kB"),
        ("24 GB/s", "bytes", "'24 GB/s' has unit 'GB/s', which is not one of bytes"),
        ("fast", "bytes/s", "'fast' is not a quantity; write a number and a unit"),
        ("-1 GiB", "bytes", "'-1 GiB' must be more than zero"),
        ("0 s", "seconds", "'0 s' must be more than zero"),
        ("1e400 s", "seconds", "'1e400 s' must be more than zero"),
        ("nan", "ratio", "'nan' is not a quantity"),
        # each took quadratic time to refuse: hours
        pytest.param("1" * 1_000_000 + "!", "bytes", "'111", id="digits"),
        pytest.param("1" + " " * 1_000_000 + "!", "bytes", "'1  ", id="blanks"),
        pytest.param("1.5 " + "G" * 1_000_000 + "!", "bytes", "'1.5 GG", id="letters"),
    ],
)
def test_parse_refuses(text: str, dimension: str, message: str) -> None:
    with pytest.raises(UnitError) as caught:
        units.parse(text, dimension, where="--x")
    assert str(caught.value).startswith(f"--x: {message}")


def test_zero_only_where_it_is_allowed() -> None:
    assert units.parse("0 GiB", "bytes", zero=True) == 0.0


@given(st.floats(min_value=1e-12, max_value=1e18), st.sampled_from(sorted(units.UNITS)))
def test_exact_reads_back_as_the_same_float(value: float, dimension: str) -> None:
    assert units.parse(units.exact(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (24 * 2.0**30, "bytes", "24 GiB"),
        (1.5 * 2.0**40, "bytes", "1.5 TiB"),
        (3.5e9, "bytes/s", "3.5 GB/s"),
        (20e-6, "seconds", "20 us"),
        (0.8, "ratio", "0.8"),
        (0.0, "bytes", "0 B"),
    ],
)
def test_exact_picks_the_largest_unit_that_fits(value: float, dimension: str, text: str) -> None:
    assert units.exact(value, dimension) == text


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (1.008e12, "bytes/s", "1.01 TB/s"),
        (12.6032e9, "bytes/s", "12.6 GB/s"),
        (23 * 2.0**30, "bytes", "23.0 GiB"),
        (0.00123, "seconds", "1.23 ms"),
        (0.0, "seconds", "0.00 ns"),
    ],
)
def test_show_rounds_for_a_person(value: float, dimension: str, text: str) -> None:
    assert units.show(value, dimension) == text
