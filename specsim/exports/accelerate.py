"""transformers with accelerate: a `device_map` at the grain of modules, and a script that loads and generates with it.

What is not on the GPU is copied there when it is called and dropped after that, so modules of one layer may be apart.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from specsim.answer import Plan
from specsim.case import Case
from specsim.decision import CHUNK_TOKENS
from specsim.errors import InfeasibleError
from specsim.exports.accelerate_script import SCRIPT
from specsim.exports.choice import in_flight, sequences
from specsim.exports.export import Engine, Export, Speed, documented
from specsim.exports.losses import losses
from specsim.exports.modules import Module, assign, modules
from specsim.memory import workspaces
from specsim.partition import embedding_bytes, head_bytes
from specsim.systems import accelerate
from specsim.systems.outcome import run
from specsim.systems.policies import in_vram, plain_job, simple_policy
from specsim.systems.system import Policy
from specsim.units import show

#: where each memory is called in a device_map
DEVICES = {"vram": 0, "ram": "cpu", "disk": "disk"}


def export(plan: Plan) -> Export:
    case = plan.case.plain()
    parts = list(modules(case, plan.decision))
    least = _outer(case) + max(part.bytes for part in parts)  # what stays in any case, and what visits
    batch, weights = _batch(case, least, in_flight(plan))
    fast = case.machine.fast
    room = case.machine.budgets() | {fast: weights, "disk": float("inf")}
    homes = assign(parts, room | {fast: weights - least})
    configuration = {
        "device_map": _device_map(parts, homes, fast),
        "max_memory": {str(DEVICES[memory]): int(size) for memory, size in room.items() if memory != "disk"},
        "dtype": case.target.dtype,
        "attn_implementation": "sdpa",
        "batch": batch,
        "max_new_tokens": case.workload.output_tokens,
    }
    return Export(
        engine=ENGINE.name,
        title=ENGINE.title,
        version=documented(ENGINE.name).version,
        command="python generate.py --target TARGET_DIR --prompts PROMPTS_FILE -o outputs.jsonl",
        files={"accelerate.json": json.dumps(configuration, indent=2) + "\n", "generate.py": SCRIPT},
        needs=(
            "torch, transformers and accelerate in Python, and the target's checkpoint, a Hugging Face directory",
            f"{case.target.dtype} weights: the plan is for these, not for quantised ones",
            "--auto lets accelerate place the modules itself, within max_memory",
        ),
        lost=losses(plan, _instead(plan, batch)),
        speed=_speed(case, parts, homes, batch),
    )


def _outer(case: Case) -> int:
    """Bytes of the head and the embedding table."""
    return head_bytes(case.target) + (0 if case.target.tied else embedding_bytes(case.target))


def _batch(case: Case, least: float, most: int) -> tuple[int, float]:
    """The largest batch, of `most` and its halves, beside which the fast memory holds `least` bytes of weights, and
    the bytes that it then has for them. Prompts of a batch are padded to its longest."""
    budget, weights = case.machine.budgets()[case.machine.fast], 0.0
    for batch in sequences(most):
        tokens = batch * case.workload.prompt_tokens_max
        ffn = workspaces(case.target, tokens, 1, batch)["ffn workspace"]
        more = ffn * max(0.0, tokens / CHUNK_TOKENS - 1)  # its FFNs see all tokens at once, not so many
        weights = budget - in_vram(case, Policy(batch, case.workload.prompt_tokens_max), more)["vram"]
        if weights >= least:
            return batch, weights
    what = f"accelerate needs {show(least - weights, 'bytes')} more {case.machine.fast} for one sequence"
    raise InfeasibleError(f"{what}, the head and the largest module; give it more, or run the plan with specsim run")


def _device_map(parts: list[Module], homes: dict[str, str], fast: str) -> dict[str, Any]:
    """What is called on every token is on the fast device; a layer whose modules are together is one entry."""
    devices: dict[str, Any] = dict.fromkeys(("model.embed_tokens", "model.rotary_emb"), DEVICES[fast])
    for attention, ffn in zip(parts[::2], parts[1::2], strict=True):
        layer = f"model.layers.{attention.layer}"
        first, second = DEVICES[homes[attention.name]], DEVICES[homes[ffn.name]]
        if first == second:
            devices[layer] = first
        else:
            names = (f"{layer}.input_layernorm", attention.name, f"{layer}.post_attention_layernorm")
            devices |= dict.fromkeys(names, first) | {ffn.name: second}
    return devices | dict.fromkeys(("model.norm", "lm_head"), DEVICES[fast])


def _speed(case: Case, parts: list[Module], homes: dict[str, str], batch: int) -> Speed:
    if case.machine.gpu is None:
        return Speed(None, "specsim models accelerate with a GPU")
    if "disk" in homes.values():
        return Speed(None, "specsim models accelerate with all weights in VRAM and RAM, not on the disk")
    copied = [0.0] * (case.target.layers + 1)  # the head stays
    for part in parts:
        copied[part.layer] += part.bytes if homes[part.name] != "vram" else 0
    lay = partial(accelerate.lay, copied=copied)
    system = replace(accelerate.SYSTEM, job=lambda case, policy: plain_job(case, policy, lay, lay))
    return Speed(run(case, system, simple_policy(case, batch)).useful_per_s, f"strategy {system.name}, with this map")


def _instead(plan: Plan, batch: int) -> dict[str, str]:
    """What accelerate does in place of what it lacks."""
    gpu = plan.case.machine.gpu is not None
    here = {
        "devices": "files and speed are for one device",
        "schedule": "one batch at a time",
        "loading": "weights are loaded when their module is called, and all wait for them",
        "fetching": "all experts of a layer are loaded",
        "disk": "weights on the disk are memory-mapped; experts that transformers fuses are written anew before",
        "attention": "all attention is computed on the GPU",
        "KV": "caches are in VRAM",
        "FFN": "all is computed on the GPU, after a copy",
        "pinning": "copies come from pageable memory",
        "placement": "a module is in one place",
        "prefill": f"{batch} prompts at once, padded to the longest",
        "refill": "a batch goes on until its last sequence ends",
        "tails": "the last sequences are computed like all others",
        "speculation": "none: transformers drafts for one sequence at a time only",
        "exactness": "padding, batch and kernels round differently",
    }
    if batch < in_flight(plan):
        why = "caches have to fit VRAM" if gpu else "a padded batch has to fit RAM"
        here["batch"] = f"{batch} at a time, as {why}"
    return here


ENGINE = Engine("accelerate", "transformers + accelerate", export)
