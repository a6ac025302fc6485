"""Jobs of real checkpoints: sampling that keeps the distribution, ends of requests, places that are taken again."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from executor.admission import Admission
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.decoder.cache import Segment, SequenceCache, alone
from executor.decoder.numerics import EXACT, FAST
from executor.decoder.resident import generate_greedy, load_resident
from executor.floor import Floor
from executor.memory import Ledger
from executor.requests import Request
from executor.sequence import Sequence
from executor.speculation.sampling import Sampling, distribution, draw
from executor.tasks import draft as draft_tasks
from specsim.decision import StrategyName
from tests.executor import checkpoints, runs
from tests.executor.runs import World

WARM = Sampling(temperature=1.5, seed=11)
#: two runs of chance in ten thousand; the seeds are fixed, so a run is always the same
UNLIKELY = 1e-4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


@pytest.fixture(scope="module")
def dice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """A pair with a vocabulary of 5 tokens."""
    folder = tmp_path_factory.mktemp("dice")
    small = {"vocab_size": 5, "eos_token_id": None, "bos_token_id": None}
    target = checkpoints.make("mixtral", folder / "target", seed=4, **small)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=5, **small))


# Sampling


def enumerated(target: Checkpoint, prompt: list[int], length: int, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """The probability of every output of `length` tokens, by the target alone."""
    model = load_resident(target, FAST)
    chances = {(): 1.0}
    for _ in range(length):
        chances = {
            (*said, token): p * float(q)
            for said, p in chances.items()
            for token, q in enumerate(next_token(model.forward, target, [*prompt, *said], sampling))
            if q > 0
        }
    return chances


def next_token(forward: Callable[..., Tensor], of: Checkpoint, tokens: list[int], sampling: Sampling) -> list[float]:
    cache = alone(of.architecture, len(tokens))
    logits = forward(torch.tensor(tokens), [Segment(0, len(tokens), 0)], [cache], torch.tensor([len(tokens) - 1]))
    return [float(p) for p in distribution(logits, sampling)[0]]


def p_value(outputs: list[list[int]], chances: dict[tuple[int, ...], float]) -> float:
    """Of a chi-square test; outputs expected fewer than five times are counted together."""
    seen = Counter(tuple(output) for output in outputs)
    assert set(seen) <= set(chances), "an output that the target never gives"
    common = [output for output, p in chances.items() if p * len(outputs) >= 5]
    observed = [seen[output] for output in common]
    expected = [chances[output] * len(outputs) for output in common]
    observed.append(len(outputs) - sum(observed))
    expected.append(len(outputs) - sum(expected))
    if expected[-1] < 5:
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    return float(stats.chisquare(observed, expected).pvalue)


def sampled(dice: tuple[Checkpoint, Checkpoint], sampling: Sampling, gamma: int, count: int = 1500) -> list[list[int]]:
    target, draft = dice
    requests = [Request(i, str(i), (1, 3, 4), 3) for i in range(count)]
    made = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        gamma=gamma,
        batch=count,
        prompt=3,
        output=3,
        world=World(ffn="ram", part_bytes=2**30),
    )
    outputs, _ = runs.execute(made, target, requests, draft=draft, numerics=FAST, sampling=sampling)
    return outputs


@pytest.mark.parametrize("gamma", [1, 2])
@pytest.mark.parametrize("sampling", [WARM, Sampling(2.0, top_k=3, seed=5), Sampling(2.0, top_p=0.8, seed=6)], ids=str)
def test_sampling_keeps_the_targets_joint_distribution(
    dice: tuple[Checkpoint, Checkpoint], sampling: Sampling, gamma: int
) -> None:
    chances = enumerated(dice[0], [1, 3, 4], 3, sampling)
    assert sum(chances.values()) == pytest.approx(1.0, abs=1e-5)
    assert p_value(sampled(dice, sampling, gamma), chances) > UNLIKELY


def test_a_draft_that_lies_about_its_distribution_is_caught_by_that_test(
    dice: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: tokens are drawn from one distribution, another one is declared."""
    monkeypatch.setattr(draft_tasks, "draw", lambda p, u: draw(p.flip(-1), u))
    chances = enumerated(dice[0], [1, 3, 4], 3, WARM)
    assert p_value(sampled(dice, WARM, 2), chances) < 1e-12


def test_sampled_tokens_do_not_depend_on_batch_or_schedule(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, draft = pair
    requests = runs.prompts(4, 6, 96, longest=20, new=12)
    outputs = [
        runs.execute(
            runs.plan(
                target.architecture.model,
                draft=draft.architecture.model,
                gamma=3,
                strategy=strategy,  # type: ignore[arg-type]
                batch=batch,
                refill=refill,
            ),
            target,
            requests,
            draft=draft,
            sampling=WARM,
        )[0]
        for strategy, batch, refill in [
            ("serial", 6, False),
            ("serial", 1, False),
            ("merged", 2, True),
            ("interleaved", 3, False),
        ]
    ]
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3]
    assert (
        outputs[0]
        != runs.execute(
            runs.plan(target.architecture.model, gamma=0, batch=6), target, requests, sampling=replace(WARM, seed=12)
        )[0]
    )


@pytest.mark.parametrize("gamma", [0, 3])
def test_requests_that_share_a_batch_are_sampled_each_in_its_own_way(
    pair: tuple[Checkpoint, Checkpoint], gamma: int
) -> None:
    """Greedy beside warm, and with filters: what each gets alone, and by its key and seed only."""
    target, draft = pair
    ways = [Sampling(), WARM, Sampling(1.2, top_k=5, seed=3), Sampling(0.8, top_p=0.9, seed=3), WARM]
    prompt = runs.prompts(5, 1, 96, shortest=9, new=12)[0]
    requests = [
        replace(prompt, index=i, id=str(i), sampling=sampling, key=7 if sampling is WARM else None)
        for i, sampling in enumerate(ways)
    ]

    def run(some: list[Request]) -> list[list[int]]:
        drafting = draft if gamma else None
        made = runs.plan(
            target.architecture.model, draft=drafting and drafting.architecture.model, gamma=gamma, batch=5
        )
        return runs.execute(made, target, some, draft=drafting)[0]

    together = run(requests)
    assert together == [output for request in requests for output in run([request])]
    assert together[1] == together[4] != together[0]
    assert together[0] == greedy(target, prompt.prompt, 12)


# Ends of requests


def greedy(target: Checkpoint, prompt: tuple[int, ...], new: int) -> list[int]:
    return generate_greedy(load_resident(target, EXACT), list(prompt), new)


@pytest.mark.parametrize("place", range(1, 8))
def test_an_end_token_ends_a_request_wherever_in_a_round_it_comes(
    pair: tuple[Checkpoint, Checkpoint], place: int
) -> None:
    """The draft is the target, so rounds of gamma 3 emit four tokens each: prompts' first token, then 1-4, 5-8. The
    end token is put at every place: amid accepted ones, and at the bonus token."""
    target, _ = pair
    prompt = (5, 9, 17, 30)
    whole = greedy(target, prompt, 12)
    first = next(i for i, token in enumerate(whole) if i >= place and token not in whole[:i])
    request = Request(0, "0", prompt, 12, eos=frozenset({whole[first]}))
    made = runs.plan(target.architecture.model, draft=target.architecture.model, gamma=3)
    outputs, job = runs.execute(made, target, [request], draft=target)
    assert outputs == [whole[: first + 1]]
    assert job.batches.useful_tokens == first + 1


def test_stop_strings_end_a_request_in_mid_round(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, _ = pair
    prompt = (5, 9, 17, 30)
    whole = greedy(target, prompt, 12)
    letters = [chr(33 + token) for token in range(96)]
    stop = letters[whole[4]] + letters[whole[5]]
    request = Request(0, "0", prompt, 12, stop=(stop,))
    made = runs.plan(target.architecture.model, draft=target.architecture.model, gamma=3)
    outputs, _ = runs.execute(
        made, target, [request], draft=target, decode=lambda ids: "".join(letters[i] for i in ids)
    )
    assert outputs == [whole[:6]]


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize("gamma", [0, 4])
def test_every_request_has_its_own_number_of_tokens_and_none_is_counted_twice(
    pair: tuple[Checkpoint, Checkpoint], gamma: int, refill: bool
) -> None:
    target, draft = pair
    requests = [replace(r, max_new_tokens=1 + 3 * r.index) for r in runs.prompts(6, 7, 96, longest=30)]
    made = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        gamma=gamma,
        batch=2,
        strategy="merged",
        refill=refill,
    )
    outputs, job = runs.execute(made, target, requests, draft=draft if gamma else None)
    assert outputs == [greedy(target, r.prompt, r.max_new_tokens) for r in requests]
    assert job.batches.useful_tokens == sum(map(len, outputs))
    assert job.batches.served == len(requests)


def test_with_refill_a_freed_place_is_taken_in_the_next_round(pair: tuple[Checkpoint, Checkpoint]) -> None:
    """Two places, three requests of 2, 6 and 2 tokens: the third comes in when the first is done."""
    target, _ = pair
    requests = [Request(i, str(i), (7 + i, 8, 9), new) for i, new in enumerate((2, 6, 2))]
    model = target.architecture.model
    waves = {}
    for refill in (False, True):
        _, job = runs.execute(runs.plan(model, batch=2, refill=refill), target, requests)
        waves[refill] = [(wave.lengths, [(s.rows, s.joining) for s in wave.shapes.values()]) for wave in job.waves]
    # Prefill gives the first token; then rounds of (sequences, tokens of newcomers' prompts).
    assert waves[False] == [([3, 3], [(2, 0), (1, 0), (1, 0), (1, 0), (1, 0)]), ([3], [(1, 0)])]
    assert waves[True] == [([3, 3], [(2, 0), (1, 3), (2, 0), (1, 0), (1, 0)])]


@pytest.mark.parametrize("strategy", ["serial", "merged", "interleaved"])
def test_places_that_are_free_before_the_first_round_are_taken_too(
    pair: tuple[Checkpoint, Checkpoint], strategy: StrategyName
) -> None:
    """Every request ends with its prefill, or in its first pass."""
    target, _ = pair
    requests = [Request(i, str(i), (7 + i, 8, 9), 1) for i in range(9)]
    made = runs.plan(target.architecture.model, batch=1, strategy=strategy, refill=True)
    outputs, job = runs.execute(made, target, requests)
    assert outputs == [greedy(target, r.prompt, 1) for r in requests]
    assert (job.batches.served, job.batches.done) == (9, 9)


def test_caches_of_requests_that_have_ended_are_let_go(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, draft = pair
    alive: list[weakref.ref[SequenceCache]] = []
    most = 0
    admit = Admission.admit

    def count(admission: Admission, request: Request) -> Sequence:
        nonlocal most
        sequence = admit(admission, request)
        alive.append(weakref.ref(sequence.cache))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return sequence

    requests = [Request(i, str(i), (7 + i, 8, 9), 3) for i in range(10)]
    made = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=1, batch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "admit", count)
        runs.execute(made, target, requests, draft=draft)
    assert most == 2


def test_a_wave_is_prefilled_without_the_drafts_caches_of_the_one_before(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, draft = pair
    held: list[int] = []
    enter = Ledger.enter

    def watch(ledger: Ledger, phase: str) -> None:
        if phase == "prefill" and ledger.phase != phase:
            held.append(ledger.items.get(("ram", "draft kv"), 0))
        enter(ledger, phase)

    requests = [Request(i, str(i), (7 + i, 8, 9), 4) for i in range(6)]
    made = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=1, batch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "enter", watch)
        runs.execute(made, target, requests, draft=draft)
    assert held == [0, 0, 0]


# Caches


@pytest.mark.parametrize("gamma", [0, 1, 5])
def test_caches_after_rollback_are_those_of_a_fresh_prefill(pair: tuple[Checkpoint, Checkpoint], gamma: int) -> None:
    target, draft = pair
    checked = 0
    close_pass = Floor.close_pass

    def compare(floor: Floor, name: object, p: object) -> None:
        nonlocal checked
        close_pass(floor, name, p)  # type: ignore[arg-type]
        for sequence in itertools.chain.from_iterable(floor.batches.active.values()):
            same_as_fresh(sequence, target, sequence.cache)
            checked += 1
            if sequence.draft_cache is not None and sequence.draft_cache.length:
                same_as_fresh(sequence, draft, sequence.draft_cache)

    made = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=gamma, batch=3)
    requests = runs.prompts(8, 3, 96, longest=40, new=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Floor, "close_pass", compare)
        runs.execute(made, target, requests, draft=draft if gamma else None)
    assert checked > 5


def same_as_fresh(sequence: Sequence, of: Checkpoint, cache: SequenceCache) -> None:
    tokens = sequence.tokens[: cache.length]
    fresh = alone(of.architecture, len(tokens))
    load_resident(of, EXACT).forward(torch.tensor(tokens), [Segment(0, len(tokens), 0)], [fresh], torch.tensor([0]))
    for kept, new in zip(cache.arena.layers, fresh.arena.layers, strict=True):
        assert torch.equal(kept[:, :, cache.places[: len(tokens)]], new)


# Bytes


def test_the_link_moves_exactly_the_bytes_of_the_plan(pair: tuple[Checkpoint, Checkpoint]) -> None:
    """Everything pinned: each pass streams all units once, and each pass's rows go up once."""
    target, _ = pair
    model = target.architecture.model
    requests = [Request(i, str(i), (3, 4, 5), 4) for i in range(2)]
    made = runs.plan(model, world=World(gpu=True, attention="pinned", ffn="pinned"), batch=2)
    _, job = runs.execute(made, target, requests)
    streamed = model.weight_bytes - 2 * model.embedding_parameters * 4 - model.hidden * 4
    passes = 1 + 3
    loads = [s for s in job.engine.timeline().spans if s.stream == "h2d" and s.bytes]
    assert sum(s.bytes for s in loads if not s.name.startswith(f"verify.{passes - 1}")) == passes * streamed
    assert job.engine.moved["h2d.act"] == (2 * 3 + 3 * 2) * model.hidden * 4
    ahead = {s.name for s in loads if s.name.startswith(f"verify.{passes - 1}")}
    assert len(ahead) <= made.decision.policy.ring_slots, "what was fetched for a round that nobody needed"


def test_only_the_experts_that_are_asked_for_are_fetched(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, _ = pair
    model = target.architecture.model
    expert = model.expert_parameters(model.ffn) * 4
    made = runs.plan(model, batch=1, expert_fetch="routed")
    _, job = runs.execute(made, target, [Request(0, "0", (3,), 5)])
    reads = [s.bytes for s in job.engine.timeline().spans if "/load_ffn" in s.name and s.name.startswith("verify")]
    used = [b for b in reads if b]
    assert set(used) == {expert}, "one token asks for two of four experts, each a part of its own"
    assert len(used) == 4 * model.layers * 2
