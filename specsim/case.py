"""The question that a plan answers: which models, on which machine, for which work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from specsim.acceptance import Acceptance
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.model import Model
from specsim.workload import Workload

#: Qwen2.5 pads one tokenizer's embedding table to 151,936 rows in small models and to 152,064 in large ones
PADDED: Final = {"qwen2": 1024}

#: the name of a draft that is no model
NGRAM: Final = "ngram"


def same_vocabulary(target: Model, draft: Model) -> bool:
    """Whether the two share a tokenizer, as far as a config can tell: equal sizes, but for a family's known padding."""
    padding = PADDED.get(target.family, 0) if target.family == draft.family else 0
    return abs(target.vocab - draft.vocab) <= padding


@dataclass(frozen=True, slots=True)
class Case:
    """`acceptance` without a `draft` is n-gram drafting: what followed the sequence's last few tokens where its own
    text had them before is proposed again, at no cost worth counting. Without an `acceptance` every plan is plain."""

    machine: Machine
    target: Model
    workload: Workload
    draft: Model | None = None
    acceptance: Acceptance | None = None

    def __post_init__(self) -> None:
        if self.draft is not None and self.acceptance is None:
            raise InputError(f"draft {self.draft.name!r} has no acceptance", where="draft", hint="give its acceptance")
        if self.draft is not None and not same_vocabulary(self.target, self.draft):
            raise InputError(
                f"draft {self.draft.name!r} has a vocabulary of {self.draft.vocab} tokens, "
                f"target {self.target.name!r} of {self.target.vocab}",
                where="draft",
                hint="a draft must share the target's tokenizer; choose another or --draft none",
            )
        longest = self.workload.prompt_tokens_max + self.workload.output_tokens
        for model in (self.target, self.draft):
            if model is not None and longest > model.max_positions:
                raise InputError(
                    f"the longest request needs {longest} positions, {model.name!r} has {model.max_positions}",
                    where="workload",
                    hint="shorten the prompts or the output",
                )

    @property
    def ngram(self) -> bool:
        """Whether candidates come from the text itself."""
        return self.draft is None and self.acceptance is not None

    def plain(self) -> Case:
        """The same question without speculation."""
        return replace(self, draft=None, acceptance=None)

    def on(self, machine: Machine) -> Case:
        return replace(self, machine=machine)
