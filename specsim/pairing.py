"""Which draft goes with a target, and how often it is accepted: from pair profiles, or taken on trust and said so."""

from __future__ import annotations

from typing import Final

from specsim import profiles
from specsim.acceptance import Acceptance
from specsim.case import same_vocabulary
from specsim.model import Model, read_config

#: where nothing is known of a pair: a common figure of the literature for same-family drafts, announced as assumed
ASSUMED_ACCEPTANCE: Final = 0.7
#: a draft has at most this share of its target's parameters to be worth a look
SMALLER: Final = 1 / 4


def pair_acceptance(target: Model, draft: Model, text: str) -> Acceptance:
    """That of the pair's profile for this kind of text, or for any, else an assumption."""
    pairs = [profiles.pair(name) for name in profiles.names("pair")]
    known = [pair for pair in pairs if (pair.target, pair.draft) == (target.name, draft.name)]
    for pair in sorted(known, key=lambda pair: pair.text != text):
        return pair.acceptance
    why = f"no profile of {draft.name} drafting for {target.name}; give --acceptance, or measure it"
    return Acceptance.constant(ASSUMED_ACCEPTANCE, "assumed", why)


def able_drafts(target: Model) -> list[str]:
    """Profiles of models that share the target's vocabulary and are much smaller, by name."""
    models = {name: read_config(profiles.find("model", name)) for name in profiles.names("model")}
    return [n for n, m in models.items() if same_vocabulary(target, m) and m.parameters <= SMALLER * target.parameters]
