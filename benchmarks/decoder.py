"""Tokens per second of the resident decoder, beside transformers' eager one on the same checkpoint and prompts.

    python -m benchmarks.decoder --target DIR --prompts FILE [--batches 1,8,64] [--tokens 32] [--repeat 3] [--json]

Everything is in RAM and gamma is 0: what is compared is the computing. Prompts are as long as each other, so that
transformers needs no padding. All decode greedily, ignore end tokens and count every token; the time is from the first
prefill to the last token. transformers attends eagerly and computes its experts one by one (`eager`) or, as it does
when not told otherwise, with `grouped_mm`. First each decoder's tokens are compared with those of ours in `exact`
numerics, which warms it up too. Types of 16 bits round differently in each, so near ties fall either way and the texts
part there: the share of requests that are identical and of tokens before the first difference are printed, and where
not even most first tokens are the same, nothing is timed. Then all take turns; medians are printed, and the ratio to
the fastest of transformers'.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from executor.decoder.cache import KvArena, Segment
from executor.decoder.numerics import EXACT, FAST, argmax
from executor.decoder.resident import ResidentModel, load_resident

Tokens = list[list[int]]  # of each request
Decoder = Callable[[Tokens, int], Tokens]
#: transformers' ways to compute experts, but for `batched_mm`, which copies an expert's weights for each of its tokens
EXPERTS: Final = ("eager", "grouped_mm")
#: what transformers calls a dense model's decoder, which has no choice of these
DENSE: Final = "transformers"
#: share of first tokens that must be those of `exact` before anything is timed
PARITY: Final = 0.9


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of tokens with those of another decoder: shares of requests that are identical, of first tokens that are, and of
    tokens that come before the first difference."""

    requests: float
    first_tokens: float
    tokens: float


def ours(model: ResidentModel) -> Decoder:
    """Greedy decoding of a batch by `model`, a pass of it per token."""

    def decode(prompts: Tokens, count: int) -> Tokens:
        capacities = [len(prompt) + count for prompt in prompts]
        arena = KvArena.empty(model.arch, sum(capacities))
        caches = [arena.take(capacity) for capacity in capacities]
        outputs: Tokens = [[] for _ in prompts]
        feeds = prompts
        for _ in range(count):
            segments, first = [], 0
            for cache, feed in zip(caches, feeds, strict=True):
                segments.append(Segment(first, len(feed), cache.length))
                first += len(feed)
            ids = torch.tensor([token for feed in feeds for token in feed])
            last = torch.tensor([segment.first + segment.count - 1 for segment in segments])
            feeds = [[token] for token in argmax(model.forward(ids, segments, caches, last)).tolist()]
            for cache, segment, output, feed in zip(caches, segments, outputs, feeds, strict=True):
                cache.length = segment.end
                output += feed
        return outputs

    return decode


def theirs(model: Any, experts: str) -> Decoder:
    """Greedy decoding by transformers' own `generate`."""

    def decode(prompts: Tokens, count: int) -> Tokens:
        if experts != DENSE:
            model.set_experts_implementation(experts)
        ids = torch.tensor(prompts)
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            pad_token_id=0,
        )
        output: Tokens = whole[:, ids.shape[1] :].tolist()
        return output

    return decode


def agreement(tokens: Tokens, expected: Tokens) -> Agreement:
    """Of two lists of outputs that are all equally long."""
    same = [[a == b for a, b in zip(*pair, strict=True)] for pair in zip(tokens, expected, strict=True)]
    before = [[*row, False].index(False) for row in same]
    return Agreement(
        sum(all(row) for row in same) / len(same),
        sum(row[0] for row in same) / len(same),
        sum(before) / sum(map(len, same)),
    )


def decoders(target: str) -> dict[str, Decoder]:
    """Every decoder of a checkpoint by name; ours first, then transformers'."""
    exact = load_resident(target, EXACT)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        target, dtype=exact.arch.dtype, attn_implementation="eager"
    )
    model.generation_config.eos_token_id = None
    mixture = exact.arch.model.ffn.is_moe
    ways = {f"{DENSE} {experts}": theirs(model, experts) for experts in EXPERTS} if mixture else {}
    return {
        "specsim exact": ours(exact),
        "specsim fast": ours(replace(exact, numerics=FAST)),
        **(ways or {DENSE: theirs(model, DENSE)}),
    }


def compare(all_of_them: dict[str, Decoder], prompts: Tokens, count: int) -> dict[str, Agreement]:
    """Each decoder's agreement with the first. Ends the program where one computes something else."""
    outputs = {name: decode(prompts, count) for name, decode in all_of_them.items()}
    expected = next(iter(outputs.values()))
    found = {name: agreement(tokens, expected) for name, tokens in outputs.items()}
    for name, parity in found.items():
        if parity.first_tokens < PARITY:
            sys.exit(f"{name}: only {parity.first_tokens:.0%} of first tokens are those of exact: nothing was timed")
    return found


def measure(all_of_them: dict[str, Decoder], prompts: Tokens, count: int, repetitions: int) -> dict[str, float]:
    """Median tokens per second of each, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in all_of_them}
    for _ in range(repetitions):
        for name, decode in all_of_them.items():
            began = time.perf_counter()
            decode(prompts, count)
            seconds[name].append(time.perf_counter() - began)
    return {name: len(prompts) * count / statistics.median(times) for name, times in seconds.items()}


def read_prompts(file: Path, most: int) -> Tokens:
    """The first prompts of a file of `{"input_ids": [...]}` lines, which must all be equally long."""
    prompts = [json.loads(line)["input_ids"] for line in file.read_text().splitlines()][:most]
    if len({len(prompt) for prompt in prompts}) != 1:
        sys.exit(f"{file}: the prompts have different lengths")
    return prompts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder", description="Decoder against transformers.")
    parser.add_argument("--target", required=True, help="folder of a checkpoint that fits in RAM twice")
    parser.add_argument("--prompts", required=True, type=Path, help="JSON lines with token ids, all equally many")
    parser.add_argument("--batches", default="1,8,64", help="batch sizes (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of a request (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    sizes = [int(size) for size in options.batches.split(",")]
    prompts = read_prompts(options.prompts, max(sizes))
    if len(prompts) < max(sizes):
        sys.exit(f"{options.prompts}: only {len(prompts)} prompts for a batch of {max(sizes)}")
    all_of_them = decoders(options.target)
    system = f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    rows = []
    for size in sizes:
        batch = prompts[:size]
        parity = compare(all_of_them, batch, options.tokens)
        rates = measure(all_of_them, batch, options.tokens, options.repeat)
        best = max(rate for name, rate in rates.items() if name.startswith(DENSE))
        rows += [
            {
                "batch": size,
                "decoder": name,
                "tokens_per_second": rate,
                "ratio": rate / best,
                "identical_requests": parity[name].requests,
                "tokens_before_difference": parity[name].tokens,
            }
            for name, rate in rates.items()
        ]
    if options.json:
        print(json.dumps({"system": system, "machine": platform.machine(), "decoders": rows}, indent=2))
        return
    print(f"{len(prompts[0])} prompt tokens, {options.tokens} new ones, median of {options.repeat}, {system}")
    print(f"{'batch':>5}  {'decoder':24} {'tokens/s':>9} {'ratio':>6}  {'same requests':>13} {'tokens before':>13}")
    for row in rows:
        rate = f"{row['tokens_per_second']:9.2f} {row['ratio']:6.2f}"
        same = f"{row['identical_requests']:13.0%} {row['tokens_before_difference']:13.0%}"
        print(f"{row['batch']:5}  {row['decoder']:24} {rate}  {same}")


if __name__ == "__main__":
    main()
