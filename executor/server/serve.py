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
    """Asked to end, it takes no more requests, lets those under way end for `drain_s` seconds, and cancels the rest,
    whose clients are told."""

    def __init__(self, app: ASGIApp, service: Service, drain_s: float) -> None:
        patience = round(drain_s) + LAST_WORDS_S
        super().__init__(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=patience))
        self.service, self.drain_s = service, drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(asyncio.to_thread(self.service.close, self.drain_s))
        await super().shutdown(sockets)
        await closing


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
