"""transformers + accelerate, with what does not fit the limit on the disk.

    python -m benchmarks.peers.accelerate_offload --target DIR --prompts FILE --folder DIR --ram-bytes N --experts NAME
        --new-tokens N --threads N (--sweep B[,B...] | --batch B --requests N)

`--sweep` times one group of requests per batch size, for a few tokens, in this order: a line {"batch", "prefill_s",
"step_s"} as soon as each is known, so that what a kill leaves standing is known too. Otherwise all requests run in
groups of `--batch`: a line {"seconds", "load_s", "read_bytes", "tokens"}. `seconds` go from the first prefill to the
last token; loading, which rewrites fused experts to `--folder`, is before that. The page cache starts cold.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from benchmarks.peers.arguments import peer_parser
from benchmarks.peers.child import drop_cache, read_bytes
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.transformers_model import greedy, offloaded


def main() -> None:
    parser = peer_parser("accelerate_offload")
    parser.add_argument("--sweep", default="")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--requests", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    model = offloaded(options.target, options.folder, options.ram_bytes, options.experts)
    drop_cache(options.folder)
    load_s = time.perf_counter() - began
    for batch in map(int, filter(None, options.sweep.split(","))):
        print(json.dumps(_sweep(model, read_ids(options.prompts, batch), options.new_tokens)), flush=True)
    if options.batch is not None:
        prompts = read_ids(options.prompts, options.requests)
        print(json.dumps({"load_s": load_s, **_all(model, prompts, options.batch, options.new_tokens)}))


def _sweep(model: Any, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    """One group: seconds to the first token, and per later token."""
    ends: list[float] = []
    began = time.perf_counter()
    greedy(model, prompts, new_tokens, lambda _: ends.append(time.perf_counter()))
    step_s = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {"batch": len(prompts), "prefill_s": ends[0] - began, "step_s": step_s}


def _all(model: Any, prompts: list[list[int]], batch: int, new_tokens: int) -> dict[str, Any]:
    before, began = read_bytes(), time.perf_counter()
    tokens: list[list[int]] = []
    for first in range(0, len(prompts), batch):
        tokens += greedy(model, prompts[first : first + batch], new_tokens)
    return {"seconds": time.perf_counter() - began, "read_bytes": read_bytes() - before, "tokens": tokens}


if __name__ == "__main__":
    main()
