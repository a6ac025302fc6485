"""Why the fastest of a comparison wins, in one sentence that its figures prove."""

from __future__ import annotations

from math import inf
from typing import Final

from specsim.planner.compare import Comparison, Entry
from specsim.units import show

#: what a person calls each resource
SAY: Final = {"gpu": "the GPU", "cpu": "the CPU", "h2d": "the link", "d2h": "the link back", "disk": "the disk"}
#: a factor below this is no reason
TOLD: Final = 1.05


def sentence(comparison: Comparison) -> str:
    """The winner against the best that is not of its camp (ours, or published), by what the loser waits for.

    Seconds per useful token are those of prefill plus those of a decode pass over the tokens that it brings. Where
    prefill saves more of them, that is the reason; else it is the resource that the loser's passes wait for, and
    whether a pass brings more tokens or needs less of that resource.
    """
    winner, *others = comparison.entries
    if not others:
        return f"{winner.name} wins: nothing else fits."
    loser = next((e for e in others if e.ours != winner.ours), others[0])
    ratio = winner.tokens_per_second / loser.tokens_per_second
    return f"{winner.name} ({winner.plan}) wins, {ratio:.3g}x {loser.name}: {_because(winner, loser)}."


def _because(winner: Entry, loser: Entry) -> str:
    saved = 1 / loser.tokens_per_second - 1 / winner.tokens_per_second
    if loser.prefill_s - winner.prefill_s > saved / 2:
        return f"reading prompts takes {_time(winner.prefill_s)} per useful token instead of {_time(loser.prefill_s)}"
    name, what = loser.waits_for, SAY.get(loser.waits_for, loser.waits_for)
    mine, its = winner.busy_s.get(name, 0.0), loser.busy_s[name]
    waits = f"{loser.name} waits {loser.waits:.0%} of a pass for {what}"
    if mine / winner.tokens_per_pass >= its / loser.tokens_per_pass:  # what waits there runs side by side here
        return f"{waits}, which is busy for {mine / winner.pass_s:.0%} of one of {winner.name}"
    costs = [f"{_time(busy / e.tokens_per_pass)}" for busy, e in ((its, loser), (mine, winner))]
    more = winner.tokens_per_pass / loser.tokens_per_pass
    less = its / mine if mine else inf
    reasons = {
        f"a pass brings {winner.tokens_per_pass:.0f} useful tokens instead of {loser.tokens_per_pass:.0f}": more,
        f"a pass keeps it busy for {_time(mine)} instead of {_time(its)}": less,
    }
    told = sorted((r for r, ratio in reasons.items() if ratio > TOLD), key=lambda r: -reasons[r])
    because = f", as {' and '.join(told)}" if told else ""
    return f"{waits}, {costs[0]} of it per useful token, {winner.name} {costs[1]}{because}{_instead(winner, loser)}"


def _instead(winner: Entry, loser: Entry) -> str:
    """The resource that does more of the winner's work than of the loser's, if there is one."""
    shares = {r: (w / winner.pass_s, loser.busy_s.get(r, 0.0) / loser.pass_s) for r, w in winner.busy_s.items()}
    name = max(shares, key=lambda r: shares[r][0] - shares[r][1])
    here, there = shares[name]
    return (
        f"; {SAY.get(name, name)} is busy {here:.0%} of the time instead of {there:.0%}" if here - there > 0.1 else ""
    )


def _time(seconds: float) -> str:
    return show(seconds, "seconds")
