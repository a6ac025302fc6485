"""EXACT: a token's logits, and what is cached of it, are the same bits in any batch and however the text is fed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder import attention, batch, blocks, feedforward, numerics, products
from executor.decoder.numerics import EXACT, Numerics
from executor.decoder.resident import ResidentModel, generate_greedy
from executor.weights import AttentionWeights, ExpertWeights, PartWeights
from tests.executor import checkpoints
from tests.executor.decoder_stories import feed, load, poisoned, stepwise, tokens, valid

KINDS = list(itertools.product(["llama", "mistral-window", "mixtral", "qwen3_moe"], ["float32", "bfloat16"]))
every_kind = pytest.mark.parametrize(("family", "dtype"), KINDS)


@every_kind
def test_however_a_text_is_fed_its_logits_and_cache_are_the_same(family: str, dtype: str) -> None:
    model, text = load(family, "exact", dtype), tokens(300)
    logits, cache = stepwise(model, text, 300)
    assert torch.isfinite(logits).all()
    for counts in [(295, 5), (299, 1), (1, 2, 3, 4, 5, 285), (64, 64, 65, 107), (293, *[1] * 7)]:
        other, other_cache = stepwise(model, text, *counts)
        assert torch.equal(other, logits)
        assert all(map(torch.equal, valid(other_cache), valid(cache)))


@every_kind
def test_a_batch_and_its_order_change_nothing(family: str, dtype: str) -> None:
    model = load(family, "exact", dtype)
    texts = [tokens(length, seed=length) for length in (1, 5, 16, 64, 65, 130, 30)]
    alone = [stepwise(model, text, len(text))[0] for text in texts]
    for order in [(0, 1, 2, 3, 4, 5, 6), (6, 3, 0, 5, 2, 4, 1), (5, 4), (4, 1, 0)]:
        together = feed(model, *zip(poisoned(model, len(order)), (texts[i] for i in order), strict=True))
        assert all(torch.equal(logits, alone[i]) for i, logits in zip(order, together, strict=True))


def verified(model: ResidentModel, alone: bool = False) -> list[Tensor]:
    """The logits of a verify pass over sequences whose contexts and numbers of new tokens differ."""
    shapes = [(3, 1), (63, 4), (100, 2), (130, 4), (61, 3), (0, 2), (250, 1), (200, 40)]
    texts = [tokens(context + new, seed=context) for context, new in shapes]
    feeds = list(zip(poisoned(model, len(texts)), texts, strict=True))
    for (cache, text), (context, _) in zip(feeds, shapes, strict=True):
        if context:
            feed(model, (cache, text[:context]))
    rest = [(cache, text[cache.length :]) for cache, text in feeds]
    return [feed(model, one)[0] for one in rest] if alone else list(feed(model, *rest))


@every_kind
def test_sequences_that_attend_together_see_only_their_own(
    family: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(family, "exact", dtype)
    alone = verified(model, alone=True)
    assert all(map(torch.equal, verified(model), alone))
    monkeypatch.setattr(batch, "GATHERED_ELEMENTS", 2 * 3 * 64 * 16)  # two sequences of three blocks
    assert all(map(torch.equal, verified(model), alone))


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_fast_asks_for_what_torch_computes_fast(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, attend = load(family, "fast"), functional.scaled_dot_product_attention
    chosen = []

    def watch(*args: Tensor, attn_mask: Tensor) -> Tensor:
        chosen.append(torch._fused_sdp_choice(*args, attn_mask=attn_mask))
        return attend(*args, attn_mask=attn_mask)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watch)
    caches = poisoned(model, 2)
    for new in (70, 4, 1):
        feed(model, *((cache, tokens(new)) for cache in caches))
    assert set(chosen) == {1}  # 0 is the way that holds all scores at once


def test_softmax_adds_up_whole_blocks_in_order() -> None:
    for columns in (64, 192, 1024):
        x = torch.randn((40, columns), generator=torch.Generator().manual_seed(columns)) * 3
        hidden = torch.full((40, 3 * 64), -torch.inf)
        whole = torch.softmax(x, -1)
        assert torch.equal(torch.softmax(torch.cat((hidden, x, hidden), 1), -1)[:, 192 : 192 + columns], whole)
        assert torch.equal(torch.softmax(x[7:8], -1), whole[7:8])


@pytest.mark.parametrize("how", ["exact", "fast"])
def test_where_in_its_arena_a_cache_lies_changes_nothing(how: str) -> None:
    model, texts = load("llama", how), [tokens(90, seed=seed) for seed in (0, 1)]
    (whole,) = poisoned(model, 1)
    arena = whole.arena
    arena.give_back(whole)
    for piece in [arena.take(10) for _ in range(40)][::2]:
        arena.give_back(piece)
    scattered = [arena.take(90) for _ in texts]
    assert [len(cache.runs) for cache in scattered] == [9, 9]
    for first, last in ((0, 80), (80, 84), (84, 90)):
        together = feed(model, *((cache, text[first:last]) for cache, text in zip(scattered, texts, strict=True)))
    for text, logits, cache in zip(texts, together, scattered, strict=True):
        expected, neighbours = stepwise(model, text, 80, 4, 6)
        torch.testing.assert_close(logits, expected[84:], rtol=0, atol=0 if how == "exact" else 1e-4)
        if how == "exact":
            assert all(map(torch.equal, valid(cache), valid(neighbours)))


@every_kind
def test_a_cache_that_was_rolled_back_is_as_new(family: str, dtype: str) -> None:
    model, text = load(family, "exact", dtype), tokens(130)
    (cache,) = poisoned(model, 1)
    feed(model, (cache, text[:90]))
    feed(model, (cache, tokens(20, seed=9)))  # candidates, all refused
    cache.length = 90
    after, (fresh, fresh_cache) = feed(model, (cache, text[90:])), stepwise(model, text, 130)
    assert torch.equal(after[0], fresh[90:])
    assert all(map(torch.equal, valid(cache), valid(fresh_cache)))


def test_nothing_behind_the_valid_positions_is_read_by_fast_either() -> None:
    model, text = load("mistral-window", "fast"), tokens(70)
    (cache,) = poisoned(model, 1)
    assert all(torch.isfinite(feed(model, (cache, new))[0]).all() for new in (text[:60], text[60:65], text[65:66]))


def layer_of(model: ResidentModel, layer: int) -> tuple[AttentionWeights, PartWeights]:
    weights, (part,) = model.layers[layer]
    return weights, part


def ffn_output(
    model: ResidentModel, layer: int, parts: Sequence[PartWeights], hidden: Tensor, how: Numerics = EXACT
) -> Tensor:
    """Of a layer's FFN cut in `parts`, computed in their order."""
    normed, routing = blocks.route(model.arch, how, model.layers[layer][0], hidden)
    sent = blocks.dispatch(model.arch, layer, routing)
    into = blocks.accumulator(model.arch, how, layer, len(hidden), hidden.device)
    inner = torch.full((len(hidden), model.arch.model.layer_ffn(layer).width), torch.nan, dtype=hidden.dtype)
    for part in parts:
        blocks.feed_forward(how, part, normed, sent, into, inner if len(parts) == 3 else None)
    return blocks.finish(how, [into], hidden)


def some_hidden(model: ResidentModel, rows: int = 75) -> Tensor:
    return torch.randn((rows, model.arch.model.hidden), generator=torch.Generator().manual_seed(3)).to(model.arch.dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_how_experts_are_dealt_to_parts_and_in_what_order_changes_nothing(family: str, dtype: str) -> None:
    model = load(family, "exact", dtype)
    _, experts = layer_of(model, 0)  # 4 experts
    hidden = some_hidden(model)
    whole = ffn_output(model, 0, [experts], hidden)
    assert torch.equal(ffn_output(model, 0, [{}, experts], hidden), whole)  # a part that nobody was sent to
    for per_part in (2, 1):
        parts = [{e: experts[e] for e in range(first, first + per_part)} for first in range(0, 4, per_part)]
        for order in itertools.permutations(parts):
            assert torch.equal(ffn_output(model, 0, order, hidden), whole)


def test_two_processors_outputs_are_rounded_once() -> None:
    hidden = torch.zeros(1, 1, dtype=torch.bfloat16)
    outputs = [torch.tensor([[value]], dtype=torch.float64) for value in (1.0, 2**-8, 2**-8)]
    assert blocks.finish(EXACT, outputs, hidden).item() == 1 + 2**-7  # 1 + 2^-8 alone would round to 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dense_ffn_in_three_parts_is_the_whole(dtype: str) -> None:
    model = load("llama", "exact", dtype)
    _, part = layer_of(model, 0)
    parts = [
        {0: ExpertWeights(gate=part[0].gate)},
        {0: ExpertWeights(up=part[0].up)},
        {0: ExpertWeights(down=part[0].down)},
    ]
    hidden = some_hidden(model)
    assert torch.equal(ffn_output(model, 0, parts, hidden), ffn_output(model, 0, [part], hidden))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_how_large_the_chunks_are_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = load(family), tokens(140)
    whole, _ = stepwise(model, text, 140)
    monkeypatch.setattr(feedforward, "MOST_ROWS", 37)
    monkeypatch.setattr(products, "MOST_ROWS", 48)
    monkeypatch.setattr(feedforward, "COMBINE_ROWS", 5)
    monkeypatch.setattr(blocks, "LOGITS_ROWS", 11)
    monkeypatch.setattr(numerics, "NORM_ROWS", 9)
    monkeypatch.setattr(numerics, "WIDE_ROWS", 7)
    assert torch.equal(stepwise(model, text, 140)[0], whole)


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_fast_cuts_long_prompts_into_chunks_of_queries(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = load(family, "fast"), tokens(140)
    whole, _ = stepwise(model, text, 140)
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 140 * 3)  # 3 positions of 2 query heads per KV head
    torch.testing.assert_close(stepwise(model, text, 140)[0], whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_fast_gathers_short_sequences_and_lets_long_ones_attend_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(family, "fast")
    together, exact = verified(model), verified(load(family, "exact"))
    monkeypatch.setattr(batch, "FAST_GATHERED", 0)
    for some in (together, verified(model)):
        for logits, expected in zip(some, exact, strict=True):
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_of_experts_that_are_equally_likely_the_first_are_taken() -> None:
    model = load("mixtral")
    weights, _ = layer_of(model, 0)
    assert weights.router is not None
    indifferent = AttentionWeights(
        norm=weights.norm,
        q=weights.q,
        k=weights.k,
        v=weights.v,
        o=weights.o,
        post_norm=weights.post_norm,
        router=torch.zeros_like(weights.router),
    )
    _, routing = blocks.route(model.arch, EXACT, indifferent, some_hidden(model))
    assert routing is not None
    assert routing.experts.tolist() == [[0, 1]] * 75
    assert routing.weights.tolist() == [[0.5, 0.5]] * 75


def test_tokens_are_dispatched_in_order_to_each_expert_with_its_weight_for_them() -> None:
    model = load("qwen3_moe", "exact")  # 2 of 4 experts
    experts = torch.tensor([[0, 2], [1, 2], [0, 2], [2, 3], [0, 1]])
    routing = blocks.Routing(experts, torch.arange(10.0).view(5, 2))
    sent = blocks.dispatch(model.arch, 0, routing)
    assert sent is not None
    told = [[(int(sent.tokens[i]), float(sent.weights[i])) for i in sent.of(expert)] for expert in range(4)]
    assert told == [[(0, 0), (2, 4), (4, 8)], [(1, 2), (4, 9)], [(0, 1), (1, 3), (2, 5), (3, 6)], [(3, 7)]]
    assert not sent.tokens[10:].any()
    assert len(sent.tokens) == 10 + products.MOST_ROWS
    assert blocks.dispatch(model.arch, 0, None) is None


def test_experts_of_a_token_come_in_ascending_order_with_their_weights() -> None:
    model = load("qwen3_moe")
    hidden = some_hidden(model)
    weights, _ = layer_of(model, 0)
    normed, routing = blocks.route(model.arch, EXACT, weights, hidden)
    assert routing is not None
    assert weights.router is not None
    assert (routing.experts[:, 0] < routing.experts[:, 1]).all()
    shares = torch.softmax(normed @ weights.router.T, -1).gather(1, routing.experts)
    torch.testing.assert_close(routing.weights, shares / shares.sum(-1, keepdim=True))


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_greedy_tokens_alone_are_those_verified_many_at_once(family: str) -> None:
    model, prompt = load(family, "exact", "bfloat16"), tokens(9)
    generated = generate_greedy(model, prompt, 20)
    logits, _ = stepwise(model, prompt + generated, math.floor(len(prompt) / 2), len(prompt) - 4, len(generated))
    assert numerics.argmax(logits[len(prompt) - 1 : -1]).tolist() == generated
