"""Conversations: prompts that begin with what was said, token for token, and text as it comes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from executor import demo
from executor.chatformat import REWRITTEN, ChatFormat, Transcript
from executor.checkpoint.checkpoint import open_checkpoint
from executor.detokenizer import TextStream
from executor.service.conversation import Conversation, Manner
from executor.speculation.sampling import Sampling
from executor.tokenizer import Tokenizer, load_tokenizer
from specsim.errors import InputError
from tests.executor import runs
from tests.executor.runs import World
from tests.executor.service_stories import service

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LINES = ["import os", "def main(", "class Foo:", "x = 1", "for i in range("]
LINES += ["return", "if not", "try:", "with", "self."]


@pytest.fixture
def tokenizer() -> Iterator[Tokenizer]:
    """The demo's, with a chat template, which it does not come with."""
    found = load_tokenizer(demo.target_directory())
    assert found is not None
    found.backend.chat_template = CHATML
    return found


@pytest.mark.parametrize(
    ("template", "sampling"),
    [(CHATML, Sampling()), (None, Sampling(0.8, seed=3))],
    ids=["template, greedy", "plain, sampled"],
)
def test_ten_turns_read_what_is_new_and_say_what_reading_all_would(
    tokenizer: Tokenizer, template: str | None, sampling: Sampling
) -> None:
    tokenizer.backend.chat_template = template
    target, draft = (open_checkpoint(path) for path in (demo.target_directory(), demo.draft_directory()))
    made = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        gamma=2,
        batch=1,
        prompt=400,
        output=12,
        world=World(ffn="ram", part_bytes=2**30),
    )
    made = replace(made, case=made.case.on(replace(made.case.machine, ram_budget_bytes=2.0**30)))
    said, turns = [], []
    for keep in (True, False):
        with service(made, target, draft, keep=keep) as serving:
            serving.job.batches.admission.decode = tokenizer.decode
            talk = Conversation(serving, ChatFormat(tokenizer), Manner(sampling, 12), system="from math import *")
            said.append(["".join(talk.say(line)) for line in LINES])
            turns.append(talk.turns)
    assert said[0] == said[1]
    assert [turn.prompt for turn in turns[0]] == [turn.prompt for turn in turns[1]]
    assert [turn.reused for turn in turns[1]] == [0] * 10
    new = [turn.prompt - turn.reused for turn in turns[0][1:]]
    assert max(new) < 40, "a turn's own tokens, and those that the format puts around it"
    assert turns[0][-1].prompt > 5 * max(new)


def test_a_conversation_that_is_too_long_says_so_and_goes_on_after_a_reset(tokenizer: Tokenizer) -> None:
    target = open_checkpoint(demo.target_directory())
    made = runs.plan(target.architecture.model, batch=1, prompt=40, output=8, world=World(ffn="ram", part_bytes=2**30))
    made = replace(made, case=made.case.on(replace(made.case.machine, ram_budget_bytes=2.0**30)))
    with service(made, target) as serving:
        serving.job.batches.admission.decode = tokenizer.decode
        talk = Conversation(serving, ChatFormat(tokenizer), Manner(Sampling(), 8))
        first = "".join(talk.say("import os"))
        with pytest.raises(InputError, match=r"the prompt has \d+ tokens, at most 40 are planned for"):
            "".join(talk.say("import sys, os, re\n" * 5))
        assert len(talk.turns) == 1
        talk.reset()
        assert "".join(talk.say("import os")) == first
        talk.reset()
        stopped = talk.say("import os")
        next(stopped)
        stopped.close()
        assert talk.turns == []


def test_an_answers_tokens_stay_as_they_were_given(tokenizer: Tokenizer) -> None:
    """Letters one by one are not how the tokenizer cuts that text."""
    transcript = Transcript(ChatFormat(tokenizer), [])
    prompt = transcript.ask("hello")
    answer = [tokenizer.encode(letter)[0] for letter in "import"]
    assert answer != tokenizer.encode("import")
    transcript.take("hello", prompt, answer, "import")
    following = transcript.ask("again")
    assert following[: len(prompt) + 6] == (*prompt, *answer)
    assert (
        tokenizer.decode(following)
        == "<user>hello</user>\n<assistant>import</assistant>\n<user>again</user>\n<assistant>"
    )


def test_an_answer_that_was_cut_before_a_stop_string_begins_the_next_prompt_as_far_as_it_was_shown(
    tokenizer: Tokenizer,
) -> None:
    transcript = Transcript(ChatFormat(tokenizer), [])
    prompt = transcript.ask("hello")
    answer = [tokenizer.encode(letter)[0] for letter in "import"]
    transcript.take("hello", prompt, answer, "imp")
    following = transcript.ask("again")
    assert following[: len(prompt) + 4] != (*prompt, *answer[:4])
    assert following[: len(prompt) + 3] == (*prompt, *answer[:3])


def test_an_answer_that_a_template_leaves_out_is_not_sought_token_by_token(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would take the square of its length."""
    decode, decoded = Tokenizer.decode, 0

    def counted(self: Tokenizer, tokens: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return decode(self, tokens)

    transcript = Transcript(ChatFormat(tokenizer), [])
    prompt = transcript.ask("hello")
    answer = [tokenizer.encode("x")[0]] * 4000
    transcript.take("hello", prompt, answer, "not shown")
    monkeypatch.setattr(Tokenizer, "decode", counted)
    following = transcript.ask("again")
    assert following[: len(prompt)] == prompt
    assert "not shown" in decode(tokenizer, following)
    assert decoded <= REWRITTEN * len(answer)


def test_a_template_that_refuses_is_told_in_one_line(tokenizer: Tokenizer) -> None:
    tokenizer.backend.chat_template = "{{ raise_exception('roles must\nalternate') }}"
    with pytest.raises(InputError, match="the chat template refuses the messages: roles must alternate"):
        Transcript(ChatFormat(tokenizer), []).ask("x")


# Text as it comes


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def test_pieces_are_whole_characters_and_hold_back_what_may_be_a_stop_string() -> None:
    stream = TextStream(decode, ["stop", "\n\n"])
    assert [stream.feed([byte]) for byte in "aé".encode()] == ["a", "", "é"]
    assert [stream.feed(piece.encode()) for piece in ("st", "a", "\n", "x", "sto", "p")] == [
        "",
        "sta",
        "",
        "\nx",
        "",
        "",
    ]
    assert stream.feed(b" and more") == ""
    assert stream.finish("aésta\nx") == ""
    assert TextStream(decode, ["stop"]).finish("all") == "all"


def test_pieces_make_up_the_whole_however_it_is_cut() -> None:
    text = "naïve — stsstop\n日本 end"
    data = text.encode()
    for seed in range(20):
        rng = random.Random(seed)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(6))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        stream = TextStream(decode, ["stopp", "\n\n"])
        assert "".join(map(stream.feed, parts)) + stream.finish(text) == text
