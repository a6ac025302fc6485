"""llama.cpp: attention and caches on the GPU, the FFNs of the first layers on the CPU, sequences in server slots."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from specsim.answer import Plan
from specsim.case import Case
from specsim.exports.choice import NGRAM_TOKENS, Try, caches, fastest, in_flight, pass_tokens, sequences, swept
from specsim.exports.export import Engine, Export, Speed, documented
from specsim.exports.losses import losses
from specsim.exports.shell import flags, script
from specsim.model import Model
from specsim.positions import kv_positions
from specsim.systems import llama_cpp
from specsim.systems.layers import cache_bytes, ffn_bytes
from specsim.systems.outcome import Outcome
from specsim.systems.policies import simple_policy
from specsim.systems.system import Job, Policy
from specsim.units import show

#: sequences that it handles at most, a constant of its source (LLAMA_MAX_SEQ)
MOST_SLOTS = 256
#: names of types in convert_hf_to_gguf.py
OUTTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


@dataclass(frozen=True, slots=True)
class Choice:
    """So many slots; FFNs of the last `kept` layers in VRAM; `gamma` candidates from a draft model or the text."""

    slots: int
    kept: int
    gamma: int


def export(plan: Plan) -> Export:
    case = plan.case
    if case.machine.gpu is None:
        choice = Choice(min(in_flight(plan), MOST_SLOTS), 0, plan.decision.policy.gamma)
        speed = Speed(None, "specsim models llama.cpp with a GPU")
    else:
        tries = list(_tries(plan))
        cached = [tried for tried in tries if _on_cpu(case, tried.choice) <= case.machine.ram_budget_bytes]
        outcome, choice = fastest(cached or tries, ENGINE.title, case)
        speed = _speed(outcome, choice)
    drafted = choice.gamma > 0 and case.draft is not None
    return Export(
        engine=ENGINE.name,
        title=ENGINE.title,
        version=documented(ENGINE.name).version,
        command=f"sh llama.cpp.sh TARGET_DIR{' DRAFT_DIR' if drafted else ''}",
        files={"llama.cpp.sh": _script(case, choice, drafted)},
        needs=(
            "llama-server on the PATH, and to be called in a checkout of llama.cpp: it reads GGUF, not Hugging Face "
            "checkpoints, so the script first calls convert_hf_to_gguf.py",
            f"{case.target.dtype} weights: the plan is for these; a quantised GGUF moves fewer bytes, and is not exact",
            f'requests that ask for "n_predict": {case.workload.output_tokens} and "temperature": 0',
            "in builds before pull request 22397 (April 2026), --spec-draft-n-max is called --draft-max",
        )[: 4 if drafted else 3],
        lost=losses(plan, _instead(plan, choice)),
        speed=speed,
    )


def _tries(plan: Plan) -> Iterator[Try[Choice]]:
    """Slots without a draft and, for a plan that speculates with one, a single slot with it: a draft of llama.cpp is
    known to serve one sequence. VRAM that is left keeps FFNs."""
    case, gamma = plan.case, plan.decision.policy.gamma
    asked = [(slots, gamma if case.ngram else 0) for slots in sequences(min(in_flight(plan), MOST_SLOTS))]
    for slots, drafts in [*asked, *[(1, gamma)] * (gamma > 0 and case.draft is not None)]:
        modelled = drafts if case.draft is not None else 0
        policy = replace(_policy(case, slots), gamma=modelled, draft_batch=min(modelled, 1))
        expected = cache_bytes(case.target, slots * (policy.padded + case.workload.output_tokens))
        used = llama_cpp.memory(case, policy)["vram"] + caches(case, slots, drafts) - expected
        room = case.machine.vram_budget_bytes - used
        kept = max(0, min(case.target.layers, int(room // ffn_bytes(case.target))))
        system = replace(llama_cpp.DRAFTED if modelled else llama_cpp.SYSTEM, job=partial(_job, kept=kept))
        # short RAM is no hindrance: the file is memory-mapped
        yield Try(Choice(slots, kept, drafts), case, system, policy, {"vram": used}, case.machine.budgets())


def _speed(outcome: Outcome, choice: Choice) -> Speed:
    """None where what the CPU computes with does not stay in RAM: it is then read from the disk, again and again."""
    case, size = outcome.case, _on_cpu(outcome.case, choice)
    ram = case.machine.ram_budget_bytes
    if size > ram:
        what = f"its CPU computes with {show(size, 'bytes')} of weights, and there are {show(ram, 'bytes')} of RAM"
        return Speed(None, f"{what}: specsim models llama.cpp with all of them in RAM, not on the disk")
    plain = "; its n-gram drafting is not in it" if choice.gamma and case.ngram else ""
    return Speed(outcome.useful_per_s, f"strategy {outcome.system.name}, with these flags{plain}")


def _on_cpu(case: Case, choice: Choice) -> float:
    """Bytes of the FFNs that are not kept in VRAM."""
    return (case.target.layers - choice.kept) * ffn_bytes(case.target)


def _job(case: Case, policy: Policy, kept: int) -> Job:
    whole = llama_cpp.drafted_job if policy.gamma else llama_cpp.job
    return swept(case, policy, whole(case, policy, kept))


def _policy(case: Case, slots: int) -> Policy:
    """Prompts are not padded."""
    return replace(simple_policy(case, slots), padded=case.workload.prompt_tokens_mean)


def _script(case: Case, choice: Choice, drafted: bool) -> str:
    target, layers = case.target, case.target.layers
    on_cpu, gpu = layers - choice.kept, case.machine.gpu is not None
    tokens, work = pass_tokens(case, choice.slots), case.workload
    longest = work.prompt_tokens_max + work.output_tokens
    options: dict[str, str | int | None] = {
        "-m": _gguf(target.name, target.dtype),
        "-ngl": layers + 1 if gpu else 0,  # one more: the head
        "-c": ceil(max(kv_positions(work, choice.slots, choice.gamma), longest + choice.gamma)),
        "-kvu": None,
        "-np": choice.slots,
        "-b": tokens,
        "-ub": tokens,
    }
    if gpu and on_cpu and target.ffn.is_moe:
        options["--n-cpu-moe"] = on_cpu
    elif gpu and on_cpu:
        numbers = "|".join(map(str, range(on_cpu)))
        options["-ot"] = rf"blk\.({numbers})\.ffn_(gate|up|down)\.weight=CPU"
    if drafted and case.draft is not None:
        options |= {
            "-md": _gguf(case.draft.name, case.draft.dtype),
            "-ngld": case.draft.layers + 1 if gpu else 0,
            "--spec-type": "draft-simple",
            "--spec-draft-n-max": choice.gamma,
        }
    elif choice.gamma:
        options |= {
            "--spec-type": "ngram-simple",
            "--spec-ngram-simple-size-n": NGRAM_TOKENS,
            "--spec-ngram-simple-size-m": choice.gamma,
        }
    models = [("$1", target), *([("$2", case.draft)] if drafted and case.draft is not None else [])]
    converted = [_convert(model, folder) for folder, model in models]
    return script(case, ENGINE.title, [*converted, flags("llama-server", options)])


def _convert(model: Model, folder: str) -> str:
    """Make a model's GGUF where there is none; under its name only when it is whole."""
    name = _gguf(model.name, model.dtype)
    file, part = shlex.quote(name), shlex.quote(f"{name}.part")
    convert = f'python convert_hf_to_gguf.py "{folder}" --outtype {OUTTYPES[model.dtype]} --outfile {part}'
    return f"if [ ! -e {file} ]; then\n  {convert}\n  mv {part} {file}\nfi"


def _gguf(name: str, dtype: str) -> str:
    return f"{name}-{OUTTYPES[dtype]}.gguf"


def _instead(plan: Plan, choice: Choice) -> dict[str, str]:
    """What llama.cpp does in place of what it lacks."""
    case, policy = plan.case, plan.decision.policy
    on_cpu, tokens = case.target.layers - choice.kept, pass_tokens(case, choice.slots)
    ffn = f"of {on_cpu} layers on the CPU for fewer than {llama_cpp.COPIED_FROM} tokens, else on the GPU after a copy"
    here = {
        "devices": "files and speed are for one device",
        "schedule": "one batch at a time",
        "loading": "nothing is loaded ahead",
        "disk": "the file is memory-mapped: the page cache decides what is read again",
        "attention": "all attention is computed on the GPU",
        "KV": "caches are in VRAM",
        "FFN": f"{ffn}: never both",
        "pinning": "copies come from memory-mapped, pageable files",
        "placement": f"FFNs of {choice.kept} whole layers stay in VRAM"
        if case.machine.gpu
        else "none is kept on purpose",
        "prefill": f"up to {tokens} prompt tokens a pass, each through all weights",
        "tails": "the last sequences are computed like all others",
        "exactness": "kernels round differently by batch and place",
    }
    if choice.slots < in_flight(plan):
        why = "it has no more slots" if choice.slots == MOST_SLOTS else "caches have to fit VRAM, and this is fastest"
        here["batch"] = f"{choice.slots} slots: {why}"
    if policy.gamma and not choice.gamma:
        alone = "a pass without it is faster" if choice.slots == 1 else f"{choice.slots} without it are faster"
        here["speculation"] = f"none: a draft serves one sequence, and {alone}"
    elif policy.gamma:
        here["draft"] = "on the GPU, with its cache" if case.machine.gpu else "slot by slot, with its caches"
    return here


ENGINE = Engine("llama.cpp", "llama.cpp", export)
