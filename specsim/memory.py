"""Peak bytes of every memory in every phase, item by item, by liveness.

Phases: `prefill` (the target's sweep), `transition` (the draft's weights and prefill), `decode`. A memory's peak in
a phase is the sum of what lives at once then. Of several devices the fullest counts, or, of a memory that the devices
of a node share, all that these have in it. The sizes of workspaces are a contract: the executor computes FFNs in chunks
of the policy's `chunk_tokens` (see `chunk_rows`) and logits in chunks of `logits_rows`, so that they do not grow with
the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from specsim.attending import KV_BLOCK, attention_bytes, lasting_bytes
from specsim.case import Case
from specsim.cost import work as cost
from specsim.decision import CHUNK_TOKENS, MEMORY_OF, Decision, DraftPolicy, LayerPlacement, Policy, homes_of
from specsim.devices import first_of_node
from specsim.errors import InputError
from specsim.model import Model
from specsim.partition import (
    PART_BYTES,
    embedding_bytes,
    head_bytes,
    largest_slot_bytes,
    layer_units,
    whole_bytes,
)
from specsim.positions import (
    ARRIVING,
    DRAFT_TOKENS,
    LOGITS_ROWS,
    chunk_rows,
    decoding,
    draft_tokens,
    held_positions,
    join_tokens,
    kv_positions,
    logits_rows,
    longest_first,
    longest_read,
    sweep_rows,
    sweep_tokens,
    sweeps_at_once,
)
from specsim.stages import Stage, stages
from specsim.units import show
from specsim.workload import Workload

PHASES: Final = ("prefill", "transition", "decode")
#: columns of the logits that are computed at once: what a library unpacks of the head, the largest of all matrices, is
#: no more than of others
LOGITS_COLUMNS: Final = 4096
#: allocators round sizes up and leave gaps: share of all workspaces
ROUNDING: Final = 0.03

#: share of the RAM budget that may be page-locked; an assumption that keeps the rest of the system responsive
PINNABLE: Final = 0.8

Items = dict[str, float]  # item -> bytes
Peaks = dict[str, dict[str, Items]]  # phase -> memory -> item -> bytes


def capped_positions(case: Case, byte_count: float, *, draft: bool) -> int:
    """How many positions the target's caches, with the `draft`'s beside them, have room for in so many bytes. Raises
    InputError where that is less than the longest request may need."""
    models = [case.target, case.draft] if draft and case.draft is not None else [case.target]
    each = sum(model.layers * cost.kv_bytes(model, 1) for model in models)
    positions = int(byte_count // each)
    longest = case.workload.prompt_tokens_max + case.workload.output_tokens
    if positions < longest:
        what = f"{show(byte_count, 'bytes')} of caches hold {positions} positions, and a request may need {longest}"
        raise InputError(what, where="--kv", hint=f"give at least {show(longest * each, 'bytes')}")
    return positions


def workspaces(
    model: Model,
    tokens: float,
    micro_batches: int,
    head_rows: float,
    *,
    batches: int = 1,
    part_bytes: int = PART_BYTES,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Items:
    """Activations of a pass over `tokens` tokens per batch on its main processor. Batches take turns in all of
    them but the hidden states."""
    size, chunk = model.element_bytes, min(tokens, chunk_tokens)
    ffn = 0.0
    for kind in model.ffn_kinds:
        units = layer_units(model, kind, part_bytes)
        # Between the parts of a dense FFN, gate, up and down, something of all tokens has to be kept.
        kept = (tokens - chunk) * kind.width if units.parts > 1 and not kind.is_moe else 0.0
        ffn = max(ffn, (chunk_rows(kind, units.parts, chunk) * (2 * model.hidden + 3 * kind.width) + kept) * size)
    heads = 2 * model.heads + 2 * model.kv_heads
    items = {
        "hidden states": 3 * cost.hidden_bytes(model, tokens) * batches,
        "attention workspace": tokens / micro_batches * heads * model.head_dim * size,
        "ffn workspace": ffn,
        "logits": min(head_rows, LOGITS_ROWS) * (model.vocab * 4 + min(model.vocab, LOGITS_COLUMNS) * size),
    }
    items["allocator rounding"] = ROUNDING * sum(items.values())
    return items


def _in_turns(model: Model, spaces: Items, tokens: float, batches: int, attending: float) -> Items:
    """Workspaces where one processor, the CPU, does all: attention, FFN and head take turns in what they need, and only
    the largest counts. `attending` is what attention in exact numerics takes there."""
    turns = (attending, spaces["ffn workspace"], spaces["logits"])
    items = {"hidden states": lasting_bytes(model, tokens) * batches, "workspace": max(turns)}
    return items | {"allocator rounding": ROUNDING * sum(items.values())}


def kv_staging_bytes(case: Case, policy: Policy) -> float:
    """Two buffers for KV that lives in RAM and visits VRAM, a micro-batch of one layer each."""
    decode = _fullest(case.workload, policy.batch, policy.verify_micro_batches, policy.gamma)
    prefill = _fullest(case.workload, policy.prefill_batch, policy.prefill_micro_batches, 0)
    return 2 * cost.kv_bytes(case.target, max(decode, prefill))


def _fullest(workload: Workload, sequences: int, micro_batches: int, gamma: int) -> float:
    """Positions in the fullest of the micro-batches that `sequences` are dealt to, each into the emptiest so far: at
    most the mean and one longest sequence."""
    whole = kv_positions(workload, sequences, gamma)
    return whole if micro_batches == 1 else min(whole, whole / micro_batches + kv_positions(workload, 1, gamma))


def kv_layer_bytes(case: Case, policy: Policy) -> float:
    """The target's cache of one layer."""
    return cost.kv_bytes(case.target, held_positions(case.workload, policy))


def ring_bytes(case: Case, policy: Policy) -> float:
    """A ring of staging buffers: in the fast memory, where any weights live elsewhere, and one more in RAM where the
    disk is read for a GPU."""
    return float(policy.ring_slots * largest_slot_bytes(case.target, policy.part_bytes))


def fixed_items(case: Case, policy: Policy, *, first: bool = True) -> Peaks:
    """All that does not depend on where the target's units and caches are placed, and not on the draft. The `first`
    device has the head and the embedding."""
    target, workload = case.target, case.workload
    fast = case.machine.fast
    wave = sweep_tokens(workload, policy)
    joining = join_tokens(workload, policy) if policy.refill else 0.0
    peaks: Peaks = {phase: {memory: {} for memory in case.machine.budgets()} for phase in PHASES}
    for phase in PHASES:
        if first:
            peaks[phase][fast]["head"] = float(head_bytes(target))
        if first and not (target.tied and fast == "ram"):
            peaks[phase]["ram"]["embedding"] = float(embedding_bytes(target))
    swept = policy.prefill_batch if first else 0
    sweeps = sweeps_at_once(policy) if first else ARRIVING
    tokens = decoding(workload, policy) * (policy.gamma + 1) + joining
    prefill = workspaces(
        target,
        wave,
        policy.prefill_micro_batches,
        min(swept, logits_rows(policy)),
        batches=sweeps,
        part_bytes=policy.part_bytes,
        chunk_tokens=policy.chunk_tokens,
    )
    decode = workspaces(
        target,
        tokens,
        policy.verify_micro_batches,
        min(tokens, logits_rows(policy)) if first else 0,
        batches=policy.batches,
        part_bytes=policy.part_bytes,
        chunk_tokens=policy.chunk_tokens,
    )
    if fast == "ram":
        prefill = _in_turns(target, prefill, wave, sweeps, _prefill_attention(case, policy))
        decode = _in_turns(target, decode, tokens, policy.batches, _decode_attention(case, policy, joining))
    peaks["prefill"][fast] |= prefill
    peaks["decode"][fast] |= decode
    return peaks


def _prefill_attention(case: Case, policy: Policy) -> float:
    """What attention on the CPU takes for a micro-batch of a sweep: of prompts, or of sequences that are restored,
    which are fewer and longer."""
    prompt, restored = longest_first(case.workload)[0], longest_read(case.workload, policy)
    rows = sweep_rows(case.workload, policy)
    shapes = {(rows, prompt), (max(rows, restored), restored)}
    return max(attention_bytes(case.target, rows, max(1, rows // read), read) for rows, read in shapes)


def _decode_attention(case: Case, policy: Policy, joining: float) -> float:
    """Likewise, for a verify pass with its newcomers' tokens. Where caches are capped, either many sequences take part
    or long ones."""
    at_once = math.ceil(decoding(case.workload, policy) / policy.verify_micro_batches)
    shapes = _sequences(case.workload, policy, at_once)
    width, most = policy.gamma + 1, shapes[-1][1]
    taken = max(attention_bytes(case.target, several * width, several, length) for several, length in shapes)
    if joining:
        taken = max(taken, attention_bytes(case.target, joining, math.ceil(joining / most), most))
    return taken


def _sequences(workload: Workload, policy: Policy, at_once: int) -> list[tuple[int, float]]:
    """How many sequences attend at once, and with how many positions each, in the order of the latter: either many, or
    long ones, where caches are capped."""
    most = float(longest_first(workload)[0] + workload.output_tokens + policy.gamma)
    if policy.kv_positions is None:
        return [(at_once, most)]
    ends = [*range(KV_BLOCK, int(most), KV_BLOCK), most]
    before = [0, *ends[:-1]]
    return [(max(1, min(at_once, policy.kv_positions // int(n + 1))), end) for n, end in zip(before, ends, strict=True)]


def draft_slots(policy: Policy, draft: DraftPolicy) -> int:
    """Buffers for the draft's KV of a micro-batch, where it does not stay: two, if another one ever comes."""
    return 2 if draft.kv == "ram" and (draft.micro_batch < policy.batch or policy.batches > 1) else 1


def draft_items(case: Case, policy: Policy, draft: DraftPolicy) -> Peaks:
    """What drafting with `draft` adds."""
    model = case.draft
    assert model is not None
    home = "vram" if draft.processor == "gpu" else "ram"
    positions = held_positions(case.workload, policy)
    micro = min(draft.micro_batch, decoding(case.workload, policy))
    working = _fullest(case.workload, policy.batch, -(-policy.batch // draft.micro_batch), policy.gamma)
    whole = model.layers * cost.kv_bytes(model, positions)
    visiting = model.layers * cost.kv_bytes(model, working) * draft_slots(policy, draft)
    joining = join_tokens(case.workload, policy) if policy.refill else 0.0
    peaks: Peaks = {phase: {memory: {} for memory in case.machine.budgets()} for phase in PHASES}
    for phase in PHASES:
        if phase == "prefill" and draft.waits:
            continue
        peaks[phase][home]["draft weights"] = float(whole_bytes(model))
    if draft.waits and home == "vram":
        for phase in PHASES:
            peaks[phase]["ram"]["draft weights (to load)"] = float(whole_bytes(model))
    longest = float(case.workload.prompt_tokens_max + case.workload.output_tokens)
    catch_up = min(working, positions) if draft.kv == "none" else micro + joining
    reads = draft_tokens(case.workload, policy, draft)
    for phase, tokens in (("transition", reads), ("decode", min(catch_up, max(DRAFT_TOKENS, longest)))):
        spaces = workspaces(model, tokens, 1, micro, part_bytes=policy.part_bytes, chunk_tokens=policy.chunk_tokens)
        if home == "ram":
            spaces = _in_turns(model, spaces, *_drafting(case, policy, draft, phase, tokens))
        peaks[phase][home]["draft workspace"] = sum(spaces.values())
        if phase == "decode" and home == case.machine.fast == "ram":  # in turns with the target
            taken = fixed_items(case, policy)[phase][home]["workspace"]
            peaks[phase][home]["draft workspace"] = max(0.0, sum(spaces.values()) - taken)
        if draft.kv == home:
            peaks[phase][home]["draft kv"] = whole
            continue
        peaks[phase][home]["draft kv (working set)"] = visiting
        if draft.kv == "ram":
            peaks[phase]["ram"]["draft kv"] = whole
    return peaks


def _drafting(case: Case, policy: Policy, draft: DraftPolicy, phase: str, tokens: float) -> tuple[float, int, float]:
    """Of the draft on the CPU: tokens that it reads at once, of one batch, and what attention takes for them."""
    assert case.draft is not None
    reads = {longest_read(case.workload, policy), longest_first(case.workload)[0]}
    whole = max(attention_bytes(case.draft, tokens, max(1, tokens // read), read) for read in reads)
    if phase == "transition":
        return tokens, 1, whole
    at_once = min(draft.micro_batch, decoding(case.workload, policy))
    shapes = _sequences(case.workload, policy, at_once)
    each = max(attention_bytes(case.draft, tokens / at_once * n, n, length) for n, length in shapes)
    return tokens, 1, max(each, whole) if tokens > at_once else each


def placed_items(case: Case, policy: Policy, layers: tuple[LayerPlacement, ...]) -> Peaks:
    """The target's weights and caches where `layers` puts them, and the buffers that this takes."""
    target, fast = case.target, case.machine.fast
    peaks: Peaks = {phase: {memory: {} for memory in case.machine.budgets()} for phase in PHASES}
    kv = kv_layer_bytes(case, policy)
    for layer, place in enumerate(layers):
        units = layer_units(target, target.layer_ffn(layer), policy.part_bytes)
        homes = [(place.attention.weights, units.attention_held)]
        homes += [(part.weights, units.part_held) for part in place.ffn]
        for phase in PHASES:
            for home, size in homes:
                item = f"{home} weights" if home in ("pinned", "pageable") else "weights"
                _add(peaks[phase][MEMORY_OF[home]], item, size)
            _add(peaks[phase][place.attention.kv], "kv", kv)
    if any(MEMORY_OF[home] != fast for place in layers for home in homes_of(place)):
        for phase in PHASES:
            _add(peaks[phase][fast], "ring", ring_bytes(case, policy))
    if fast == "vram":
        if any(place.attention.kv == "ram" for place in layers):
            for phase in PHASES:
                _add(peaks[phase]["vram"], "kv staging", kv_staging_bytes(case, policy))
        if any(home == "disk" for place in layers for home in homes_of(place)):
            for phase in PHASES:
                _add(peaks[phase]["ram"], "disk staging", ring_bytes(case, policy))
    return peaks


def peak_items(case: Case, decision: Decision) -> Peaks:
    """Every item of every memory in every phase."""
    policy = decision.policy
    held = {stage.device: stage_items(stage, decision) for stage in stages(case, policy)}
    if policy.stages == policy.tensor == 1:
        return held[0]
    nodes: dict[int, list[Peaks]] = {}
    for device, items in held.items():
        nodes.setdefault(first_of_node(case.machine, device), []).extend([items] * policy.tensor)
    together = []
    for members in nodes.values():
        peaks = merge(*members)
        for phase in PHASES:
            peaks[phase]["ram"]["other processes"] = (len(members) - 1) * case.machine.host.process_bytes
        together.append(peaks)
    shared = ("ram", "disk") if case.machine.gpu is not None else ("disk",)
    return {
        phase: {
            memory: max(
                (peaks[phase][memory] for peaks in (together if memory in shared else held.values())),
                key=lambda items: sum(items.values()),
            )
            for memory in case.machine.budgets()
        }
        for phase in PHASES
    }


def stage_items(stage: Stage, decision: Decision) -> Peaks:
    """Likewise, of one device."""
    case, policy = stage.case, decision.policy
    parts = [fixed_items(case, policy, first=stage.first), placed_items(case, policy, stage.placed(decision.layers))]
    if policy.draft is not None and stage.first:
        parts.append(draft_items(case, policy, policy.draft))
    return merge(*parts)


def merge(*parts: Peaks) -> Peaks:
    """Item by item sums."""
    merged: Peaks = {}
    for part in parts:
        for phase, memories in part.items():
            for memory, items in memories.items():
                into = merged.setdefault(phase, {}).setdefault(memory, {})
                for item, size in items.items():
                    _add(into, item, size)
    return merged


def totals(peaks: Peaks) -> dict[str, dict[str, float]]:
    """Bytes by phase and memory."""
    return {phase: {m: sum(items.values()) for m, items in memories.items()} for phase, memories in peaks.items()}


def shortfall(budgets: Mapping[str, float], peaks: Peaks) -> tuple[str, str, float] | None:
    """(phase, memory, missing bytes) of the worst excess, or None if everything fits."""
    over = [
        (used - budgets[memory], phase, memory)
        for phase, memories in totals(peaks).items()
        for memory, used in memories.items()
        if used > budgets[memory]
    ]
    if not over:
        return None
    missing, phase, memory = max(over)
    return phase, memory, missing


def _add(items: Items, item: str, size: float) -> None:
    items[item] = items.get(item, 0.0) + size
