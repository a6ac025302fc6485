"""How many positions, tokens and rows there are at once at most: what `memory` counts bytes of.

A contract: the executor admits, sweeps and computes no more at a time.
"""

from __future__ import annotations

import heapq
import math
from functools import lru_cache
from typing import Final

from specsim.attending import KV_BLOCK
from specsim.decision import DraftPolicy, Policy
from specsim.model import FeedForward
from specsim.workload import Workload, prompt_lengths

LOGITS_ROWS: Final = 1024
#: the draft, which waits for no weights, reads whole sequences of so many tokens at once (or one, if it is longer)
DRAFT_TOKENS: Final = 1024
#: experts are not asked for evenly: the fullest part of an FFN gets at most this many times its share of the tokens
IMBALANCE: Final = 2.0
#: newcomers of one round bring at most so many prompt tokens (or one prompt, if it is longer)
JOIN_TOKENS: Final = 4096
#: sweeps of a prefill on a stage behind the first at most: one arrives while another is computed
ARRIVING: Final = 2


@lru_cache(maxsize=64)
def longest_first(workload: Workload) -> tuple[int, ...]:
    """Prompt lengths of all requests, in tokens."""
    return tuple(heapq.nlargest(workload.requests, (int(n) for n in prompt_lengths(workload))))


def kv_positions(workload: Workload, sequences: int, gamma: int) -> float:
    """Positions that the caches of any `sequences` requests of `workload` may need at once: the longest ones'
    prompts, outputs and candidates."""
    longest = longest_first(workload)[:sequences]
    return float(sum(longest) + len(longest) * (workload.output_tokens + gamma))


def held_positions(workload: Workload, policy: Policy) -> float:
    """Positions that the caches of all sequences in flight hold at most: what these may need, or what is allowed."""
    needed = kv_positions(workload, policy.in_flight, policy.gamma)
    return needed if policy.kv_positions is None else min(needed, float(policy.kv_positions))


def longest_read(workload: Workload, policy: Policy) -> int:
    """Tokens that a sequence may have to read at once: a prompt, and where caches may have to be restored also what
    followed it."""
    return longest_first(workload)[0] + (workload.output_tokens if policy.kv_positions is not None else 0)


def admitted(workload: Workload, policy: Policy) -> int:
    """Sequences that begin together at most. Where caches are capped, each takes whole blocks while there are some, for
    its prompt and its first round, and the last one only what it needs (see `executor.admission`)."""
    if policy.kv_positions is None:
        return policy.in_flight
    shortest = min(longest_first(workload))
    needed = shortest + min(workload.output_tokens, 1 + policy.gamma)
    each = min(shortest + workload.output_tokens, math.ceil(needed / KV_BLOCK) * KV_BLOCK)
    return min(policy.in_flight, max(1, 1 + (policy.kv_positions - needed) // each))


def decoding(workload: Workload, policy: Policy) -> int:
    """Sequences of a batch in a round at most. Where caches are capped and places are not filled again, no more than
    began together; where they are, each newcomer takes at least what it needs."""
    if policy.kv_positions is None:
        return policy.batch
    least = min(longest_first(workload)) + min(workload.output_tokens, 1 + policy.gamma)
    together = policy.kv_positions // least if policy.refill else -(-admitted(workload, policy) // policy.batches)
    return max(1, min(policy.batch, together))


def sweep_tokens(workload: Workload, policy: Policy) -> float:
    """Tokens of a prefill sweep, or one sequence has more: the longest prompts, as many as a sweep takes and there is
    room for; what is restored may be longer, so that fewer sequences make a sweep."""
    prompts = sum(longest_first(workload)[: min(policy.prefill_batch, admitted(workload, policy))])
    most = prompts if policy.kv_positions is None else min(prompts, policy.kv_positions)
    return float(max(most, longest_read(workload, policy)))


def sweep_rows(workload: Workload, policy: Policy) -> float:
    """Tokens of the fullest micro-batch of a sweep, or one sequence has more: prompts, likewise."""
    longest, micro = longest_first(workload)[0], policy.prefill_micro_batches
    tokens = sweep_tokens(workload, policy)
    at_once = min(policy.prefill_batch, admitted(workload, policy))
    return min(tokens, math.ceil(at_once / micro) * longest, tokens / micro + longest * (micro > 1))


def draft_tokens(workload: Workload, policy: Policy, draft: DraftPolicy) -> int:
    """Tokens that the draft reads at once in its prefill, or one sequence has more: prompts, likewise."""
    prompts = sum(longest_first(workload)[: min(draft.micro_batch, policy.batch, admitted(workload, policy))])
    return max(min(prompt_tokens_at_once(policy.chunk_tokens), prompts), longest_read(workload, policy))


def join_tokens(workload: Workload, policy: Policy | None = None) -> float:
    """Tokens that newcomers may bring to one verify pass: their prompts, of a batch's places at most, or what one of
    them brings that goes on, after a pause or in a run that is resumed."""
    if policy is None:
        return float(max(JOIN_TOKENS, workload.prompt_tokens_max))
    prompts = float(sum(longest_first(workload)[: policy.batch]))
    most = prompts if policy.kv_positions is None else min(prompts, policy.kv_positions)
    return max(min(float(JOIN_TOKENS), most), float(longest_first(workload)[0] + workload.output_tokens))


def sweeps_at_once(policy: Policy) -> int:
    """Sweeps of a prefill that are under way at most: one on each stage of several, and one on its way home. The first
    stage keeps rows of all of them."""
    return 1 if policy.stages == 1 else policy.stages + 1


def chunk_rows(ffn: FeedForward, parts: int, chunk_tokens: float) -> float:
    """Rows of a product at most in an FFN of so many `parts`: the tokens of a chunk, and of a MoE those of them that
    its fullest part is asked for."""
    if not ffn.is_moe:
        return chunk_tokens
    return min(chunk_tokens * ffn.top_k / parts * IMBALANCE, chunk_tokens * ffn.top_k)


def logits_rows(policy: Policy) -> int:
    """Rows of logits at once: whole sequences of a chunk."""
    return min(LOGITS_ROWS, max(policy.chunk_tokens, policy.gamma + 1))


def prompt_tokens_at_once(chunk_tokens: int) -> int:
    """Tokens of prompts that the draft reads at once: a chunk, in whole sequences (or one, if it is longer)."""
    return min(DRAFT_TOKENS, chunk_tokens)
