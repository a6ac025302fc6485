"""A request ends at its first end, whatever chunks its tokens come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from executor.detokenizer import Decode
from executor.requests import Generation, Request
from executor.speculation.verify import verify_greedy
from specsim.errors import InputError

PROMPT, EOS = (50, 51), 99


def request(max_new_tokens: int = 100, stop: Sequence[str] = (), eos: Sequence[int] = (EOS,)) -> Request:
    return Request(0, "r", PROMPT, max_new_tokens, tuple(stop), frozenset(eos))


def pieces(*vocabulary: bytes) -> Decode:
    """The decoder of a byte-level tokenizer: tokens are pieces of UTF-8, cut anywhere."""
    return lambda tokens: b"".join(vocabulary[token] for token in tokens).decode(errors="replace")


def ended(generation: Generation) -> tuple[list[int], str | None]:
    return generation.output_ids, generation.finish_reason


def test_tokens_are_committed_until_the_request_ends() -> None:
    generation = Generation(request(max_new_tokens=5))
    assert (generation.take([7, 8]), generation.remaining, generation.finish_reason) == (2, 3, None)
    assert (generation.take([9]), generation.remaining, generation.finish_reason) == (1, 2, None)
    assert (generation.take([]), generation.tokens) == (0, [50, 51, 7, 8, 9])
    assert (generation.take([5, 6, 7]), generation.remaining) == (2, 0)
    assert ended(generation) == ([7, 8, 9, 5, 6], "length")
    assert generation.take([1]) == 0
    assert ended(generation) == ([7, 8, 9, 5, 6], "length")


@pytest.mark.parametrize(
    ("choices", "proposed", "committed"),
    [
        pytest.param([7, EOS, 9, 9], [7, EOS, 9], [7, EOS], id="accepted in the middle of a chunk"),
        pytest.param([7, 8, 9, EOS], [7, 8, 9], [7, 8, 9, EOS], id="the bonus token"),
        pytest.param([7, EOS, 9, 9], [7, 8, 9], [7, EOS], id="the target's token after a rejection"),
        pytest.param([EOS], [], [EOS], id="the only token"),
    ],
)
def test_an_end_token_ends_the_output_and_is_part_of_it(
    choices: list[int], proposed: list[int], committed: list[int]
) -> None:
    generation = Generation(request())
    assert generation.take(verify_greedy(choices, proposed).tokens) == len(committed)
    assert (ended(generation), generation.remaining) == ((committed, "eos"), 0)


def test_an_end_token_in_the_prompt_and_one_that_is_only_proposed_end_nothing() -> None:
    generation = Generation(Request(0, "r", (EOS, 5), 9, eos=frozenset({EOS})))
    generation.take(verify_greedy([7, 8], [EOS]).tokens)
    assert ended(generation) == ([7], None)


def test_each_of_several_end_tokens_ends_the_output() -> None:
    for last in (3, 4):
        generation = Generation(request(eos=(3, 4)))
        assert generation.take([9, last, 9]) == 2


def test_an_end_token_at_the_limit_counts_as_the_end() -> None:
    generation = Generation(request(max_new_tokens=2))
    generation.take([7, EOS])
    assert ended(generation) == ([7, EOS], "eos")


def test_the_text_leaves_out_the_end_token_but_not_the_last_of_a_full_output() -> None:
    decode = pieces(b"a", b"b", b"</s>")
    full, over = Generation(request(max_new_tokens=2), decode), Generation(request(eos=[2]), decode)
    full.take([0, 1])
    over.take([0, 1, 2])
    assert (full.text, over.text) == ("ab", "ab")
    assert Generation(request(), decode).text == ""
    assert Generation(request()).text is None


def test_a_stop_string_across_tokens_cuts_the_text_and_keeps_its_tokens() -> None:
    generation = Generation(request(stop=["END"]), pieces(b"one ", b"two E", b"ND and more", b"N"))
    assert generation.take([0, 1, 3, 1]) == 4
    assert (generation.finish_reason, generation.text) == (None, "one two ENtwo E")
    assert generation.take([2, 0, 0]) == 1
    assert (*ended(generation), generation.text) == ([0, 1, 3, 1, 2], "stop", "one two ENtwo ")


def test_the_earliest_of_several_stop_strings_of_a_token_cuts_the_text() -> None:
    generation = Generation(request(stop=["c", "bcd", "zz"]), pieces(b"a", b"bcd"))
    assert (generation.take([0, 1, 1]), generation.text) == (2, "a")


def test_a_stop_string_at_the_limit_counts_as_the_end() -> None:
    generation = Generation(request(max_new_tokens=1, stop=["b"]), pieces(b"ab"))
    generation.take([0])
    assert (generation.finish_reason, generation.text) == ("stop", "a")


def test_a_stop_string_of_bytes_of_several_tokens_is_found_at_its_last_byte() -> None:
    first, second, third = "€".encode()[:1], "€".encode()[1:2], "€".encode()[2:]
    generation = Generation(request(stop=["€"]), pieces(first, b"x" + first, second, third + b"!"))
    assert generation.take([1, 2]) == 2
    assert generation.finish_reason is None
    assert (generation.take([3, 3]), generation.finish_reason, generation.text) == (1, "stop", "x")


def test_a_stop_string_is_found_before_the_character_after_it_is_whole() -> None:
    generation = Generation(request(stop=["\n"]), pieces(b"a", b"\n" + "€".encode()[:1], "€".encode()[1:]))
    assert (generation.take([0, 1, 2]), generation.text) == (2, "a")


def test_a_character_that_is_not_whole_is_no_stop_string() -> None:
    generation = Generation(request(stop=["\ufffd"]), pieces("€".encode()[:2], "€".encode()[2:], b"\xff", b"."))
    assert (generation.take([0, 1]), generation.finish_reason) == (2, None)
    assert (generation.take([2, 3]), generation.text) == (2, "€")  # no character can come of this byte


def test_a_stop_string_in_the_prompt_stops_nothing() -> None:
    generation = Generation(Request(0, "r", (0,), 9, stop=("ab",)), pieces(b"a", b"b"))
    assert (generation.take([1, 0]), generation.finish_reason) == (2, None)


def test_an_end_token_that_spells_a_stop_string_is_an_end_token() -> None:
    generation = Generation(request(stop=["</s>"], eos=[1]), pieces(b"a", b"</s>"))
    generation.take([0, 1])
    assert (generation.finish_reason, generation.text) == ("eos", "a")


BYTE_LEVEL = (b"a", b"b", b" ", b"", b"\n", *("€“".encode()[n : n + 1] for n in range(6)), b"a" + "€".encode()[:2])
LLAMA = ("▁", "▁a", "a", "b", "\n", "", "<0xE2>", "<0x82>", "<0xAC>")
llama = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


@pytest.mark.parametrize(
    ("size", "decode"),
    [
        pytest.param(len(BYTE_LEVEL), pieces(*BYTE_LEVEL), id="byte level"),
        pytest.param(len(LLAMA), lambda tokens: llama.decode([LLAMA[t] for t in tokens]), id="byte fallback"),
    ],
)
def test_stop_strings_are_found_where_decoding_all_over_again_finds_them(
    size: int, decode: Callable[[Sequence[int]], str]
) -> None:
    def whole(tokens: Sequence[int]) -> str:
        return decode(tokens).rstrip("\ufffd")

    @given(
        tokens=st.lists(st.integers(0, size - 1), min_size=1, max_size=30),
        stop=st.lists(st.text("ab \n€", min_size=1, max_size=3), min_size=1, max_size=2),
        chunk=st.integers(1, 7),
    )
    def check(tokens: list[int], stop: list[str], chunk: int) -> None:
        generation = Generation(request(stop=stop, eos=()), decode)
        taken = sum(generation.take(tokens[first : first + chunk]) for first in range(0, len(tokens), chunk))
        ends = (n for n in range(1, len(tokens) + 1) if any(s in whole(tokens[:n]) for s in stop))
        end = next(ends, None)
        assert (taken, generation.finish_reason) == ((len(tokens), None) if end is None else (end, "stop"))
        if end is not None:
            text = whole(tokens[:end])
            assert generation.text == text[: min(text.find(s) for s in stop if s in text)]

    check()


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"prompt": ()}, "request 'r': the prompt has no tokens; give at least one"),
        ({"max_new_tokens": 0}, "request 'r': max_new_tokens is 0; ask for at least 1"),
        ({"stop": ("a", "")}, "request 'r': a stop string is empty"),
    ],
)
def test_a_request_that_asks_for_nothing_is_refused(wanted: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Request(**({"index": 0, "id": "r", "prompt": PROMPT, "max_new_tokens": 1} | wanted))  # type: ignore[arg-type]


def test_stop_strings_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(InputError, match="request 'r': cannot look for the stop string 'x'; stop strings need"):
        Generation(request(stop=["x"]))
