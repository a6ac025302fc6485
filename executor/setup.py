"""From a plan and opened checkpoints to a job that is ready to run: everything allocated, entered, and loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from torch import Tensor

from executor.admission import Admission
from executor.batches import Batches
from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.layout import embedding_unit, embedding_weights, head_unit, head_weights, packed
from executor.checkpoint.read import Reader
from executor.decoder.cache import KvArena
from executor.decoder.numerics import EXACT, FAST, Numerics
from executor.decoder.resident import ResidentModel, load_resident
from executor.detokenizer import Decode
from executor.devices import Devices
from executor.engine import Engine
from executor.floor import Floor
from executor.homes import Homes, new_buffer, resident
from executor.job import Job
from executor.links import Link
from executor.memory import Ledger
from executor.process import trim_heap
from executor.ranks.stage import Stage, stage_of
from executor.rings import Rings
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from executor.weights import HeadWeights
from specsim.answer import Plan
from specsim.decision import DraftPolicy
from specsim.errors import InputError
from specsim.memory import kv_staging_bytes, stage_items
from specsim.model import Model
from specsim.partition import whole_bytes
from specsim.positions import decoding, draft_tokens, join_tokens
from specsim.schedule.graph import Slot
from specsim.simulator.lengths import draft_lengths
from specsim.stages import stages

#: items of the plan's memory that are allocated to last, and entered one by one when they are
LASTING: Final = frozenset(
    {"weights", "pinned weights", "pageable weights", "kv", "ring", "head", "embedding", "kv staging", "disk staging"}
    | {"draft weights", "draft weights (to load)", "draft kv"}
)
NUMERICS: Final = {"exact": EXACT, "fast": FAST}


@dataclass(frozen=True, slots=True)
class Ways:
    """How a run is to be done, apart from its plan. `adaptive`: draft lengths follow what is measured. `poison` is for
    tests: a ring slot that is taken over is first made useless."""

    numerics: Numerics = EXACT
    decode: Decode | None = None
    poison: bool = False
    adaptive: bool = False


def check_model(planned: Model, checkpoint: Checkpoint, role: str) -> None:
    """Raise InputError where a checkpoint is not the model that the plan was made for."""
    found = checkpoint.architecture.model
    for name in Model.__dataclass_fields__:
        if name in ("name", "max_positions"):
            continue
        if (want := getattr(planned, name)) != (have := getattr(found, name)):
            what = f"{name} of the {role} is {have} here and {want} in the plan"
            raise InputError(what, where=str(checkpoint.directory), hint="give the checkpoint that was planned for")


def prepare(
    plan: Plan,
    target: Checkpoint,
    draft: Checkpoint | None,
    engine: Engine,
    devices: Devices,
    link: Link,
    reader: Reader,
    ways: Ways,
    stage: Stage | None = None,
) -> Job:
    """Allocate and load all that lasts; beside other ranks, what the first `stage` has. Raises InputError where a
    budget is too small, or a checkpoint another one."""
    case, decision = plan.case, plan.decision
    check_model(case.target, target, "target")
    drafting = decision.policy.draft
    if drafting is not None and draft is not None and case.draft is not None:
        check_model(case.draft, draft, "draft")
    stage = stage or stage_of(plan, None)
    ledger = ledger_of(plan, stage)
    head, embedding = _ends(plan, target, devices, reader, ledger)
    homes, rings = stores(plan, stage, target, devices, link, reader, ledger, ways)
    draft_arch = draft.architecture if draft is not None else None
    lengths = draft_lengths(case, decision) if ways.adaptive else None
    admission = Admission(decision, stage, target.architecture, draft_arch, devices, ledger, ways.decode, lengths)
    policy, work = decision.policy, case.workload
    batches = Batches(policy, join_tokens(work, policy), admission, most=decoding(work, policy))
    floor = Floor(decision, case.machine.main, batches, target.architecture, ways.numerics, head)
    context = Context(
        stage,
        target.architecture,
        ways.numerics,
        devices,
        homes,
        rings,
        link,
        embedding,
        floor.open_pass,
        floor.close_pass,
        floor.live,
        ledger.enter,
        decision.policy.chunk_tokens,
        staging(plan, stage, target, devices, ledger),
    )
    drafts = None
    if draft is not None and drafting is not None:
        drafts = _drafts(plan, drafting, draft, devices, link, reader, ledger, ways, floor, admission)
    return Job(plan, engine, floor, ledger, context, drafts)


def stores(
    plan: Plan,
    stage: Stage,
    target: Checkpoint,
    devices: Devices,
    link: Link,
    reader: Reader,
    ledger: Ledger,
    ways: Ways,
) -> tuple[Homes, Rings]:
    """Where the weights of a stage live, those that stay loaded, and the rings for those that visit."""
    homes = Homes(target, plan.decision, devices, reader, stage.layers)
    rings = Rings(homes, link, poison=ways.poison)
    homes.load(ledger)
    rings.allocate(ledger, plan.decision.policy.ring_slots)
    return homes, rings


def ledger_of(plan: Plan, stage: Stage) -> Ledger:
    """Of a stage's own memories. Temporary tensors are what the plan counts that is not allocated once and entered."""
    planned = stages(plan.case, plan.decision.policy)[stage.part.rank]
    peaks = stage_items(planned, plan.decision)
    temporary = {
        phase: {
            memory: int(sum(size for item, size in items.items() if item not in LASTING))
            for memory, items in memories.items()
        }
        for phase, memories in peaks.items()
    }
    return Ledger(planned.case.machine.budgets(), temporary, on_phase=trim_heap)


def _ends(
    plan: Plan, target: Checkpoint, devices: Devices, reader: Reader, ledger: Ledger
) -> tuple[HeadWeights, Tensor]:
    """The head in the fast memory, the embedding table in RAM; one and the same where they are tied and together."""
    fast = plan.case.machine.fast
    layout = packed(head_unit(target))
    ledger.take(fast, "head", layout.nbytes)
    head = head_weights(layout, resident(layout, fast, devices, reader))
    if target.architecture.model.tied and fast == "ram":
        return head, head.output
    layout = packed(embedding_unit(target))
    ledger.take("ram", "embedding", layout.nbytes)
    return head, embedding_weights(layout, resident(layout, "ram", devices, reader))


def staging(plan: Plan, stage: Stage, target: Checkpoint, devices: Devices, ledger: Ledger) -> dict[Slot, Tensor]:
    """Two buffers for K and V that live in RAM and visit VRAM."""
    kv = {plan.decision.layers[layer].attention.kv for layer in stage.layers}
    if plan.case.machine.fast == "ram" or kv == {"vram"}:
        return {}
    whole = int(kv_staging_bytes(plan.case, plan.decision.policy))
    ledger.take("vram", "kv staging", whole)
    dtype = target.architecture.dtype
    size = whole // 2 // dtype.itemsize * dtype.itemsize
    return {("kv_ring", i): new_buffer(size, "vram", devices).view(dtype) for i in range(2)}


def _drafts(
    plan: Plan,
    policy: DraftPolicy,
    draft: Checkpoint,
    devices: Devices,
    link: Link,
    reader: Reader,
    ledger: Ledger,
    ways: Ways,
    floor: Floor,
    admission: Admission,
) -> DraftContext:
    home = "vram" if policy.processor == "gpu" else "ram"
    device = devices.of(policy.processor)

    def load() -> ResidentModel:
        with ledger.taking(home, "draft weights", whole_bytes(draft.architecture.model)):
            model = load_resident(draft, ways.numerics, device, reader)
            return replace(model, chunk_tokens=plan.decision.policy.chunk_tokens)

    return DraftContext(
        policy,
        plan.decision.policy.gamma,
        plan.case.target.vocab,
        device,
        link,
        load,
        floor.sequences_of,
        admission.admit_draft,
        partial(KvArena.empty, draft.architecture, devices=device),
        ledger.enter,
        streamed=home == "vram" and policy.kv == "ram",
        prompt_tokens=draft_tokens(plan.case.workload, plan.decision.policy, policy),
        model=None if policy.waits else load(),
    )
