"""transformers' assisted generation: the draft in RAM, the target offloaded by accelerate, one request at a time.

    python -m benchmarks.peers.assisted --target DIR --draft DIR --prompts FILE --folder DIR --ram-bytes N
        --experts NAME --new-tokens N --threads N --requests N --candidates N

It takes no batches (transformers refuses them). `--candidates` N proposes N tokens per pass, always; 0 leaves it to
transformers' own defaults, a schedule that stops where the draft is not sure. Prints one JSON line {"seconds",
"load_s", "read_bytes", "tokens"}, timed as `accelerate_offload` is.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from benchmarks.peers.arguments import peer_parser
from benchmarks.peers.child import drop_cache, read_bytes
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.transformers_model import greedy, offloaded, resident


def main() -> None:
    parser = peer_parser("assisted")
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--candidates", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    model = offloaded(options.target, options.folder, options.ram_bytes, options.experts)
    draft = resident(options.draft)
    if options.candidates:
        config = draft.generation_config
        config.num_assistant_tokens = options.candidates
        config.num_assistant_tokens_schedule = "constant"
        config.assistant_confidence_threshold = 0.0
    drop_cache(options.folder)
    load_s = time.perf_counter() - began
    before, began = read_bytes(), time.perf_counter()
    tokens = [
        greedy(model, [prompt], options.new_tokens, assistant_model=draft)[0]
        for prompt in read_ids(options.prompts, options.requests)
    ]
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "load_s": load_s, "read_bytes": read_bytes() - before, "tokens": tokens}))


if __name__ == "__main__":
    main()
