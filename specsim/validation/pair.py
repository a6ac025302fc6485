"""The acceptance that a run measured, as a pair profile: to be planned with, and to be shared."""

from __future__ import annotations

import datetime
from typing import Any

from specsim import __version__
from specsim.answer import Plan
from specsim.case import NGRAM
from specsim.errors import InputError
from specsim.validation.throughput import Ran

_DIGITS = 4


def pair_profile(plan: Plan, ran: Ran, name: str, today: datetime.date) -> dict[str, Any]:
    """The profile as plain values; `name` is that of its file, without the suffix. The kind of text is the workload's
    name. Raises InputError where the run says nothing of a pair of models."""
    case = plan.case
    if case.draft is None:
        what = f"{NGRAM} drafting has no pair" if case.ngram else "the plan has no draft"
        raise InputError(what, where="--write-pair", hint="validate a plan with a --draft")
    if not ran.acceptance:
        hint = "settle a draft length: --fix gamma=4"
        raise InputError("nothing was proposed, so no acceptance was measured", where="--write-pair", hint=hint)
    spread = "unknown" if ran.acceptance_spread is None else f"{ran.acceptance_spread:.3f}"
    source = {
        "kind": "measured",
        "date": today.isoformat(),
        "tool": f"specsim {__version__}",
        "n": ran.requests,
        "spread": f"{spread} between requests, chance taken off",
        "why": f"{ran.useful_tokens} tokens verified with gamma {plan.decision.policy.gamma}",
    }
    facts: dict[str, Any] = {"acceptance": [[round(share, _DIGITS) for share in ran.acceptance], "run"]}
    if ran.acceptance_spread is not None:
        facts["spread"] = [round(ran.acceptance_spread, _DIGITS), "run"]
    return {
        "schema": "specsim.pair/1",
        "name": name,
        "title": f"{case.target.name} with {case.draft.name} on {case.workload.title}",
        "target": case.target.name,
        "draft": case.draft.name,
        "text": case.workload.name,
        "sources": {"run": source},
        "facts": facts,
    }
