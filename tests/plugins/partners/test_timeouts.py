"""A partner's silence, told apart by where it begins: name, connection, TLS, first byte, body."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hub.http import Reply, Session, exchange, open_session
from tests.unit.test_http import certificate

#: So short that the tests are quick; what they assert is where the silence was, never for how long.
DEADLINE_S = 0.25


class SilentResolver(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None: ...


async def post(url: str, resolver: AbstractResolver | None = None) -> Reply:
    async with open_session(resolver=resolver) as session:
        return await exchange(session, "POST", URL(url), headers={}, data=b"x", deadline_s=DEADLINE_S)


@asynccontextmanager
async def partner(answer: bytes | None) -> AsyncIterator[int]:
    """Takes connections; reads on and answers this once, or nothing at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            if answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            while await reader.read(1000):
                pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_name_that_nobody_answers() -> None:
    reply = await post("https://nhan.example.vn/", SilentResolver())
    assert (reply.failure, reply.sent, reply.connect_ms) == ("dns_timeout", False, None)


async def test_a_machine_that_takes_no_connection() -> None:
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (one, two):  # its queue is full now: the next one gets no answer
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        reply = await post(f"http://127.0.0.1:{full.getsockname()[1]}/")
    assert (reply.failure, reply.sent) == ("connect_timeout", False)


async def test_a_server_that_never_shakes_hands() -> None:
    async with partner(None) as port:
        reply = await post(f"https://127.0.0.1:{port}/")
    assert (reply.failure, reply.sent) == ("tls_timeout", False)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "timeout"),
        (b"HTTP/1.1 200 OK\r\n", "timeout"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "too_slow"),
    ],
)
async def test_a_server_that_stops_talking(answer: bytes, failure: str) -> None:
    async with partner(answer) as port:
        reply = await post(f"http://127.0.0.1:{port}/")
    assert (reply.failure, reply.sent) == (failure, True)


async def test_no_connection_is_remembered_once_it_is_made_or_given_up() -> None:
    async with partner(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port, open_session() as session:
        for url in (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", "http://127.0.0.1:1/"):
            await exchange(session, "POST", URL(url), headers={}, data=b"x", deadline_s=DEADLINE_S)
        assert not session.connector._making


class OneAddress(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0),
        ]

    async def close(self) -> None: ...


async def test_a_new_connection_tells_what_name_and_handshake_took_and_a_kept_one_tells_neither(
    tmp_path: Path,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def told(session: Session, url: str) -> tuple[bool, bool]:
        reply = await exchange(session, "POST", URL(url), headers={}, data=b"x", deadline_s=20)
        assert reply.failure is None and reply.connect_ms is not None
        assert (reply.dns_ms or 0) + (reply.tls_ms or 0) <= reply.connect_ms
        return reply.dns_ms is not None, reply.tls_ms is not None

    pem = certificate(tmp_path, datetime(2100, 1, 1, tzinfo=UTC))
    own, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(pem))
    own.load_cert_chain(pem)
    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    secured = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own)
    async with plain, secured, open_session(resolver=OneAddress(), ssl_context=trusting) as session:
        http, https = (each.sockets[0].getsockname()[1] for each in (plain, secured))
        assert await told(session, f"http://127.0.0.1:{http}/") == (False, False), "a number is looked up nowhere"
        assert await told(session, f"http://localhost:{http}/") == (True, False)
        assert await told(session, f"https://localhost:{https}/") == (True, True)
        assert await told(session, f"https://localhost:{https}/") == (False, False), "this one was kept"
        assert not session.connector._making
