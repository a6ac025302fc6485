"""A question from names, files or values: which models, on which machine, for which work, and how often a draft is
accepted, measured or assumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from specsim import machines, profiles
from specsim.acceptance import Acceptance
from specsim.case import NGRAM, Case
from specsim.errors import InputError, UnknownNameError
from specsim.hardware import Machine
from specsim.model import DTYPE_BYTES, Model, read_config
from specsim.pairing import able_drafts, pair_acceptance
from specsim.workload import Workload

#: for text that repeats itself here and there; prose has less, code that is being edited far more
ASSUMED_NGRAM_ACCEPTANCE: Final = 0.3


def case(
    *,
    target: str | Path,
    draft: str | Path | None = None,
    workload: str | Workload | None = None,
    machine: str | Machine | None = None,
    acceptance: float | str | None = None,
    dtype: str | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    requests: int | None = None,
    **parts: Any,
) -> Case:
    """A question from names, files or values. `draft` may also be "none", "auto" or "ngram". `acceptance` is a rate, a
    pair profile's name or its file. `parts` are those of `machines.assemble`: gpu, host, link, disk, vram, ram (bytes),
    link_bytes_per_s, disk_bytes_per_s, devices, peer (bytes/s)."""
    built = machine if isinstance(machine, Machine) else machines.assemble(machine=machine, **parts)
    big = model(target, dtype)
    if str(draft) == "auto":
        draft = known_draft(big)
    work = _workload(workload, prompt_tokens, output_tokens, requests)
    if draft is None or str(draft) == "none":
        if acceptance is not None:
            raise InputError("acceptance is given without a draft", where="--acceptance", hint="name a --draft")
        return Case(built, big, work)
    small = None if str(draft) == NGRAM else model(draft, dtype)
    return Case(built, big, work, small, _acceptance(acceptance, big, small, work))


def model(name: str | Path, dtype: str | None = None) -> Model:
    """A model by profile name, checkpoint directory or config.json."""
    if dtype is not None and dtype not in DTYPE_BYTES:
        raise InputError(
            f"dtype {dtype!r} is not supported", where="--dtype", hint=f"use one of: {', '.join(DTYPE_BYTES)}"
        )
    found = read_config(profiles.find("model", str(name)))
    return found if dtype is None else replace(found, dtype=dtype)


def known_draft(target: Model) -> str:
    """The draft whose measured acceptance for `target` is best; an acceptance is never made up to choose by."""
    pairs = [profiles.pair(name) for name in profiles.names("pair")]
    known = [pair for pair in pairs if pair.target == target.name]
    if known:
        return max(known, key=lambda pair: pair.acceptance.at(0)).draft
    able = able_drafts(target)
    hint = f"name one with --draft; same vocabulary: {', '.join(able) if able else 'none of the profiles'}"
    raise InputError(f"no pair profile says which draft suits {target.name!r}", where="--draft auto", hint=hint)


def _workload(
    name: str | Workload | None, prompt_tokens: int | None, output_tokens: int | None, requests: int | None
) -> Workload:
    if isinstance(name, Workload):
        base: Workload | None = name
    else:
        base = None if name is None else profiles.workload(name)
    if base is None:
        given = {"--prompt-tokens": prompt_tokens, "--output-tokens": output_tokens, "--requests": requests}
        missing = [flag for flag, value in given.items() if value is None]
        if missing:
            hint = "give --workload NAME, or all of --prompt-tokens, --output-tokens, --requests"
            raise InputError(f"the workload lacks {', '.join(missing)}", where="workload", hint=hint)
        assert prompt_tokens is not None
        assert output_tokens is not None
        assert requests is not None
        return Workload("given", "given", prompt_tokens, prompt_tokens, prompt_tokens, output_tokens, requests)
    if prompt_tokens is not None:
        base = replace(
            base, prompt_tokens_mean=prompt_tokens, prompt_tokens_max=prompt_tokens, prompt_tokens_min=prompt_tokens
        )
    base = base if output_tokens is None else replace(base, output_tokens=output_tokens)
    return base if requests is None else replace(base, requests=requests)


def _acceptance(given: float | str | None, target: Model, draft: Model | None, work: Workload) -> Acceptance:
    """The rate or profile that was given, else the pair's profile for this text or any, else an assumption. Without a
    `draft` it is that of n-gram drafting."""
    if given is not None:
        try:
            rate = float(given)
        except ValueError:
            return _given_pair(str(given))
        if not 0 <= rate <= 1:
            raise InputError(f"acceptance is {given}", where="--acceptance", hint="give 0 to 1, or a pair profile")
        return Acceptance.constant(rate, "given", "on the command line")
    if draft is None:
        why = "n-gram drafting: it depends wholly on the text; give --acceptance, or measure it"
        return Acceptance.constant(ASSUMED_NGRAM_ACCEPTANCE, "assumed", why)
    return pair_acceptance(target, draft, work.name)


def _given_pair(name: str) -> Acceptance:
    try:
        return profiles.pair(name).acceptance
    except UnknownNameError as error:
        hint = f"give 0 to 1, or a pair profile (known: {', '.join(error.known) or 'none'})"
        raise InputError(f"{name!r} is neither a rate nor a pair", where="--acceptance", hint=hint) from None
