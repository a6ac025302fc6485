"""vLLM: weights that do not fit VRAM are read from RAM as they are needed; batching is continuous, caches in VRAM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from specsim.answer import Plan
from specsim.case import Case
from specsim.errors import InputError
from specsim.exports.choice import NGRAM_TOKENS, Try, caches, fastest, in_flight, pass_tokens, sequences, swept
from specsim.exports.export import Engine, Export, Speed, documented
from specsim.exports.losses import losses
from specsim.exports.shell import flags, script
from specsim.partition import whole_bytes
from specsim.positions import kv_positions
from specsim.systems import vllm
from specsim.systems.layers import cache_bytes
from specsim.systems.policies import simple_policy
from specsim.systems.system import Job, Policy
from specsim.units import GiB


@dataclass(frozen=True, slots=True)
class Choice:
    """So many sequences; bytes of weights that stay in RAM; share of the card's memory that it may take."""

    rows: int
    offloaded: float
    utilisation: float


def export(plan: Plan) -> Export:
    case, policy = plan.case, plan.decision.policy
    if case.machine.gpu is None:
        hint = "choose --for accelerate or --for llama.cpp"
        raise InputError("vLLM offloads to RAM from a GPU, and the plan has none", where=case.machine.name, hint=hint)
    outcome, choice = fastest(_tries(plan), ENGINE.title, case)
    without = "; its speculation is not in it" if policy.gamma else ""
    drafted = policy.gamma > 0 and case.draft is not None
    return Export(
        engine=ENGINE.name,
        title=ENGINE.title,
        version=documented(ENGINE.name).version,
        command=f"sh vllm.sh TARGET_DIR{' DRAFT_DIR' if drafted else ''}",
        files={"vllm.sh": _script(plan, choice)},
        needs=(
            "vllm on the PATH; checkpoints are Hugging Face directories",
            f"{case.target.dtype} weights: the plan is for these, not for quantised ones",
            f'requests that ask for "max_tokens": {case.workload.output_tokens} and "temperature": 0',
        ),
        lost=losses(plan, _instead(plan, choice)),
        speed=Speed(outcome.useful_per_s, f"strategy {outcome.system.name}, with these flags{without}"),
    )


def _tries(plan: Plan) -> Iterator[Try[Choice]]:
    """Every number of sequences, beside a draft; weights fill what VRAM is left."""
    plain, draft, gamma = plan.case.plain(), plan.case.draft, plan.decision.policy.gamma
    machine, gpu = plain.machine, plain.machine.gpu
    assert gpu is not None
    for rows in sequences(in_flight(plan)):
        positions = kv_positions(plain.workload, rows, gamma)
        beside = whole_bytes(draft) + cache_bytes(draft, positions) if draft is not None and gamma else 0.0
        # the model counts caches of mean length; any `rows` requests may be the longest
        policy = replace(simple_policy(plain, rows), padded=plain.workload.prompt_tokens_mean)
        expected = cache_bytes(plain.target, rows * (policy.padded + plain.workload.output_tokens))
        budget = machine.vram_budget_bytes - beside - (caches(plain, rows, gamma) - expected)
        case = plain.on(replace(machine, vram_budget_bytes=budget))
        offloaded = (1.0 - vllm.resident_share(case, policy)) * plain.target.weight_bytes
        taken = machine.vram_budget_bytes - (1.0 - vllm.GPU_MEMORY_UTILIZATION) * budget
        yield Try(
            Choice(rows, offloaded, taken / gpu.vram_bytes),
            case,
            replace(vllm.SYSTEM, job=_job),
            policy,
            vllm.memory(case, policy),
            machine.budgets() | {"vram": vllm.GPU_MEMORY_UTILIZATION * budget},
        )


def _job(case: Case, policy: Policy) -> Job:
    return swept(case, policy, vllm.job(case, policy))


def _script(plan: Plan, choice: Choice) -> str:
    case, work, gamma = plan.case, plan.case.workload, plan.decision.policy.gamma
    options: dict[str, str | int | None] = {
        "--dtype": case.target.dtype,
        "--max-model-len": work.prompt_tokens_max + work.output_tokens,
        "--max-num-seqs": choice.rows,
        "--max-num-batched-tokens": pass_tokens(case, choice.rows),
        "--gpu-memory-utilization": f"{int(choice.utilisation * 1000) / 1000}",
        "--cpu-offload-gb": f"{ceil(choice.offloaded / GiB * 10) / 10}",
    }
    draft = ""
    if gamma and case.draft is not None:
        # the folder is the script's second argument, and so outside the quotes
        drafting = json.dumps({"method": "draft_model", "num_speculative_tokens": gamma})
        draft = f' \\\n  --speculative-config \'{drafting[:-1]}, "model": "\'"$2"\'"}}\''
    elif gamma:
        looked_up = {"prompt_lookup_max": NGRAM_TOKENS, "prompt_lookup_min": 1}
        options["--speculative-config"] = json.dumps({"method": "ngram", "num_speculative_tokens": gamma} | looked_up)
    return script(case, ENGINE.title, [flags('vllm serve "$1"', options) + draft])


def _instead(plan: Plan, choice: Choice) -> dict[str, str]:
    """What vLLM does in place of what it lacks."""
    here = {
        "devices": "files and speed are for one device",
        "schedule": "one batch at a time",
        "loading": "weights are read over the link when they are needed, not before",
        "fetching": "all experts of a layer are read",
        "disk": "what is not in VRAM has to fit RAM",
        "attention": "all attention is computed on the GPU",
        "KV": "caches are in VRAM",
        "FFN": "all is computed on the GPU",
        "placement": f"it picks itself which {choice.offloaded / GiB:.0f} GiB stay in RAM",
        "prefill": f"up to {pass_tokens(plan.case, choice.rows)} prompt tokens a pass, each through all weights",
        "tails": "the last sequences are computed like all others",
        "draft": "on the GPU, all sequences at once, with its caches in VRAM",
        "exactness": "rounding depends on the batch, as its documentation says",
    }
    if choice.rows < in_flight(plan):
        here["batch"] = f"{choice.rows} sequences: caches have to fit VRAM, and this is fastest"
    return here


ENGINE = Engine("vllm", "vLLM", export)
