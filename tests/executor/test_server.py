"""OpenAI's own client, many of them at once, and strangers that send anything: over HTTP, on the demo pair."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from executor import demo
from executor.chatformat import ChatFormat
from executor.checkpoint.checkpoint import open_checkpoint
from executor.decoder.numerics import EXACT
from executor.decoder.resident import generate_greedy, load_resident
from executor.opening import open_models
from executor.options import Setting
from executor.ranks.stage import stage_of
from executor.server import app as server
from executor.server.app import Server
from executor.server.bodies import NEUTRAL
from executor.server.monitor import Monitor
from executor.server.serve import Address, Listener
from executor.service.opening import open_service
from executor.service.service import Service
from executor.tasks import table
from executor.tokenizer import load_tokenizer
from specsim.answer import Plan
from specsim.errors import InputError
from tests.executor import runs
from tests.executor.runs import World

PROMPT = "import os\n\n\ndef main("
NAME = "target"
PATIENCE_S = 20.0


class Site:
    """A server that listens, and its service."""

    def __init__(self, service: Service, url: str) -> None:
        self.service, self.url = service, url
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)
        self.http = httpx.Client(base_url=url, timeout=PATIENCE_S)

    def free(self) -> bool:
        """Whether no request has a place, as soon as that is so."""
        until = time.monotonic() + PATIENCE_S
        while self.service.free_positions < self.service.job.batches.admission.places and time.monotonic() < until:
            time.sleep(0.01)
        return self.service.free_positions == self.service.job.batches.admission.places


def made() -> Plan:
    folders = demo.target_directory(), demo.draft_directory()
    target, draft = (open_checkpoint(folder).architecture.model for folder in folders)
    world = World(ffn="ram", part_bytes=2**30)
    plan = runs.plan(target, draft=draft, gamma=2, batch=8, prompt=120, output=32, refill=True, world=world)
    return replace(plan, case=replace(plan.case, machine=replace(plan.case.machine, ram_budget_bytes=2.0**30)))


@contextmanager
def site(queue: int = 64, drain_s: float = 5.0) -> Iterator[Site]:
    plan = made()
    opened = open_models(plan, Setting(demo.target_directory(), demo.draft_directory()), stage_of(plan, None))
    assert opened.tokenizer is not None
    with Address("127.0.0.1", 0).listen() as listening, open_service(opened, queue) as service:
        arch = opened.target.architecture
        formatting = ChatFormat(opened.tokenizer)
        app = Server(service, formatting, NAME, arch.eos, arch.model.vocab, Monitor(service), 4096).app()
        serving = Listener(app, service, drain_s)
        thread = threading.Thread(target=serving.run, args=([listening],))
        thread.start()
        try:
            yield Site(service, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            serving.should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def at() -> Iterator[Site]:
    with site() as serving:
        yield serving


def test_a_completion_is_the_targets_own_greedy_text(at: Site) -> None:
    done = at.openai.completions.create(model=NAME, prompt=PROMPT, max_tokens=12, temperature=0)
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (8, 12)
    tokenizer = load_tokenizer(demo.target_directory())
    assert tokenizer is not None
    plain = generate_greedy(load_resident(demo.target_directory(), EXACT), tokenizer.encode(PROMPT), 12)
    assert done.choices[0].text == tokenizer.decode(plain)


def test_pieces_of_a_stream_make_up_the_whole_text(at: Site) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 24, "temperature": 0.8, "seed": 5}
    whole = at.openai.completions.create(**asked)
    pieces = list(at.openai.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces[:-1]) == whole.choices[0].text
    assert len(pieces) > 6
    assert pieces[-2].choices[0].finish_reason == "length"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == 24
    assert at.openai.completions.create(**asked | {"seed": 6}).choices[0].text != whole.choices[0].text


def test_chat_completions_whole_and_streamed(at: Site) -> None:
    messages: list[Any] = [{"role": "system", "content": "x = 1"}, {"role": "user", "content": "import os"}]
    asked: dict[str, Any] = {"model": NAME, "messages": messages, "max_completion_tokens": 10, "temperature": 0}
    whole = at.openai.chat.completions.create(**asked)
    assert whole.choices[0].message.role == "assistant"
    pieces = list(at.openai.chat.completions.create(**asked, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    follow: list[Any] = [
        *messages,
        whole.choices[0].message,  # as the client's own examples do
        {"role": "user", "content": [{"type": "text", "text": "and again"}]},
    ]
    again = at.openai.chat.completions.create(**asked | {"messages": follow})
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) >= 16, "the conversation was cached"


def test_an_answer_may_come_back_with_all_its_empty_fields(at: Site) -> None:
    empty = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    said = [{"role": "assistant", "content": None, **empty}, {"role": "user", "content": "x"}]
    asked = {"model": NAME, "messages": said, "max_tokens": 2}
    assert at.http.post("/v1/chat/completions", json=asked).status_code == 200
    for message in ({**said[0], "refusal": "no"}, {**said[0], "tool_calls": [{}]}, {"role": "user", "content": None}):
        refused = at.http.post("/v1/chat/completions", json={**asked, "messages": [message]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


def test_fields_that_ask_for_nothing_are_taken(at: Site) -> None:
    null = dict.fromkeys([*NEUTRAL, "stream", "stream_options", "temperature", "seed", "stop", "user"])
    nothing = {"parallel_tool_calls": True, "service_tier": "auto", "metadata": {}, "functions": [], "n": 1}
    plain = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    of_completions = ("best_of", "echo", "suffix")
    for more in ({f: v for f, v in null.items() if f not in of_completions}, nothing):
        answer = at.http.post("/v1/chat/completions", json={**plain, **more})
        assert answer.status_code == 200, answer.text
    effort = at.http.post("/v1/chat/completions", json={**plain, "reasoning_effort": "high"})
    assert effort.json()["error"]["param"] == "reasoning_effort"


def begun(at: Site, body: bytes = b'{"model"') -> socket.socket:
    """A client that has sent the beginning of a request."""
    client = socket.create_connection(("127.0.0.1", at.http.base_url.port or 0), PATIENCE_S)
    client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + body)
    return client


def test_a_client_that_goes_away_while_it_sends_is_no_failure(at: Site) -> None:
    def counted(status: int) -> bool:
        return f'path="/v1/completions",status="{status}"' in at.http.get("/metrics").text

    with begun(at):
        at.http.get("/health")  # by then the server has taken the other's beginning
    until = time.monotonic() + PATIENCE_S
    while not counted(499) and time.monotonic() < until:
        time.sleep(0.01)
    assert counted(499)
    assert not counted(500)


def test_a_request_that_does_not_arrive_is_given_up(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.0)
    with begun(at) as client:
        told = client.makefile("rb").read().decode()
    assert told.startswith("HTTP/1.1 408 ")
    assert "the request did not arrive within 0 seconds" in told


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(at: Site) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    whole = at.openai.completions.create(**asked).choices[0].text
    stop = whole[9:12]
    done = at.openai.completions.create(**asked, stop=[stop]).choices[0]
    assert (done.text, done.finish_reason) == (whole[: whole.index(stop)], "stop")
    pieces = list(at.openai.completions.create(**asked, stop=stop, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == done.text
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_models_health_and_metrics(at: Site) -> None:
    assert [model.id for model in at.openai.models.list()] == [NAME]
    assert at.openai.models.retrieve(NAME).owned_by == "specsim"
    assert at.http.get("/health").json() == {"status": "ok"}
    text = at.http.get("/metrics").text
    families = text_string_to_metric_families(text)
    samples = {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}
    assert samples["specsim_free_positions"] > 0
    assert samples["specsim_in_flight"] == 0


GOOD: dict[str, Any] = {"model": NAME, "prompt": "x", "max_tokens": 2}


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({**GOOD, "model": "gpt-4"}, 404, "model", "model_not_found"),
        ({**GOOD, "n": 2}, 400, "n", "unsupported_value"),
        ({**GOOD, "logprobs": 3}, 400, "logprobs", "unsupported_value"),
        ({**GOOD, "logprobs": 0}, 400, "logprobs", "unsupported_value"),
        ({**GOOD, "stream_options": {"include_obfuscation": True}}, 400, "stream_options", None),
        ({**GOOD, "best_of": 4}, 400, "best_of", "unsupported_value"),
        ({**GOOD, "frobnicate": 1}, 400, "frobnicate", None),
        ({**GOOD, "temperature": "hot"}, 400, "temperature", None),
        ({**GOOD, "temperature": -1}, 400, "temperature", None),
        ({**GOOD, "top_p": 1.5}, 400, "top_p", None),
        ({**GOOD, "stop": ""}, 400, "stop", None),
        ({**GOOD, "stop": list("abcde")}, 400, "stop", None),
        ({**GOOD, "stop": ["end", "x" * 257]}, 400, "stop", None),
        ({**GOOD, "max_tokens": 0}, 400, "max_tokens", None),
        ({**GOOD, "prompt": ""}, 400, "prompt", None),
        ({**GOOD, "prompt": ["a", "b"]}, 400, "prompt", "unsupported_value"),
        ({**GOOD, "prompt": [99_999]}, 400, "prompt", None),
        ({**GOOD, "prompt": "x = 1\n" * 100}, 400, None, "context_length_exceeded"),
        ({**GOOD, "max_tokens": 9999}, 400, None, "context_length_exceeded"),
        ({"prompt": "x"}, 400, "model", None),
        ({"model": NAME}, 400, "prompt", None),
        ([], 400, None, None),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    at: Site, body: Any, status: int, param: str | None, code: str | None
) -> None:
    answer = at.http.post("/v1/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["type"] == "invalid_request_error"


def test_what_is_no_request_at_all(at: Site) -> None:
    assert at.http.post("/v1/completions", content=b"{").status_code == 400
    assert at.http.post("/v1/completions", content=b"\xff" * 20).status_code == 400
    assert at.http.post("/v1/completions", content=b"[" * 4000).status_code == 400
    assert at.http.post("/v1/completions", content=b'{"model": "target", "prompt": "\\ud800"}').status_code == 400
    assert at.http.post("/v1/completions", content=b"x" * 5000).status_code == 413
    refused = at.http.get("/v1/completions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert at.http.get("/nowhere").json()["error"]["message"] == "GET /nowhere: Not Found"
    assert at.http.post("/v1/chat/completions", json={"model": NAME, "messages": []}).status_code == 400
    stranger = {"model": NAME, "messages": [{"role": "stranger", "content": "x"}]}
    assert at.http.post("/v1/chat/completions", json=stranger).json()["error"]["param"] == "messages"


def test_sixty_four_clients_of_which_a_third_go_away(at: Site) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> str:
        body = {"model": NAME, "prompt": PROMPT, "max_tokens": 24, "temperature": 0, "stream": number % 2 == 0}
        if number % 3:
            answer = await client.post("/v1/completions", json=body)
            assert answer.status_code == 200
            return "served"
        async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line:
                    return "gone"
        raise AssertionError("a stream without a line")

    async def all_of_them() -> list[str]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=at.url, timeout=PATIENCE_S, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(64)))

    before = dict(at.service.counts.ends)
    outcomes = asyncio.run(all_of_them())
    assert (outcomes.count("served"), outcomes.count("gone")) == (42, 22)
    assert at.free()
    ends = {reason: count - before.get(reason, 0) for reason, count in at.service.counts.ends.items()}
    assert sum(ends.values()) == 64
    assert ends["length"] >= 42
    assert ends["cancelled"] > 0


def test_a_client_that_goes_away_before_its_whole_answer_is_cancelled(at: Site) -> None:
    before = at.service.counts.ends.get("cancelled", 0)
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": 100, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        at.http.post("/v1/completions", json=body, timeout=httpx.Timeout(PATIENCE_S, read=0.05))
    assert at.free()
    until = time.monotonic() + PATIENCE_S
    while at.service.counts.ends.get("cancelled", 0) == before and time.monotonic() < until:
        time.sleep(0.01)
    assert at.service.counts.ends["cancelled"] == before + 1


def test_a_full_line_is_told_when_to_come_again_and_closing_cancels() -> None:
    with site(queue=0) as small:
        asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 100, "stream": True}
        streams = [small.openai.completions.create(**asked, seed=i) for i in range(8)]
        refused = small.http.post("/v1/completions", json=GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        slow = begun(small)
        small.service.close(0.0)
        with slow:
            assert b" 503 " in slow.recv(100)
        assert small.http.get("/health").status_code == 503
        assert small.http.post("/v1/completions", json=GOOD).status_code == 503
        for stream in streams:
            with pytest.raises(openai.APIError, match="the service is closing"):
                list(stream)
    assert small.service.free_positions == small.service.job.batches.admission.places


def test_what_failed_is_told_to_those_who_come_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise InputError("the disk is gone")

    with site() as failing:
        monkeypatch.setitem(table.TARGET, "ffn", fail)
        answers = [failing.http.post("/v1/completions", json=GOOD) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [500, 503]
        assert all("the disk is gone" in answer.json()["error"]["message"] for answer in answers)
        assert failing.http.get("/health").json() == {"status": "failed", "error": "the disk is gone"}
