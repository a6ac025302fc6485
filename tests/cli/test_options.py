"""Options with units and the choice of an output format."""

from __future__ import annotations

import click
import pytest

from specsim.cli.main import entry
from specsim.cli.options import format_option, quantity_option


@click.group()
def group() -> None:
    pass


@group.command()
@quantity_option("--vram", "bytes", help="VRAM that the plan may use.")
@quantity_option("--link", "bytes/s", help="Rate of the link.")
@format_option("table", "json")
def show(vram: float | None, link: float | None, fmt: str) -> None:
    click.echo(f"{vram} {link} {fmt}")


def test_quantities_arrive_in_base_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["show", "--vram", "24GiB", "--link", "12 GB/s", "--format", "json"], group) == 0
    assert capsys.readouterr() == ("25769803776.0 12000000000.0 json\n", "")


def test_options_that_are_not_given_are_none_and_the_first_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["show"], group) == 0
    assert capsys.readouterr() == ("None None table\n", "")


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--vram", "24", "--vram: '24' has no unit of bytes; use one of: B, kB, "),
        ("--vram", "24 W", "--vram: '24 W' has unit 'W', which is not one of bytes; use one of: B, "),
        ("--link", "much", "--link: 'much' is not a quantity; write a number and a unit: B/s, kB/s, "),
        ("--link", "0 GB/s", "--link: '0 GB/s' must be more than zero"),
    ],
)
def test_a_bad_quantity_is_told_with_flag_value_and_advice(
    capsys: pytest.CaptureFixture[str], flag: str, value: str, says: str
) -> None:
    assert entry(["show", flag, value], group) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"specsim: error: {says}")
    assert err.count("\n") == 1


def test_a_format_that_is_not_a_choice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["show", "--format", "xml"], group) == 2
    expected = "Invalid value for '--format': 'xml' is not one of 'table', 'json'; see specsim show --help"
    assert capsys.readouterr().err == f"specsim: error: {expected}\n"


def test_help_shows_the_dimension_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["show", "--help"], group) == 0
    out = capsys.readouterr().out
    assert "--vram BYTES " in out
    assert "[default: table]" in out
