"""FLOPs and bytes of every operation against loops that count them one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from specsim.cost import work as cost
from specsim.cost.shapes import decode_shape, prefill_shape
from specsim.cost.work import Work
from specsim.model import FeedForward, Model, read_config
from specsim.profiles import find
from tests.specsim import stories

TINY = stories.model()  # h 4, n_q 2, n_kv 1, d 3, f 8, V 10, b 2
MOE = stories.model(family="mixtral", ffn=FeedForward(8, experts=4, top_k=2))


def product_flops(*sizes: tuple[int, int, int]) -> int:
    """Of matrix products [rows, inner] x [inner, columns]: a multiplication and an addition for every term."""
    return sum(2 * rows * inner * columns for rows, inner, columns in sizes)


def test_projections_by_matrix() -> None:
    # 5 tokens: Q [4 -> 6], K and V [4 -> 3] each, O [6 -> 4]
    work = cost.projections(TINY, 5)
    assert work.flops == product_flops((5, 4, 6), (5, 4, 3), (5, 4, 3), (5, 6, 4)) == 720
    weights, reads, writes = 4 * 6 + 4 * 3 + 4 * 3 + 6 * 4, 5 * (4 + 6), 5 * (6 + 3 + 3 + 4)
    assert work.bytes == 2 * (weights + reads + writes)
    assert (work.kind, work.rows, work.calls, work.dtype) == ("gemm", 5, 1, "bfloat16")


def test_projections_before_and_after_the_core_add_up() -> None:
    before, after = cost.projections(TINY, 5, out=False), cost.projections(TINY, 5, q=False, kv=False)
    whole = cost.projections(TINY, 5)
    assert (before.flops, after.flops) == (product_flops((5, 4, 12)), product_flops((5, 6, 4)))
    assert before.flops + after.flops == whole.flops
    assert before.bytes + after.bytes == whole.bytes


def test_attention_core_pair_by_pair() -> None:
    # 2 sequences, 3 queries each after 10 positions: each head's score and each weighted value cost 2 d per pair
    flops = sum(2 * 3 + 2 * 3 for _, head, q in product(range(2), range(2), range(3)) for _ in range(10 + q + 1))
    work = cost.attention_core(TINY, decode_shape(2, 3, 10))
    assert work.flops == flops
    # K and V of 13 positions a sequence, once; queries in and outputs out for 2 heads of 3
    assert work.bytes == 2 * 13 * (2 * 3 * 2) + 2 * 3 * (2 * 2 * 3) * 2
    assert work.kind == "attention"


def test_dense_feed_forward_by_matrix() -> None:
    work = cost.feed_forward(TINY, TINY.ffn, 5)
    assert work.flops == product_flops((5, 4, 8), (5, 4, 8), (5, 8, 4))
    # three matrices; every token reads and writes a hidden state, and passes gate, up and their product on
    assert work.bytes == 2 * (3 * 4 * 8 + 5 * (2 * 4 + 3 * 8))
    assert work.rows == 5


def test_expert_feed_forward_is_routed_work_plus_the_router() -> None:
    work = cost.feed_forward(MOE, MOE.ffn, 5)
    assert work.flops == product_flops(*[(2 * 5, 4, 8), (2 * 5, 4, 8), (2 * 5, 8, 4)], (5, 4, 4))
    distinct = 4 * (1 - 0.5**5)
    assert work.bytes == 2 * (distinct * 3 * 4 * 8 + 2 * 5 * (2 * 4 + 3 * 8))
    assert work.rows == 2 * 5 / distinct  # tokens that the mean active expert gets


def test_one_token_in_one_expert_is_one_row() -> None:
    assert cost.feed_forward(MOE, MOE.ffn, 1).rows == 1


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_parts_of_a_feed_forward_add_up(parts: int) -> None:
    whole, part = cost.feed_forward(MOE, MOE.ffn, 7), cost.feed_forward(MOE, MOE.ffn, 7, 1 / parts)
    assert parts * part.flops == pytest.approx(whole.flops, rel=1e-15)
    assert parts * part.bytes == pytest.approx(whole.bytes, rel=1e-15)
    assert part.rows == whole.rows


def test_no_tokens_is_no_work() -> None:
    work = cost.feed_forward(MOE, MOE.ffn, 0)
    assert (work.flops, work.bytes) == (0, 0)


def test_head_writes_and_reads_float_logits() -> None:
    work = cost.head(TINY, 3)
    assert work.flops == product_flops((3, 4, 10))
    assert work.bytes == 10 * 4 * 2 + 2 * (3 * 10 * 4)


def test_copies_and_their_sizes() -> None:
    assert cost.copy(7, pinned=False) == Work("copy", 0, 7, pinned=False)
    assert cost.hidden_bytes(TINY, 5) == 5 * 4 * 2
    assert cost.kv_bytes(TINY, 5) == 5 * 2 * 3 * 2


def test_repeating_work_repeats_its_calls() -> None:
    assert cost.repeat(Work("gemm", 2, 3, 4), 5) == Work("gemm", 10, 15, 4, calls=5)


# distinct experts


@pytest.mark.parametrize(
    ("experts", "top_k", "tokens"), [(8, 2, 1), (8, 2, 4), (8, 2, 16), (16, 1, 10), (64, 6, 20), (128, 8, 32)]
)
def test_distinct_experts_are_the_mean_of_random_routing(experts: int, top_k: int, tokens: int) -> None:
    """Every token picks top_k experts without regard to the others; within 4 standard errors of 1000 passes."""
    rng = np.random.default_rng(7)
    scores = rng.random((1000, tokens, experts))
    chosen = np.argpartition(scores, top_k - 1, axis=-1)[..., :top_k].reshape(1000, -1)
    counts = np.array([len(set(row)) for row in chosen.tolist()])
    error = 4 * counts.std() / math.sqrt(1000)
    expected = cost.distinct_experts(FeedForward(1, experts, top_k), tokens)
    assert abs(counts.mean() - expected) <= error + 1e-9


@pytest.mark.parametrize("experts", [1, 2, 8, 128])
def test_distinct_experts_at_the_ends(experts: int) -> None:
    for top_k in range(1, experts + 1):
        assert cost.distinct_experts(FeedForward(1, experts, top_k), 1) == pytest.approx(top_k, rel=1e-12)
        assert cost.distinct_experts(FeedForward(1, experts, top_k), 0) == 0
    for tokens in (1, 2, 50):
        assert cost.distinct_experts(FeedForward(1, experts, experts), tokens) == experts


def test_distinct_experts_are_fewer_than_the_routed_tokens() -> None:
    # 4 tokens with 2 of 8 experts each: min(E, T k) would say 8
    assert cost.distinct_experts(FeedForward(1, 8, 2), 4) == 8 * (1 - 0.75**4) == 5.46875


# whole passes


def total(works: tuple[Work, ...]) -> tuple[float, float]:
    return sum(work.flops for work in works), sum(work.bytes for work in works)


def test_a_whole_pass_is_its_layers_and_the_head() -> None:
    shape = decode_shape(2, 3, 10)
    layer = [cost.projections(TINY, 6), cost.attention_core(TINY, shape), cost.feed_forward(TINY, TINY.ffn, 6)]
    works = cost.whole_pass(TINY, shape)
    laid = [replace(cost.repeat(work, 2), packed=work.kind == "gemm") for work in layer]  # a resident model's weights
    assert works == (*laid, cost.head(TINY, 6))
    assert sum(work.calls for work in works) == 2 * 3 + 1


def test_layers_of_two_kinds_are_counted_apart() -> None:
    sparse, dense = FeedForward(8, experts=4, top_k=2), FeedForward(100)
    model = stories.model(layers=3, family="qwen3_moe", ffn=sparse, dense_ffn=dense, dense_layers=(1,))
    works = cost.whole_pass(model, decode_shape(1, 1, 10))
    assert replace(cost.repeat(cost.feed_forward(model, sparse, 1), 2), packed=True) in works
    assert replace(cost.feed_forward(model, dense, 1), packed=True) in works


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "mixtral-8x7b", "llama-3.2-1b", "qwen2.5-7b", "qwen3-30b-a3b"])
def test_flops_are_two_per_active_parameter_and_token(name: str) -> None:
    """Exactly, once three things are set apart: attention over the context, positions that need no logits, and norms
    and biases, which are parameters but no matrix products."""
    model = {"tiny": TINY, "tiny-moe": MOE}.get(name) or read_config(find("model", name))
    shape = prefill_shape([100, 37])
    flops, _ = total(cost.whole_pass(model, shape))
    core = model.layers * cost.attention_core(model, shape).flops
    without_logits = 2 * (shape.tokens - shape.head_rows) * model.embedding_parameters
    vectors = 2 * shape.tokens * not_multiplied(model)
    expected = 2 * model.active_parameters * shape.tokens + core - without_logits - vectors
    assert flops == pytest.approx(expected, rel=1e-12)
    assert vectors < 0.07 * flops


def not_multiplied(model: Model) -> int:
    """Norms and biases."""
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    matrices = model.hidden * (2 * q + 2 * kv)
    return model.layers * (model.attention_parameters - matrices) + model.hidden


def test_one_pass_reads_every_weight_once() -> None:
    """Mixtral 8x7B with so many tokens that every expert is asked for: bytes less activations are the weights."""
    model = read_config(find("model", "mixtral-8x7b"))
    some, more = (total(cost.whole_pass(model, decode_shape(rows, 1, 0)))[1] for rows in (1000, 2000))
    vectors = (not_multiplied(model) + model.layers * model.router_parameters(model.ffn)) * 2
    embedding = model.embedding_parameters * 2
    assert 2 * some - more == pytest.approx(model.weight_bytes - embedding - vectors, rel=1e-12)


def test_products_in_chunks_read_the_weights_once_for_each() -> None:
    whole, chunked = cost.feed_forward(TINY, TINY.ffn, 64), cost.feed_forward(TINY, TINY.ffn, 64, most_rows=16)
    assert (chunked.flops, chunked.activations, chunked.rows) == (whole.flops, whole.activations, 16)
    assert chunked.calls == 4 * whole.calls
    assert chunked.bytes - whole.bytes == 3 * (whole.bytes - whole.activations)
    assert cost.feed_forward(TINY, TINY.ffn, 64, most_rows=64) == whole
