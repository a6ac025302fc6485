"""From a service to a listening server, until a signal asks it to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from executor.service.service import Service
from specsim.errors import InputError

#: and then clients have so long to hear that they were cancelled
LAST_WORDS_S: Final = 5
#: between looks for a second signal
TICK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Address:
    """Port 0 is one that is free."""

    host: str
    port: int

    def listen(self) -> socket.socket:
        """Raises InputError where that cannot be."""
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family, backlog=2048)
        except OSError as error:
            what = f"cannot listen: {error.strerror}"
            raise InputError(what, where=f"{self.host}:{self.port}", hint="choose another --host or --port") from None


class Listener(uvicorn.Server):
    """Asked to end, it takes no more requests, lets those under way end for `drain_s` seconds, or until a SIGINT comes
    then, and cancels the rest, whose clients are told. So long it listens, for all who come to hear that it closes."""

    def __init__(self, app: ASGIApp, service: Service, drain_s: float) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_WORDS_S)
        )
        self.service, self.drain_s = service, drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(asyncio.to_thread(self.service.close, self.drain_s))
        while not closing.done() and not self.force_exit:
            await asyncio.wait([closing], timeout=TICK_S)
        await asyncio.to_thread(self.service.close, 0.0)
        await closing
        await super().shutdown(sockets)


def run(server: Listener, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; both end it in good order, so both are a success."""
    before = {number: signal.signal(number, _nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: object) -> None:
    """uvicorn has its own handlers while it runs, and raises the signal again once it has ended."""
