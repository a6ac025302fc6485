"""What a run is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from executor.job import Wave
from executor.metrics import Metrics
from executor.outputs import Output
from specsim.answer import Plan
from specsim.errors import InputError, UnknownNameError

#: what can be slowed down to a set rate
THROTTLED: Final = ("disk", "link")


@dataclass(frozen=True, slots=True)
class Setting:
    """What runs a plan, whatever is asked of it: checkpoint directories, and the ways of `RunOptions` that are not a
    request's. `draft_length` "adaptive" lets each sequence ask for fewer candidates than the plan where little of its
    own is accepted. Raises InputError for what makes no sense."""

    target: Path
    draft: Path | None = None
    numerics: Literal["exact", "fast"] = "exact"
    throttle: Mapping[str, float] = field(default_factory=dict)
    emulate_gpu: bool = False
    threads: int | None = None
    draft_length: Literal["fixed", "adaptive"] = "fixed"

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}", where="run", hint="give 1 or more")
        for name, rate in self.throttle.items():
            if name not in THROTTLED:
                raise UnknownNameError("throttle", name, THROTTLED, where="run")
            if not rate > 0:
                raise InputError(f"the throttle of {name} is {rate:g} bytes/s", where="run", hint="give more than 0")

    def check(self, plan: Plan) -> None:
        """Raise InputError where the plan has no use for an option, or needs one that is not there."""
        if plan.decision.policy.draft is not None and self.draft is None:
            assert plan.case.draft is not None, "only a case with a draft has a policy for it"
            what = f"the plan speculates with {plan.case.draft.name}, and no draft is given"
            raise InputError(what, where="run", hint="give its checkpoint with --draft DIR")
        if plan.case.draft is None and self.draft is not None:
            hint = "leave out --draft, or plan again with it"
            raise InputError(f"the plan knows no draft, and {self.draft} is given", where="run", hint=hint)
        if self.draft_length == "adaptive" and not plan.decision.policy.gamma:
            hint = "leave out --draft-length, or give a plan that speculates"
            raise InputError("the plan drafts nothing whose length could follow anything", where="run", hint=hint)
        if plan.case.machine.gpu is None:
            if self.emulate_gpu:
                raise InputError("the plan has no GPU to emulate", where="run", hint="leave out --emulate-gpu")
            if "link" in self.throttle:
                raise InputError("the plan has no link to throttle", where="run", hint="throttle the disk")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`target` and `draft` are checkpoint directories, `prompts` is a file, `out` a directory for outputs and metrics.

    Temperature 0 is greedy decoding. `max_new_tokens` and `stop` hold for prompts that have none of their own, None
    being what the plan was made for. `throttle` is bytes/s by what is slowed down (see `THROTTLED`); `emulate_gpu`
    plays a plan's GPU on the CPU; `limit` runs the first prompts only; `resume` goes on with the run that was begun in
    `out`, if one was; `anyway` runs on a machine that is not the plan's any more. Raises InputError for what makes no
    sense.
    """

    target: Path
    prompts: Path
    out: Path
    draft: Path | None = None
    numerics: Literal["exact", "fast"] = "exact"
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    throttle: Mapping[str, float] = field(default_factory=dict)
    emulate_gpu: bool = False
    threads: int | None = None
    draft_length: Literal["fixed", "adaptive"] = "fixed"
    limit: int | None = None
    resume: bool = False
    anyway: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}", where="run", hint="give 1 or more")
        if "" in self.stop:
            raise InputError("a stop string is empty", where="run", hint="it would stop everywhere; leave it out")
        self.setting  # noqa: B018 (it checks what it is made of)

    @property
    def setting(self) -> Setting:
        return Setting(
            self.target,
            self.draft,
            self.numerics,
            self.throttle,
            self.emulate_gpu,
            self.threads,
            self.draft_length,
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run. `outputs` is the path of outputs.jsonl, `samples` are the first of its outputs, a few; `waves`
    say what was done, so that it can be priced once more. `over` says that the run had ended before, and that nothing
    was done but to read its metrics."""

    metrics: Metrics
    outputs: Path
    samples: tuple[Output, ...]
    waves: tuple[Wave, ...] = ()
    over: bool = False
