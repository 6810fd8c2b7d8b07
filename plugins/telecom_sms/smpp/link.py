"""Keeps one bind up: connects, logs in, notices the end, waits a little longer each time and starts again."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from . import pdu
from .session import Answer, OnDeliver, Session, Timing, connect

#: command_status of a bind that no repetition will cure: wrong password, wrong system id (section 5.1.3).
LOGIN_REFUSED: Final = frozenset({0x0E, 0x0F})
_BACKOFF_FIRST_S: Final = 0.25
_BACKOFF_MOST_S: Final = 30.0
#: A carrier locks the account of one who hammers at it with a wrong password.
_LOGIN_BACKOFF_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom to bind."""

    host: str
    port: int
    system_id: str
    #: Asked at every bind, so that a changed secret is used without a restart.
    password: Callable[[], str] = field(repr=False)
    system_type: str = ""
    #: transceiver | transmitter | receiver
    mode: str = "transceiver"
    tls: Callable[[], ssl.SSLContext] | None = None
    server_name: str | None = None
    timing: Timing = field(default_factory=Timing)


class LoginRefused(Exception):
    """The peer answered the bind with an error; ``status`` is its command_status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"bind answered with command_status 0x{status:08X}")
        self.status = status


async def open_bound(endpoint: Endpoint, on_deliver: OnDeliver) -> Session:
    """Raises ``OSError``, ``TimeoutError`` (no connection, or no answer to the bind) or ``LoginRefused``."""
    session = await connect(
        endpoint.host,
        endpoint.port,
        endpoint.timing,
        on_deliver,
        tls=endpoint.tls() if endpoint.tls else None,
        server_name=endpoint.server_name,
    )
    bound = False
    try:
        reply = await session.bind(endpoint.mode, endpoint.system_id, endpoint.password(), endpoint.system_type)
        if not isinstance(reply, Answer):
            raise TimeoutError("the bind was not answered")
        if reply.status != pdu.ESME_ROK:
            raise LoginRefused(reply.status)
        bound = True
        return session
    finally:
        if not bound:
            await session.close(0)


class Link:
    """The bind of one owner. ``session`` is the live one or None."""

    def __init__(self, endpoint: Endpoint, on_deliver: OnDeliver) -> None:
        self.endpoint = endpoint
        self.session: Session | None = None
        #: command_status of the last refused bind; None once a bind worked or nobody answered.
        self.refused_status: int | None = None
        self._on_deliver = on_deliver
        self._bound = asyncio.Event()

    @property
    def login_refused(self) -> bool:
        return self.refused_status in LOGIN_REFUSED

    async def run(self, on_up: Callable[[], Awaitable[None]], on_down: Callable[[str], Awaitable[None]]) -> None:
        """For ever. Cancelling leaves the session as it is: ``close`` is what unbinds.

        ``on_up`` and ``on_down(reason)`` are called when something changed, not once per try.
        """
        failures, told = 0, ""
        while True:
            try:
                if self.session is None or self.session.closed.is_set():
                    self.session = await open_bound(self.endpoint, self._on_deliver)
                self.refused_status = None
                failures, told = 0, ""
                self._bound.set()
                await on_up()
                await self.session.closed.wait()
                reason = self.session.close_reason
                self.session = None
            except LoginRefused as refused:
                self.refused_status = refused.status
                reason = f"bind_status_0x{refused.status:08x}"
            except ssl.SSLError:
                reason = "tls_failed"
            except TimeoutError:
                reason = "no_answer"
            except OSError:
                reason = "no_connection"
            if reason != told:
                told = reason
                await on_down(reason)
            await asyncio.sleep(self._pause_s(failures))
            failures += 1

    def _pause_s(self, failures: int) -> float:
        longest = (
            _LOGIN_BACKOFF_S if self.login_refused else min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2 ** min(failures, 10))
        )
        # Jitter, so that many hubs do not knock in step after a carrier's restart.
        return longest * random.uniform(0.5, 1.0)

    async def bound(self, timeout_s: float) -> Session | None:
        """A session that can be used now or within ``timeout_s``."""
        if self.session is not None and self.session.usable:
            return self.session
        if timeout_s <= 0:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                while self.session is None or not self.session.usable:
                    self._bound.clear()
                    await self._bound.wait()
        except TimeoutError:
            return None
        return self.session

    async def close(self, grace_s: float = 0.3) -> None:
        session, self.session = self.session, None
        self._bound.clear()
        if session is not None:
            await session.close(grace_s)
