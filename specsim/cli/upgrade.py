"""`specsim upgrade`: what to buy, every candidate planned anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from specsim import api
from specsim.cli.options import check_picture, format_option
from specsim.cli.question import described, question, question_options
from specsim.cli.status import status
from specsim.cli.tables import Cell, emit
from specsim.energy import Tariff
from specsim.errors import InputError
from specsim.whatif.advice import advice
from specsim.whatif.prices import Prices, read_prices, with_prices
from specsim.whatif.upgrade import Purchase, Upgrades


@click.command("upgrade")
@question_options
@click.option(
    "--consider", multiple=True, metavar="NAME", help="Only these: profiles' names, sizes of RAM such as 128GiB."
)
@click.option("--prices", "price_file", type=click.Path(dir_okay=False), help="Prices; profiles/prices has an example.")
@click.option("--price", "price_words", multiple=True, metavar="NAME=PRICE", help="The price of a part.")
@click.option("--electricity", type=float, metavar="PRICE", help="Price of a kWh, in the currency of the prices.")
@click.option("--life", type=float, default=3.0, show_default=True, help="Years of steady work that pay for hardware.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw tokens/s against price: .png, .svg or .pdf.")
@click.option("--thorough", is_flag=True, help="Search in full for each, ten times as long, for a few per cent.")
@format_option("table", "json", "csv")
def upgrade(
    consider: Sequence[str],
    price_file: str | None,
    price_words: Sequence[str],
    electricity: float | None,
    life: float,
    plot: str | None,
    thorough: bool,
    fmt: str,
    **options: Any,
) -> None:
    """Say what to buy: every part that fits and is better in something, and sensible pairs, each planned anew.

    J/token is at the wall; the cost of a million useful tokens is electricity, and what was bought over its life.
    """
    if plot is not None:
        check_picture(plot)
    prices = with_prices(read_prices(price_file) if price_file else Prices(), _prices(price_words), "--price")
    tariff, asked = Tariff(electricity, life), question(**options)
    with status("upgrading") as say:
        found = api.upgrade(
            asked, consider=consider or None, prices=prices, tariff=tariff, thorough=thorough, progress=say
        )
    if plot is not None:
        pictures = import_module("specsim.report.upgrades")  # matplotlib: only who asks for a picture waits for it
        import_module("specsim.report.style").save(pictures.draw(found), plot)
    if fmt == "json":
        click.echo(json.dumps(_json(found), indent=2))
        return
    headers, rows = _table(found) if fmt == "table" else _values(found)
    emit(headers, rows, fmt)
    if fmt == "table":
        click.echo(f"\n{advice(found)}")
        for line in _notes(found):
            click.echo(line)


def _prices(words: Sequence[str]) -> dict[str, float]:
    prices = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            prices[name] = float(text)
        except ValueError:
            hint = "for example --price rtx4090=1600"
            raise InputError(f"{word!r} is not NAME=PRICE", where="--price", hint=hint) from None
    return prices


def _table(found: Upgrades) -> tuple[list[str], list[list[Cell]]]:
    """What a person reads: prices and costs only where there are any."""
    columns: list[tuple[str, Any]] = [
        ("buy", lambda p: p.name + ("*" if p.assumed else "")),
        ("tokens/s", lambda p: p.tokens_per_second),
        ("gain", lambda p: None if p.gain is None or not p.parts else f"{p.gain:+.1%}"),
        ("next step", lambda p: None if p.next_gain is None else f"{p.next_gain:+.1%}"),
    ]
    if found.prices.of:
        columns += [
            (f"{found.prices.currency}", lambda p: p.price),
            ("tokens/s per 100", lambda p: None if p.gain_per_price is None else 100 * p.gain_per_price),
        ]
    columns.append(("J/token", lambda p: p.joules_per_token))
    if found.prices.of or found.tariff.per_kwh is not None:
        columns.append(("per million", lambda p: p.cost_per_million))
    columns.append(("then", lambda p: p.bottleneck or p.plan))
    rows = [[cell(p) for _, cell in columns] for p in (found.base, *found.purchases)]
    return [name for name, _ in columns], rows


def _values(found: Upgrades) -> tuple[list[str], list[list[Cell]]]:
    values = [_purchase(p) for p in (found.base, *found.purchases)]
    return list(values[0]), [list(row.values()) for row in values]


def _purchase(p: Purchase) -> dict[str, Cell]:
    return {
        "buy": p.name,
        "kind": p.kind,
        "tokens_per_second": p.tokens_per_second,
        "gain": p.gain,
        "next_gain": p.next_gain,
        "price": p.price,
        "gain_per_price": p.gain_per_price,
        "joules_per_token": p.joules_per_token,
        "cost_per_million": p.cost_per_million,
        "plan": p.plan,
        "bottleneck": p.bottleneck,
        "acceptance_assumed": p.assumed,
    }


def _json(found: Upgrades) -> dict[str, Any]:
    return {
        **described(found.case),
        "advice": advice(found),
        "currency": found.prices.currency,
        "prices": found.prices.origin if found.prices.of else None,
        "electricity_per_kwh": found.tariff.per_kwh,
        "life_years": found.tariff.life_years,
        "today": _purchase(found.base),
        "purchases": [_purchase(p) for p in found.purchases],
        "left_out": dict(found.left_out),
    }


def _notes(found: Upgrades) -> list[str]:
    lines = [f"prices: {found.prices.origin}"] if found.prices.of else []
    if any(p.assumed for p in found.purchases):
        lines.append("* counts on a draft whose acceptance nobody measured")
    return lines + [f"left out: {name}: {why}" for name, why in found.left_out.items()]
