"""The routes: models, completions, chat completions, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from secrets import randbits
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from executor.chatformat import ChatFormat
from executor.detokenizer import TextStream
from executor.requests import Generation
from executor.requests import Request as Asked
from executor.server.bodies import B, Body, ChatBody, CompletionBody, read
from executor.server.errors import ApiError, tell, tell_http, tell_nobody
from executor.server.monitor import Monitor
from executor.server.replies import CHAT, COMPLETION, DONE, Answer, Style, event
from executor.service.service import BusyError, ClosedError, Ended, Service, Ticket
from executor.speculation.sampling import Sampling
from specsim.errors import InputError

#: OpenAI's, where a request does not say
TEMPERATURE: Final = 1.0
#: as many as OpenAI takes: each is looked for at every token
MOST_STOPS: Final = 4
#: characters
MOST_STOP_LENGTH: Final = 256
#: draws are keyed by a request's seed and the position alone: the same request gets the same tokens
KEY: Final = 0
#: seconds that a client has to send its request, and between looks whether the service closes
BODY_S: Final = 30.0
TICK_S: Final = 0.2
#: when a client that was refused may come again, in seconds
RETRY_AFTER_S: Final = 1
#: what is heard of a client that has gone
_GONE: Final = None

Events = asyncio.Queue["tuple[int, ...] | Ended | None"]


@dataclass(frozen=True, slots=True)
class Server:
    """`name` is the model's, `body_bytes` the most that a request may have."""

    service: Service
    format: ChatFormat
    name: str
    eos: frozenset[int]
    vocab: int
    monitor: Monitor
    body_bytes: int

    def app(self) -> ASGIApp:
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        handlers = {ApiError: tell, HTTPException: tell_http, ClientDisconnect: tell_nobody}
        return _counted(Starlette(routes=routes, exception_handlers=handlers), self.monitor)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        self._check_name(request.path_params["name"])
        return JSONResponse(self._card())

    async def health(self, request: Request) -> Response:
        if self.service.open:
            return JSONResponse({"status": "ok"})
        if (error := self.service.error) is not None:
            return JSONResponse({"status": "failed", "error": str(error)}, 503)
        return JSONResponse({"status": "closing"}, 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.monitor.text(), media_type="text/plain; version=0.0.4")

    async def completions(self, request: Request) -> Response:
        body = await self._read(request, CompletionBody)
        self._check_name(body.model)
        prompt = await run_in_threadpool(self._prompt, body.prompt)
        return await self._serve(request, COMPLETION, body, prompt, body.max_tokens, ())

    async def chat(self, request: Request) -> Response:
        body = await self._read(request, ChatBody)
        self._check_name(body.model)
        if not body.messages:
            raise ApiError(400, "there are no messages", param="messages")
        messages = [message.plain for message in body.messages]
        most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        try:
            prompt = await run_in_threadpool(lambda: self.format.encode(self.format.render(messages)))
        except InputError as error:
            raise ApiError(400, str(error), param="messages") from None
        return await self._serve(request, CHAT, body, prompt, most, self.format.stop)

    async def _read(self, request: Request, kind: type[B]) -> B:
        """What a client sends, for as long as it may take and the service is open."""
        reading = asyncio.create_task(read(request, kind, self.body_bytes))
        until = time.monotonic() + BODY_S
        try:
            while not (await asyncio.wait([reading], timeout=TICK_S))[0]:
                if not self.service.open:
                    raise self._closed()
                if time.monotonic() > until:
                    raise ApiError(408, f"the request did not arrive within {BODY_S:g} seconds")
            return reading.result()
        finally:
            reading.cancel()

    def _closed(self) -> ApiError:
        """What a client is told that comes too late."""
        if (error := self.service.error) is not None:
            return ApiError(503, f"the service has failed: {error}", code="failed")
        return ApiError(503, "the service is closing", code="closing")

    def _card(self) -> dict[str, object]:
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "specsim"}

    def _check_name(self, name: str) -> None:
        if name != self.name:
            what = f"the model {name!r} does not exist; there is {self.name!r}"
            raise ApiError(404, what, param="model", code="model_not_found")

    def _prompt(self, given: str | list[int | str]) -> list[int]:
        """A text, a list of one, or token ids."""
        match given:
            case str(text) | [str(text)]:
                return self.format.tokenizer.encode(text)
        ids = [token for token in given if isinstance(token, int)]
        if len(ids) < len(given):
            raise ApiError(400, f"{len(given)} prompts; give one", param="prompt", code="unsupported_value")
        if any(not 0 <= token < self.vocab for token in ids):
            raise ApiError(400, f"token ids are 0 to {self.vocab - 1}", param="prompt")
        return ids

    async def _serve(
        self, request: Request, style: Style, body: Body, prompt: list[int], most: int | None, stop: tuple[str, ...]
    ) -> Response:
        began = time.perf_counter()
        events: Events = asyncio.Queue()
        ticket = self._ask(body, prompt, most, (*body.stops, *stop), events, began)
        answer = Answer(style, self.name)
        cancel = partial(self.service.cancel, ticket)
        if body.stream:
            return _Stream(self._pieces(answer, body, ticket, events, began), cancel)
        watch = asyncio.create_task(_watch(request.receive, events))
        try:
            while isinstance(heard := await events.get(), tuple):
                pass  # the whole answer is wanted
        finally:
            watch.cancel()
            cancel()
        if heard is _GONE:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.whole(self._ended(heard, began)))

    def _ask(
        self, body: Body, prompt: list[int], most: int | None, stop: tuple[str, ...], events: Events, began: float
    ) -> Ticket:
        loop = asyncio.get_running_loop()
        first = True

        def hear(heard: tuple[int, ...] | Ended) -> None:
            nonlocal first
            if first and isinstance(heard, tuple):
                self.monitor.first_token_s.observe(time.perf_counter() - began)
                first = False
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(events.put_nowait, heard)

        temperature = TEMPERATURE if body.temperature is None else body.temperature
        limits, planned = self.service.limits, self.service.job.plan.case.workload.output_tokens
        new = max(1, min(planned, limits.context - len(prompt))) if most is None else most
        if len(body.stops) > MOST_STOPS:
            raise ApiError(400, f"{len(body.stops)} stop strings; give {MOST_STOPS} at most", param="stop")
        if (longest := max(map(len, body.stops), default=0)) > MOST_STOP_LENGTH:
            what = f"a stop string of {longest} characters; give {MOST_STOP_LENGTH} at most"
            raise ApiError(400, what, param="stop")
        if new < 1:
            raise ApiError(400, f"max_tokens is {new}; ask for 1 or more", param="max_tokens")
        try:
            seed = randbits(64) if body.seed is None else body.seed % 2**64
            sampling = Sampling(temperature, None, body.top_p, seed)
            asked = partial(Asked, prompt=tuple(prompt), max_new_tokens=new, stop=stop, eos=self.eos, key=KEY)
            asked(0, "")  # what is wrong with the request itself, before it counts
        except InputError as error:
            raise ApiError(400, error.what, param=next((w for w in _FIELDS if w in error.what), None)) from None
        try:
            return self.service.ask(lambda index: asked(index, str(index), sampling=sampling), hear)
        except InputError as error:
            raise ApiError(400, str(error), param=None, code="context_length_exceeded") from None
        except BusyError as error:
            raise ApiError(429, str(error), code="queue_full", retry_after_s=RETRY_AFTER_S) from None
        except ClosedError:
            raise self._closed() from None

    async def _pieces(
        self, answer: Answer, body: Body, ticket: Ticket, events: Events, began: float
    ) -> AsyncIterator[bytes]:
        stream = TextStream(self.format.tokenizer.decode, ticket.request.stop)
        if first := answer.begin():
            yield first
        while isinstance(heard := await events.get(), tuple):
            if text := stream.feed(token for token in heard if token not in self.eos):
                yield answer.piece(text)
        assert heard is not _GONE, "only whole answers are watched"
        try:
            generation = self._ended(heard, began)
        except ApiError as error:
            yield event(error.body)
            return
        if text := stream.finish(generation.text or ""):
            yield answer.piece(text)
        yield answer.end(generation, counted=body.usage)
        yield DONE

    def _ended(self, heard: Ended, began: float) -> Generation:
        """Raises ApiError where the request was not served to its end."""
        if heard.error is not None:
            raise ApiError(500, str(heard.error), code="failed")
        assert heard.generation is not None, "a service that did not fail has one"
        if heard.generation.finish_reason == "cancelled":
            raise self._closed()
        self.monitor.seconds.observe(time.perf_counter() - began)
        return heard.generation


#: fields whose name is in what is said of them
_FIELDS: Final = ("temperature", "top_p", "seed", "stop", "prompt")


class _Stream(StreamingResponse):
    """Server-sent events. `close` is called however it ends, as when the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(pieces, headers={"Cache-Control": "no-cache"})
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()


async def _watch(receive: Receive, events: Events) -> None:
    """Say when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    events.put_nowait(_GONE)


def _counted(app: Starlette, monitor: Monitor) -> ASGIApp:
    """The same, its responses counted."""
    known = {getattr(route, "path", "") for route in app.routes}

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in known else "other"
                monitor.responses.labels(path, str(message["status"])).inc()
            await send(message)

        await app(scope, receive, sending)

    return counting
