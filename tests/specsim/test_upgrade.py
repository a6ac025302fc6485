"""What to buy: what fits, what is planned anew for it, where returns stop, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import specsim
from specsim import api, machines
from specsim.case import Case
from specsim.energy import Tariff
from specsim.errors import InputError
from specsim.planner import anew as anew_module
from specsim.planner.anew import follow, rate_of, start
from specsim.report.style import save
from specsim.report.upgrades import draw
from specsim.units import GiB, MiB
from specsim.whatif.advice import advice
from specsim.whatif.parts import Part, built_in, in_order, named, offers
from specsim.whatif.prices import Prices, read_prices, with_prices
from specsim.whatif.upgrade import Purchase, Upgrades, enough
from tests.conftest import ROOT
from tests.specsim import plans

EXAMPLE = ROOT / "profiles" / "prices" / "example.yaml"
DESKTOP = {"gpu": "rtx3090", "target": "mixtral-8x7b", "draft": "mistral-7b", "workload": "humaneval"}


def desktop(**options: object) -> Case:
    return api.case(**{**DESKTOP, **options})  # type: ignore[arg-type]


def purchase(name: str, kind: str, rate: float, price: float | None = None, base: float = 10.0) -> Purchase:
    names, kinds = name.split(" + "), kind.split(" + ")
    parts = tuple(Part(k, n) for k, n in zip(kinds, names, strict=True)) if name else ()  # type: ignore[arg-type]
    per = (rate - base) / price if price else None
    return Purchase(parts, rate, rate / base - 1 if base else None, price, per, 1.0, None, "plan", "", False)


def found(*purchases: Purchase, base: float = 10.0) -> Upgrades:
    priced = Prices({"rtx5090": 2000.0} if any(p.price for p in purchases) else {}, "USD")
    ranked = tuple(sorted(purchases, key=lambda p: -p.tokens_per_second))
    return Upgrades(plans.case(), purchase("", "", base, base=base), ranked, {}, priced, Tariff())


def test_what_is_better_in_something_and_fits_a_slot_is_offered_step_by_step() -> None:
    names = {kind: [part.name for part in offers(desktop()) if part.kind == kind] for kind in ("gpu", "ram", "link")}
    assert names["gpu"] == ["rtx4070-ti-super", "rtx4080", "l4", "rtx4090", "rtx5090"]  # by their arithmetic
    assert names["ram"] == ["96GiB", "128GiB", "256GiB"]
    assert names["link"] == ["pcie5x16"]
    assert Part("draft", "mistral-7b") not in offers(desktop())
    assert Part("draft", "mistral-7b") in offers(desktop(draft="none"))


def test_without_a_gpu_every_card_is_offered_and_no_slot() -> None:
    kinds = {part.kind for part in offers(plans.case(gpu=False))}
    assert kinds == {"gpu", "ram", "disk"}  # no profile has the vocabulary of the tests' target
    assert {part.name for part in offers(plans.case(gpu=False))} >= {"rtx3060-12gb", "rtx5090"}


def test_a_card_brings_its_memory_and_the_slower_of_both_links() -> None:
    machine = built_in(desktop(), (Part("gpu", "rtx5090"),)).machine
    assert machine.gpu is not None
    assert machine.link is not None
    assert (machine.gpu.name, machine.link.name) == ("rtx5090", "pcie4x16")  # the board has no more
    assert machine.vram_budget_bytes == 31 * GiB
    assert machine.ram_budget_bytes == desktop().machine.ram_budget_bytes
    assert machine == replace(machines.from_dict(machines.to_dict(machine)), facts=machine.facts)


def test_a_board_that_waited_for_a_faster_card_gives_it_its_link() -> None:
    links = [
        built_in(desktop(host=host), (Part("gpu", "rtx5090"),)).machine.link
        for host in ("desktop-ddr5-64g", "desktop-ddr4-64g")
    ]
    assert [link.name for link in links if link is not None] == ["pcie5x16", "pcie4x16"]


def test_a_card_in_a_narrow_slot_stays_there_and_a_given_rate_stays() -> None:
    narrow = machines.assemble(gpu="rtx3090", link="pcie3x4")
    moved = built_in(replace(desktop(), machine=narrow), (Part("gpu", "rtx4090"),)).machine.link
    assert moved == narrow.link
    given = desktop(link_bytes_per_s=12e9)
    assert built_in(given, (Part("gpu", "rtx4090"),)).machine.link == given.machine.link


def test_more_ram_leaves_the_system_what_it_had() -> None:
    case = desktop(ram=40 * GiB)
    machine = built_in(case, (Part("ram", "96GiB"),)).machine
    assert machine.ram_budget_bytes == (40 + 32) * GiB
    assert machine.host.ram_bytes == 96 * GiB
    assert {f.field: f.value for f in machine.facts if f.source == "what-if"} == {
        "host.ram": "96 GiB",
        "machine.ram_budget": "72 GiB",
    }


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((Part("link", "pcie5x16"),), "pcie5x16: rtx3090 supports pcie4x16 at most"),
        ((Part("ram", "256GiB"),), "256GiB: the board holds 128 GiB at most"),
        ((Part("disk", "nvme-gen5"),), "nvme-gen5: the board gives a drive 7.88 GB/s at most"),
        ((Part("gpu", "h100-sxm"),), "h100-sxm: is a module (SXM5), which fits no slot"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_why(parts: tuple[Part, ...], says: str) -> None:
    with pytest.raises(InputError) as error:
        built_in(desktop(), parts)
    assert str(error.value) == says


def test_a_slot_fits_once_the_card_is_there_in_whatever_order_they_are_named() -> None:
    machine = built_in(desktop(), (Part("link", "pcie5x16"), Part("gpu", "rtx5090"))).machine
    assert machine.link is not None
    assert machine.link.name == "pcie5x16"
    assert machine.name == "rtx3090 in desktop-ddr4-64g with pcie5x16, rtx5090"


def test_parts_are_called_by_profile_or_by_size() -> None:
    assert [named(name, "here") for name in ("rtx4090", "128 GiB", "nvme-gen5", "pcie5x16", "mistral-7b")] == [
        Part("gpu", "rtx4090"),
        Part("ram", "128GiB"),
        Part("disk", "nvme-gen5"),
        Part("link", "pcie5x16"),
        Part("draft", "mistral-7b"),
    ]
    with pytest.raises(InputError, match="here: unknown part 'rtx409'; did you mean rtx4090"):
        named("rtx409", "here")


def test_prices_are_read_with_their_date_and_currency() -> None:
    prices = read_prices(EXAMPLE)
    assert prices.currency == "USD"
    assert prices.origin.startswith("example.yaml of 2026-11-21: an example;")
    assert prices.total((Part("gpu", "rtx4090"), Part("draft", "mistral-7b"))) == 1599
    assert prices.total((Part("gpu", "l4"),)) is None
    assert with_prices(prices, {"l4": 2500.0}, "--price").total((Part("gpu", "l4"),)) == 2500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prices: {}\n", "is no price file; write schema: specsim.prices/1"),
        ("schema: specsim.prices/1\ndate: 2026-01-01\ncurrency: EUR\nprices: {rtx409: 5}\n", "unknown part 'rtx409'"),
        ("schema: specsim.prices/1\ndate: 2026-01-01\ncurrency: EUR\nprices: {rtx4090: -5}\n", "is -5; give zero"),
        ("schema: specsim.prices/1\ndate: soon\ncurrency: EUR\nprices: {}\n", "Invalid RFC3339 encoded date"),
    ],
)
def test_a_bad_price_file_is_told_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_prices(file)
    assert str(error.value).startswith(str(file))
    assert says in str(error.value)


def test_every_part_and_sensible_pairs_are_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    # the target takes 860 MiB, so some of it is read from disk
    machine = machines.assemble(gpu="rtx4090", host="desktop-ddr5-64g", vram=320 * MiB, ram=400 * MiB)
    case = plans.case().on(machine)
    said: list[str] = []
    prices = {"rtx5090": 2000.0, "65GiB": 50.0}
    tariff = Tariff(0.30, life_years=2.0)
    answer = specsim.upgrade(
        case, consider=["rtx5090", "65GiB", "66GiB", "1TiB"], prices=prices, tariff=tariff, progress=said.append
    )
    rows = {p.name: p for p in answer.purchases}
    assert rows.keys() == {"rtx5090", "65GiB", "66GiB", "rtx5090 + 65GiB"}  # 66 GiB add nothing to 65
    assert answer.left_out == {"1024GiB": "the board holds 128 GiB at most"}
    rate = answer.base.tokens_per_second
    assert (rate, answer.base.gain, answer.base.price) == (rate_of(start(case).found), 0.0, 0.0)
    for p in rows.values():
        assert p.tokens_per_second == rate_of(follow(start(case), built_in(case, p.parts)))
        assert p.tokens_per_second >= rate
        assert p.joules_per_token is not None
    pair = rows["rtx5090 + 65GiB"]
    assert pair.price == 2050
    assert pair.gain_per_price == (pair.tokens_per_second - rate) / 2050
    assert (rows["66GiB"].price, rows["66GiB"].cost_per_million) == (None, None)
    assert rows["65GiB"].next_gain == rows["66GiB"].tokens_per_second / rows["65GiB"].tokens_per_second - 1
    hours = 2 * 365.25 * 24 * 3600 * pair.tokens_per_second
    assert pair.joules_per_token is not None
    assert pair.cost_per_million == pytest.approx(pair.joules_per_token / 3.6 * 0.30 + 2050e6 / hours)
    assert sum(what.startswith("planning with ") for what in said) == 4
    assert list(answer.to_frame()["buy"]) == ["as it is", *[p.name for p in answer.purchases]]


def test_the_order_in_which_parts_are_named_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    case = plans.case()
    rising, falling = ["rtx4070-ti-super", "rtx5090", "96GiB", "128GiB"], ["128GiB", "128 GiB", "rtx5090", "96GiB"]
    known = [named(name, "here") for name in falling]
    assert [part.name for part in in_order(case, known)] == ["rtx5090", "96GiB", "128GiB"]
    assert in_order(case, [named(name, "here") for name in rising[::-1]]) == [named(name, "here") for name in rising]
    first, second = (specsim.upgrade(case, consider=names) for names in (rising[1:], falling))
    assert first == second
    assert [p.next_gain is None for p in first.purchases if p.name in ("96GiB", "128GiB")].count(False) == 1


def test_returns_stop_at_the_first_step_that_comes_near_the_best() -> None:
    steps = [purchase("96GiB", "ram", 17.0), purchase("128GiB", "ram", 17.5), purchase("256GiB", "ram", 17.6)]
    assert enough(steps).name == "96GiB"
    assert enough([replace(steps[0], tokens_per_second=12.0), *steps[1:]]).name == "128GiB"


def test_the_advice_is_the_best_for_the_money_then_what_goes_on_top() -> None:
    ram = replace(purchase("96GiB", "ram", 17.0, 80.0), next_gain=0.004)
    card, small = purchase("rtx5090", "gpu", 15.0, 2000.0), purchase("rtx4080", "gpu", 5.0, 1200.0)
    both = purchase("rtx5090 + 96GiB", "gpu + ram", 20.4, 2080.0)
    assert advice(found(ram, card, small, both)) == (
        "Buy RAM up to 96 GiB for 80 USD: +70% (10 to 17 tokens/s), the most for the money; the next step adds little "
        "(+0.4%); an rtx5090 on top makes it 20.4 tokens/s (+20%) for 2000 USD more; "
        "alone, an rtx5090 gives +50% for 2000 USD."
    )


def test_without_prices_the_advice_is_the_smallest_step_that_comes_near_the_fastest() -> None:
    ram = [purchase("96GiB", "ram", 17.0), purchase("128GiB", "ram", 17.2)]
    assert advice(found(*ram)) == "Buy RAM up to 96 GiB: +70% (10 to 17 tokens/s)."
    assert advice(found()) == "Nothing here is worth buying."  # of a machine that runs
    assert advice(found(purchase("l4", "gpu", 10.2))) == "Nothing here is worth buying: the most, an l4, adds +2%."


def test_an_acceptance_that_nobody_measured_is_no_advice() -> None:
    draft = replace(purchase("mistral-7b", "draft", 30.0, 0.0), assumed=True)
    assert advice(found(draft, purchase("l4", "gpu", 12.0))) == "Buy an l4: +20% (10 to 12 tokens/s)."


def test_what_does_not_run_today_may_run_with_a_part() -> None:
    assert advice(found(purchase("l4", "gpu", 12.0, base=0.0), base=0.0)) == (
        "It does not fit today; buy an l4 and it runs at 12 tokens/s."
    )
    assert advice(found(purchase("l4", "gpu", 0.0, base=0.0), base=0.0)) == "Nothing here makes it run."


@pytest.mark.parametrize("price", [None, 100.0])
def test_the_picture_is_drawn_with_prices_and_without(tmp_path: Path, price: float | None) -> None:
    figure = draw(found(purchase("96GiB", "ram", 17.0, price), purchase("rtx5090", "gpu", 15.0, price)))
    save(figure, tmp_path / "upgrade.svg")
    assert len(figure.axes) == 1
    texts = [*figure.axes[0].texts, *figure.axes[0].get_yticklabels()]
    assert {"96GiB", "rtx5090"} <= {text.get_text() for text in texts}
