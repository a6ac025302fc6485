"""What each decision of the planner is worth: one is taken away, all others are made anew.

A decision is taken away by fixing it to what a published system fixes it to (or plain common sense), so every row is
what `specsim plan --fix ...` answers. A row that keeps all of the full plan's throughput says that the planner would
have chosen as much, or that the other decisions make up for it; both are worth knowing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from specsim.case import Case
from specsim.errors import InputError
from specsim.planner.candidates import Fixed, check
from specsim.planner.infeasible import explain_infeasible
from specsim.planner.layouts import search_all
from specsim.planner.search import Found, Progress


@dataclass(frozen=True, slots=True)
class Minus:
    """A decision that is taken away: what it is fixed to, and who fixes it so."""

    decision: str
    fix: tuple[tuple[str, Any], ...]
    like: str

    @property
    def words(self) -> str:
        """What `specsim plan --fix` is told."""
        return " ".join(f"{name}={value}" for name, value in self.fix)


#: Where it is known from: accelerate's `device_map="auto"` fills the GPU with whole layers and computes all of them
#: there, llama.cpp's `-ngl` the others where they lie. Assisted generation (transformers) drafts, then verifies.
#: SpecOffload (arXiv 2505.10259) swaps two batches, attends on the CPU with the projections there, and drafts from the
#: whole context every round; its scripts have 6 draft tokens for HumanEval on env1, and batches of 64 for FlexGen. 8 is
#: `per_device_eval_batch_size` of transformers. MoE-Lightning's search has `gattn=0`: attention on the CPU.
MINUS: Final = (
    Minus("placement", (("placement", "layers"), ("ffn", "gpu")), "accelerate"),
    Minus("placement", (("placement", "layers"),), "llama.cpp"),
    Minus("schedule", (("strategy", "serial"),), "assisted generation"),
    Minus("schedule", (("strategy", "interleaved"),), "SpecOffload"),
    Minus("gamma", (("gamma", 0),), "FlexGen"),
    Minus("gamma", (("gamma", 6),), "SpecOffload"),
    Minus("batch", (("batch", 8),), "evaluation scripts"),
    Minus("batch", (("batch", 64),), "FlexGen"),
    Minus("KV home", (("kv", "vram"),), "transformers"),
    Minus("KV home", (("kv", "ram"),), "SpecOffload"),
    Minus("attention", (("attention", "gpu"),), "ZeRO-Inference"),
    Minus("attention", (("attention", "cpu"),), "MoE-Lightning"),
    Minus("attention", (("attention", "cpu+projections"),), "SpecOffload"),
    Minus("draft KV", (("draft_kv", "vram"),), "transformers"),
    Minus("draft KV", (("draft_kv", "none"),), "SpecOffload"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """The best plan with a decision taken away: useful tokens/s and its share of the full plan's; 0 where none fits."""

    minus: Minus
    tokens_per_second: float
    share: float
    plan: str


@dataclass(frozen=True, slots=True)
class Ablation:
    """The full plan's useful tokens/s, and a row per decision taken away that the case has."""

    case: Case
    tokens_per_second: float
    plan: str
    rows: tuple[Row, ...]


def ablate(case: Case, progress: Progress | None = None) -> Ablation:
    """Plan in full and minus each decision. Raises InfeasibleError where nothing fits at all."""
    full = best_within(case, Fixed(), progress)
    if full is None:
        raise explain_infeasible(case, Fixed())
    rows = []
    for minus in MINUS:
        fixed = Fixed(**dict(minus.fix))
        if not has_choice(case, fixed):
            continue
        found = best_within(case, fixed, progress)
        rate = found.tokens_per_second if found is not None else 0.0
        plan = found.candidate.label if found is not None else "nothing fits"
        rows.append(Row(minus, rate, rate / full.tokens_per_second, plan))
    return Ablation(case, full.tokens_per_second, full.candidate.label, tuple(rows))


def has_choice(case: Case, fixed: Fixed) -> bool:
    """Whether the case leaves open what is fixed: there is one processor without a GPU, no KV of a draft without it."""
    if case.machine.gpu is None and (fixed.attention or fixed.kv):
        return False
    if (fixed.draft_kv and case.draft is None) or (fixed.gamma is not None and case.acceptance is None):
        return False
    if (fixed.batch or 0) > case.workload.requests:
        return False
    try:
        check(case, fixed)
    except InputError:
        return False
    return True


def best_within(case: Case, fixed: Fixed, progress: Progress | None) -> Found | None:
    """The best plan within what is fixed, or None where nothing fits."""
    found = search_all(case, fixed, progress).found
    return found[0] if found else None
