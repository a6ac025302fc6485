"""The sentence that a buyer takes home."""

from __future__ import annotations

from collections.abc import Sequence

from specsim.whatif.upgrade import WORTHWHILE, Purchase, Upgrades

#: letters whose names begin with a vowel, as cards' names are spelt out
_VOWELS = "aefhilmnorsx"


def advice(found: Upgrades) -> str:
    """What to buy first, what more of it would add, what to put on top, and what the dearest part gives instead.

    Purchases that count on an acceptance which nobody measured are no advice.
    """
    known = [p for p in found.purchases if not p.assumed and p.tokens_per_second > 0]
    singles = [p for p in known if len(p.parts) == 1]
    first = _first(found, singles) or _first(found, known)
    if first is None:
        if not found.base.tokens_per_second:
            return "Nothing here makes it run."
        best = max(known, key=lambda p: p.gain or 0.0, default=None)
        most = f": the most, {_what(best)}, adds {best.gain:+.0%}" if best is not None else ""
        return f"Nothing here is worth buying{most}."
    clauses = [_buy(found, first)]
    if first.next_gain is not None:
        after = "little" if first.next_gain < WORTHWHILE else "more"
        clauses.append(f"the next step adds {after} ({first.next_gain:+.1%})")
    clauses += _on_top(found, first, known)
    clauses += _instead(found, first, singles)
    return f"{'; '.join(clauses)}."


def _first(found: Upgrades, known: Sequence[Purchase]) -> Purchase | None:
    """What gains most for its price, or most of all where prices are not known; of what gains hardly less, the
    cheapest, or the smallest step."""
    worth = [p for p in known if p.tokens_per_second > found.base.tokens_per_second * (1 + WORTHWHILE)]
    free = [p for p in worth if p.price == 0]
    priced = [p for p in worth if p.gain_per_price is not None]
    if free or not priced:
        pool = free or worth
        return _smallest_near(pool) if pool else None
    return max(priced, key=lambda p: p.gain_per_price or 0.0)


def _smallest_near(pool: Sequence[Purchase]) -> Purchase:
    """The fastest, unless a lesser step of the same part comes near it."""
    best = max(pool, key=lambda p: p.tokens_per_second)
    near = [p for p in pool if p.kind == best.kind and p.tokens_per_second * (1 + WORTHWHILE) >= best.tokens_per_second]
    return min(near, key=lambda p: p.tokens_per_second)


def _buy(found: Upgrades, first: Purchase) -> str:
    rate, price = f"{first.tokens_per_second:.3g} tokens/s", _price(found, first.price)
    for_price = f" for {price}" if price else ""
    if first.gain is None:
        return f"It does not fit today; buy {_what(first)}{for_price} and it runs at {rate}"
    most = ", the most for the money" if price else ""
    return f"Buy {_what(first)}{for_price}: {first.gain:+.0%} ({found.base.tokens_per_second:.3g} to {rate}){most}"


def _on_top(found: Upgrades, first: Purchase, known: Sequence[Purchase]) -> list[str]:
    """The best pair that has the first part in it."""
    pairs = [p for p in known if len(p.parts) == 2 and set(first.parts) < set(p.parts)]
    best = max(pairs, key=lambda p: p.tokens_per_second, default=None)
    if best is None or best.tokens_per_second < first.tokens_per_second * (1 + WORTHWHILE):
        return ["nothing on top of it is worth its while"] if pairs else []
    (other,) = set(best.parts) - set(first.parts)
    more = best.tokens_per_second / first.tokens_per_second - 1
    cost = "" if best.price is None or first.price is None else f" for {_price(found, best.price - first.price)} more"
    return [
        f"{_called(other.kind, other.name)} on top makes it {best.tokens_per_second:.3g} tokens/s ({more:+.0%}){cost}"
    ]


def _instead(found: Upgrades, first: Purchase, singles: Sequence[Purchase]) -> list[str]:
    """What the dearest single part gives, where it gives less."""
    priced = [p for p in singles if p.price and p.tokens_per_second < first.tokens_per_second]
    dearest = max(priced, key=lambda p: p.price or 0.0, default=None)
    if dearest is None or dearest.gain is None or not first.price or (dearest.price or 0.0) <= first.price:
        return []
    return [f"alone, {_what(dearest)} gives {dearest.gain:+.0%} for {_price(found, dearest.price)}"]


def _what(purchase: Purchase) -> str:
    return " and ".join(_called(part.kind, part.name) for part in purchase.parts)


def _called(kind: str, name: str) -> str:
    match kind:
        case "ram":
            return f"RAM up to {name.replace('GiB', ' GiB')}"
        case "link":
            return f"a {name} slot"
        case "gpu":
            return f"{'an' if name[0] in _VOWELS else 'a'} {name}"
        case _:
            return name


def _price(found: Upgrades, price: float | None) -> str:
    return "" if price is None else "nothing" if price == 0 else f"{price:g} {found.prices.currency}"
