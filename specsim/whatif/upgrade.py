"""What to buy: every candidate part, and the most promising pairs, each with the best plan for the machine it makes.

Of every kind the steps are tried from the smallest to the largest, so it shows where returns stop: at the first step
that comes near the best of its kind. Pairs are made of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, Final

from specsim.case import Case
from specsim.energy import Tariff, cost_per_million
from specsim.errors import InputError
from specsim.planner.anew import follow, rate_of, start
from specsim.planner.busy import job_energy
from specsim.planner.predict import bottleneck, round_timeline
from specsim.planner.search import Found, Progress
from specsim.whatif.parts import KINDS, Part, built_in, in_order, offers
from specsim.whatif.prices import Prices

#: a further step that adds less than this is not worth taking
WORTHWHILE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Purchase:
    """Parts to buy (none: the machine as it is), and the best plan then, in useful tokens.

    `gain` is against the machine as it is (0.5: half as fast again; None where nothing runs there), `gain_per_price`
    tokens/s gained by a unit of currency, `next_gain` what the next step of the same part adds; costs and prices are in
    the currency of the prices. Where nothing fits, `tokens_per_second` is 0 and there is no energy.
    """

    parts: tuple[Part, ...]
    tokens_per_second: float
    gain: float | None
    price: float | None
    gain_per_price: float | None
    joules_per_token: float | None
    cost_per_million: float | None
    plan: str
    bottleneck: str
    assumed: bool  # it counts on an acceptance that nobody measured, of a draft other than the present one
    next_gain: float | None = None

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts) or "as it is"

    @property
    def kind(self) -> str:
        return " + ".join(part.kind for part in self.parts)


@dataclass(frozen=True, slots=True)
class Upgrades:
    """The machine as it is, all purchases with the fastest first, and why each part that was left out was."""

    case: Case
    base: Purchase
    purchases: tuple[Purchase, ...]
    left_out: Mapping[str, str]
    prices: Prices
    tariff: Tariff

    def to_frame(self) -> Any:
        """A row per purchase, the machine as it is first, as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes longer than planning

        names = [field.name for field in fields(Purchase) if field.name != "parts"]
        rows = [self.base, *self.purchases]
        return pd.DataFrame([{"buy": p.name, "kind": p.kind, **{n: getattr(p, n) for n in names}} for p in rows])


def find_upgrades(
    case: Case,
    *,
    consider: Sequence[Part] | None = None,
    prices: Prices | None = None,
    tariff: Tariff | None = None,
    thorough: bool = False,
    progress: Progress | None = None,
) -> Upgrades:
    """Plan anew with every part that is worth a look (see `parts.offers`), or those to `consider`, and with pairs: near
    the best plans for the machine as it is, or by a `thorough` search for each."""
    shop = _Shop(case, prices or Prices(), tariff or Tariff(), thorough, progress)
    parts = offers(case) if consider is None else in_order(case, consider)
    single = {part: found for part in parts if (found := shop.buy((part,))) is not None}
    for bought in _pairs(parts, single):
        shop.buy(bought)
    purchases = [_stepped(purchase, single) for purchase in shop.bought]
    purchases.sort(key=lambda p: -p.tokens_per_second)
    return Upgrades(case, shop.base, tuple(purchases), shop.left_out, shop.prices, shop.tariff)


class _Shop:
    """Builds parts in, plans, and notes what comes of it."""

    def __init__(self, case: Case, prices: Prices, tariff: Tariff, thorough: bool, progress: Progress | None) -> None:
        self.case, self.prices, self.tariff, self.thorough, self.progress = case, prices, tariff, thorough, progress
        self.bought: list[Purchase] = []
        self.left_out: dict[str, str] = {}
        self.first = start(case, progress)
        self.present = rate_of(self.first.found)  # tokens/s
        self.base = self._purchase(case, (), self.first.found)

    def buy(self, parts: tuple[Part, ...]) -> Purchase | None:
        """None where the parts do not fit the machine."""
        try:
            changed = built_in(self.case, parts)
        except InputError as error:
            if len(parts) == 1:
                self.left_out[parts[0].name] = str(error).removeprefix(f"{parts[0].name}: ")
            return None
        if self.progress is not None:
            self.progress(f"planning with {', '.join(part.name for part in parts)}")
        found = follow(self.first, changed, thorough=self.thorough)
        self.bought.append(purchase := self._purchase(changed, parts, found))
        return purchase

    def _purchase(self, case: Case, parts: tuple[Part, ...], found: Found | None) -> Purchase:
        rate, price = rate_of(found), self.prices.total(parts)
        energy = job_energy(case, found.decision, found.job) if found is not None else None
        known = price is not None or not self.prices.of  # electricity alone would make an unpriced part look cheap
        drafts = any(part.kind == "draft" for part in parts)
        return Purchase(
            parts,
            rate,
            gain=rate / self.present - 1 if self.present else None,
            price=price,
            gain_per_price=(rate - self.present) / price if price else None,
            joules_per_token=energy.joules_per_token if energy is not None else None,
            cost_per_million=cost_per_million(energy, self.tariff, price or 0.0) if energy and known else None,
            plan=found.candidate.label if found is not None else "nothing fits",
            bottleneck=_waits(case, found) if found is not None else "",
            assumed=drafts and case.acceptance is not None and case.acceptance.kind == "assumed",
        )


def _waits(case: Case, found: Found) -> str:
    return bottleneck(round_timeline(case, found.decision), found.job).partition(";")[0]


def enough(single: Sequence[Purchase]) -> Purchase:
    """Where returns stop: the first of a kind's steps, smallest first, that comes within `WORTHWHILE` of the best."""
    best = max(p.tokens_per_second for p in single)
    return next(p for p in single if p.tokens_per_second * (1 + WORTHWHILE) >= best)


def _pairs(parts: Sequence[Part], single: Mapping[Part, Purchase]) -> Iterator[tuple[Part, ...]]:
    """The sensible steps of every two kinds; a part that does not fit alone, with each of another kind."""
    kinds = [[single[part] for part in parts if part.kind == kind and part in single] for kind in KINDS]
    yield from combinations([enough(steps).parts[0] for steps in kinds if steps], 2)
    for alone in parts:
        if alone not in single:
            pairs = ((alone, other) for other in single if other.kind != alone.kind)
            yield from (tuple(sorted(pair, key=lambda part: KINDS.index(part.kind))) for pair in pairs)


def _stepped(purchase: Purchase, single: Mapping[Part, Purchase]) -> Purchase:
    """With what the next step of the same part adds; cards and drafts are no steps of one another."""
    part = purchase.parts[0]
    if len(purchase.parts) > 1 or part.kind not in ("link", "ram", "disk") or not purchase.tokens_per_second:
        return purchase
    steps = [p for p in single if p.kind == part.kind]
    after = steps[steps.index(part) + 1 :][:1]
    gains = [single[step].tokens_per_second / purchase.tokens_per_second - 1 for step in after]
    return replace(purchase, next_gain=gains[0]) if gains else purchase
