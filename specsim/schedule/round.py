"""The pieces of a round that every strategy shares: verify these batches, draft for this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specsim.case import Case
from specsim.cost.shapes import PassShape, decode_shape
from specsim.decision import Decision, LayerPlacement
from specsim.schedule.drafting import lower_draft
from specsim.schedule.graph import Builder
from specsim.schedule.passes import Deps, PassPlan, lower_pass
from specsim.stages import layout, one_share


@dataclass(frozen=True, slots=True)
class RoundShape:
    """All sequences in flight at the start of a round: how many, their mean cached positions, and the prompt tokens
    of newcomers, whose prefill rides along with the verify pass."""

    rows: float
    context: float
    joining: float = 0.0


@dataclass(slots=True)
class RoundState:
    """What one round hands to the next: each batch's last verify tasks, and proposals that wait to be verified."""

    verified: dict[str, Deps]
    proposed: dict[str, Deps]

    @classmethod
    def after(cls, ends: Deps, decision: Decision) -> RoundState:
        """Before the first round that follows a prefill, which the tasks `ends` end."""
        return cls(dict.fromkeys(decision.policy.letters, ends), {})


@dataclass(frozen=True, slots=True)
class RoundLowering:
    """Lowers parts of round `number` into `b`. Sequences are spread evenly over the batches in flight."""

    b: Builder
    case: Case
    decision: Decision
    shape: RoundShape
    number: int

    def draft(self, batch: str, state: RoundState, number: int | None = None) -> None:
        """Draft for `batch`, once its last verify pass has ended. Without speculation there is nothing to do."""
        policy, draft = self.decision.policy, self.case.draft
        after = state.verified.get(batch, ())
        if policy.gamma == 0 or policy.draft is None or draft is None:
            state.proposed[batch] = after
            return
        number = self.number if number is None else number
        state.proposed[batch] = lower_draft(
            self.b,
            draft,
            policy.draft,
            policy.gamma,
            f"draft.{number}/{batch}",
            rows=self.shape.rows / policy.batches,
            context=self.shape.context,
            joining=self.shape.joining / policy.batches,
            after=after,
            gpu=self.case.machine.gpu is not None,
        )

    def verify(self, batches: str, state: RoundState) -> None:
        """One pass over the target for the batches named, for example "AB"; it waits for their proposals."""
        shapes = {batch: self.verify_shape() for batch in batches}
        after: Mapping[str, Deps] = {batch: state.proposed.get(batch, ()) for batch in batches}
        policy = self.decision.policy
        plan = PassPlan(
            one_share(self.case, policy),
            self.layers(),
            self.case.machine.main,
            "verify",
            self.number,
            policy.verify_micro_batches,
            policy.part_bytes,
            policy.expert_fetch == "routed",
            layout(self.case, policy),
            policy.chunk_tokens,
        )
        state.verified |= lower_pass(self.b, plan, shapes, after)

    def layers(self) -> tuple[LayerPlacement, ...]:
        """The placement that this round's verify passes are lowered with. Newcomers bring as many tokens as a full
        house, so no tail is meant for them."""
        return self.decision.layers if self.shape.joining else self.decision.layers_at(self.shape.rows)

    def verify_shape(self) -> PassShape:
        """Of one batch."""
        policy, window = self.decision.policy, self.case.target.sliding_window
        rows = self.shape.rows / policy.batches
        shape = decode_shape(rows, policy.gamma + 1, self.shape.context, window)
        if self.shape.joining:
            tokens = self.shape.joining / policy.batches
            shape += PassShape(0.0, tokens, tokens * (self.shape.context + 1) / 2, 0.0, 0.0)
        return shape
