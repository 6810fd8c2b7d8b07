"""Outbound HTTP against real sockets: every way a partner or a network can misbehave is a value."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from hub.contract import CheckStep, Delivered, Exchange, Outcome, Refused, RetryLater, Scope
from hub.http import (
    ANSWER_BYTES,
    WEBHOOK_TABLE,
    Reply,
    Session,
    check_steps,
    exchange,
    open_session,
    outcome_of,
    retry_after,
)
from hub.testing import eventually

NOW = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
#: Long enough that only a broken deadline reaches it, short enough to wait for.
PATIENCE_S = 20.0

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head, await reader.readexactly(length)


class Partner:
    """Speaks raw bytes on a loopback port, as each test tells it."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.script: Script = self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.url = URL()
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, *pieces: bytes, keep: bool = True) -> Script:
        """Answers each request with these bytes; then keeps the connection open, or closes it."""

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                self.requests.append(await read_request(reader))
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if not keep:
                    return

        return script

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the hub has hung up, or the test is over
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def serve(self, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        self.url = URL(f"{'https' if tls else 'http'}://127.0.0.1:{port}/nhan?ma=1")
        return server

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def partner() -> AsyncIterator[Partner]:
    partner = Partner()
    server = await partner.serve()
    yield partner
    await partner.stop(server)


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    session = open_session()
    yield session
    await session.close()


async def post(session: Session, url: URL, deadline_s: float = PATIENCE_S, method: str = "POST") -> Reply:
    return await exchange(session, method, url, headers={"X-A": "b"}, data=b"body", deadline_s=deadline_s)


async def test_an_answer_is_read_whole_and_the_times_are_in_order(partner: Partner, session: Session) -> None:
    reply = await post(session, partner.url)
    assert (reply.status, reply.answer, reply.failure, reply.sent) == (200, b"ok", None, True)
    assert reply.connect_ms is not None
    assert reply.first_byte_ms is not None
    assert 0 <= reply.connect_ms <= reply.first_byte_ms <= reply.total_ms
    head, body = partner.requests[0]
    assert head.startswith(b"POST /nhan?ma=1 HTTP/1.1\r\n")
    assert b"accept-encoding: identity\r\n" in head.lower()
    assert b"x-a: b\r\n" in head.lower()
    assert body == b"body"


async def test_one_connection_serves_many_requests(partner: Partner, session: Session) -> None:
    for _ in range(5):
        assert (await post(session, partner.url)).status == 200
    assert (partner.connections, len(partner.requests)) == (1, 5)


async def test_connections_to_one_partner_are_limited(partner: Partner) -> None:
    async with open_session(limit_per_host=2) as session:
        replies = await asyncio.gather(*[post(session, partner.url) for _ in range(10)])
    assert [reply.status for reply in replies] == [200] * 10
    assert partner.connections == 2


async def test_a_body_in_pieces_is_put_together(partner: Partner, session: Session) -> None:
    partner.script = partner.answer(
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"
    )
    reply = await post(session, partner.url)
    assert (reply.status, reply.answer, reply.failure) == (202, b"abcde", None)
    await post(session, partner.url)
    assert partner.connections == 1


@pytest.mark.parametrize("length", [ANSWER_BYTES - 1, ANSWER_BYTES, ANSWER_BYTES + 1, 4 * ANSWER_BYTES])
async def test_no_more_than_16_kib_of_an_answer_is_kept(partner: Partner, session: Session, length: int) -> None:
    partner.script = partner.answer(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length)
    reply = await post(session, partner.url)
    assert (reply.status, reply.failure) == (500, None)
    assert len(reply.answer) == min(length, ANSWER_BYTES)


async def test_an_endless_answer_is_cut_and_its_status_stands(partner: Partner, session: Session) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    partner.script = endless
    reply = await post(session, partner.url)
    assert (reply.status, reply.failure, len(reply.answer)) == (200, None, ANSWER_BYTES)


async def test_a_redirect_is_an_answer_and_is_not_followed(partner: Partner, session: Session) -> None:
    partner.script = partner.answer(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    reply = await post(session, partner.url)
    assert (reply.status, len(partner.requests)) == (302, 1)
    assert outcome_of(reply, NOW) == RetryLater(reason="http_302", exchange=seen(reply))


async def test_no_cookie_is_kept(partner: Partner, session: Session) -> None:
    partner.script = partner.answer(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    # By name: a cookie jar ignores hosts that are addresses anyway.
    url = partner.url.with_host("localhost")
    await post(session, url)
    await post(session, url)
    assert b"cookie" not in partner.requests[1][0].lower()


async def test_a_compressed_answer_is_not_inflated(partner: Partner, session: Session) -> None:
    partner.script = partner.answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
    assert (await post(session, partner.url)).answer == b"abc"


async def test_no_proxy_is_taken_from_the_environment(
    partner: Partner, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await post(session, partner.url)).status == 200


@pytest.mark.parametrize(
    "header", [{"X-A": "b\r\nX-B: c"}, {"X-A": "b\n"}, {"X-A": "b\rc"}, {"X-A\r\nX-B": "c"}, {"X-A": "\0"}]
)
async def test_no_header_can_begin_another(partner: Partner, session: Session, header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="line end"):
        await exchange(session, "POST", partner.url, headers=header, data=b"", deadline_s=PATIENCE_S)
    assert partner.connections == 0


async def test_the_host_is_named_with_its_port_and_the_hub_names_itself(partner: Partner, session: Session) -> None:
    await post(session, partner.url)
    head = partner.requests[0][0]
    assert f"\r\nHost: 127.0.0.1:{partner.url.port}\r\n".encode() in head
    assert head.count(b"\r\nUser-Agent: UnionHub/") == 1
    assert head.count(b"\r\nContent-Length: 4\r\n") == 1


@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["whole", "half"]
)
async def test_a_second_answer_to_one_request_is_not_taken_for_the_next_ones(
    partner: Partner, session: Session, more: bytes
) -> None:
    answered_twice = asyncio.Event()

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await answered_twice.wait()
        writer.write(more)
        await reader.read()

    partner.script = twice
    assert (await post(session, partner.url)).status == 200
    (kept,) = session.idle()  # what came meanwhile is seen there only
    answered_twice.set()
    await eventually(lambda: kept.protocol.should_close)
    assert not kept.transport.is_closing()
    partner.script = partner.answer(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    assert (await post(session, partner.url)).status == 500


async def test_a_connection_that_nobody_uses_is_closed(
    partner: Partner, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.http_session.KEEPALIVE_S", 0.05)
    assert (await post(session, partner.url)).status == 200
    (kept,) = session.idle()
    await eventually(lambda: kept.transport.is_closing() and not session.idle())
    assert (await post(session, partner.url)).status == 200
    assert partner.connections == 2


async def test_each_request_has_its_own_deadline(partner: Partner, session: Session) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    partner.script = never
    long = asyncio.create_task(post(session, partner.url))
    await eventually(lambda: partner.connections)
    short = await exchange(session, "POST", partner.url, headers={}, data=b"", deadline_s=0.05)
    assert short.failure == "timeout" and not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_an_interim_answer_is_passed_over(partner: Partner, session: Session) -> None:
    partner.script = partner.answer(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await post(session, partner.url)).status == 200


async def test_a_connection_whose_request_was_answered_half_written_is_not_used_again(
    partner: Partner, session: Session
) -> None:
    async def too_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    partner.script = too_early
    large = bytes(32 * 1024 * 1024)
    reply = await exchange(session, "POST", partner.url, headers={}, data=large, deadline_s=PATIENCE_S)
    assert (reply.status, reply.failure) == (413, None)
    partner.script = partner.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await post(session, partner.url)).status == 200
    assert partner.connections == 2


# -- failures --------------------------------------------------------------------------------------


def hang(*pieces: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
        await asyncio.Event().wait()

    return script


def cut(*pieces: bytes, reset: bool = False) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        writer.transport.abort() if reset else writer.close()

    return script


@pytest.mark.parametrize(
    ("script", "failure", "status", "deadline_s"),
    [
        (hang(), "timeout", 0, 0.05),
        (hang(b"HTTP/1.1 200 OK\r\nContent-"), "timeout", 0, 0.05),
        (hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "too_slow", 200, 0.2),
        (cut(), "disconnected", 0, PATIENCE_S),
        (cut(reset=True), "disconnected", 0, PATIENCE_S),
        (cut(b"HTTP/1.1 200 OK\r\nConte"), "disconnected", 0, PATIENCE_S),
        (cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "bad_answer", 200, PATIENCE_S),
        (cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "bad_answer", None, PATIENCE_S),
        (cut(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "bad_answer", 0, PATIENCE_S),
        (cut(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "bad_answer", 0, PATIENCE_S),
    ],
)
async def test_what_fails_after_sending_is_named_and_ambiguous(
    partner: Partner,
    session: Session,
    script: Script,
    failure: str,
    status: int | None,
    deadline_s: float,
) -> None:
    partner.script = script
    reply = await post(session, partner.url, deadline_s)
    assert (reply.failure, reply.sent) == (failure, True)
    assert status is None or reply.status == status
    outcome = outcome_of(reply, NOW)
    assert outcome == RetryLater(reason=failure, ambiguous=True, exchange=seen(reply))


async def test_a_session_survives_every_failure(partner: Partner, session: Session) -> None:
    good = partner.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", keep=False)
    for script in (
        hang(),
        hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        cut(reset=True),
        cut(b"SSH-2.0\r\n\r\n"),
    ):
        partner.script = script
        assert (await post(session, partner.url, 0.1)).failure is not None
        partner.script = good
        assert (await post(session, partner.url)).answer == b"ok"


async def test_a_refused_connection_sent_nothing(session: Session) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reply = await post(session, URL.build(scheme="http", host="127.0.0.1", port=unused.getsockname()[1]))
    assert (reply.failure, reply.sent, reply.connect_ms) == ("connect", False, None)
    assert outcome_of(reply, NOW) == RetryLater(reason="connect", ambiguous=False, exchange=seen(reply))


async def test_a_connection_that_is_never_accepted_sent_nothing(session: Session) -> None:
    with socket.socket() as full:
        # The queue of one is filled by hand; Linux leaves further SYNs without an answer.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        reply = await post(session, URL.build(scheme="http", host="127.0.0.1", port=full.getsockname()[1]), 0.1)
        for each in waiting:
            each.close()
    assert (reply.failure, reply.sent) == ("connect_timeout", False)


@pytest.mark.parametrize("host", ["partner.invalid", "a" * 64 + ".invalid"])
async def test_a_name_that_does_not_exist_is_a_dns_failure(session: Session, host: str) -> None:
    reply = await post(session, URL(f"http://{host}/"))
    assert (reply.failure, reply.sent) == ("dns", False)


async def test_a_url_that_is_none_for_http_is_named(session: Session) -> None:
    assert (await post(session, URL("ftp://127.0.0.1/"))).failure == "url"


async def test_plain_http_where_tls_was_agreed_is_a_tls_failure_and_sends_nothing(
    partner: Partner, session: Session
) -> None:
    async def talks_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    partner.script = talks_at_once
    reply = await post(session, partner.url.with_scheme("https"))
    assert (reply.failure, reply.sent) == ("tls", False)


async def test_cancellation_from_outside_passes_through_and_leaves_no_mark(partner: Partner, session: Session) -> None:
    arrived = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await asyncio.Event().wait()

    partner.script = script
    task = asyncio.create_task(post(session, partner.url))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_deadline_the_task_is_as_uncancelled_as_before(partner: Partner, session: Session) -> None:
    partner.script = hang()
    assert (await post(session, partner.url, 0.2)).failure == "timeout"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.sleep(0)


# -- the guard -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "①②⑦.0.0.1", "127。0。0。1"]
)
async def test_no_spelling_of_a_forbidden_address_is_connected_to(partner: Partner, host: str) -> None:
    try:
        url = URL(f"http://{host}:{partner.url.port}/")
    except ValueError:
        return  # never becomes a request
    async with open_session(allowed=lambda ip: not ip.is_loopback) as session:
        reply = await post(session, url)
    assert reply.failure in ("blocked_address", "url", "dns")
    assert not reply.sent
    assert partner.connections == 0


async def test_a_v4_address_in_v6_clothes_is_judged_as_v4(partner: Partner) -> None:
    asked = []
    async with open_session(allowed=lambda ip: bool(asked.append(ip))) as session:
        reply = await post(session, URL(f"http://[::ffff:127.0.0.1]:{partner.url.port}/"))
    assert reply.failure == "blocked_address"
    assert asked == [ip_address("127.0.0.1")]
    assert partner.connections == 0


async def test_an_allowed_address_is_connected_to(partner: Partner) -> None:
    async with open_session(allowed=lambda ip: ip.is_loopback) as session:
        assert (await post(session, partner.url)).status == 200


# -- outcomes --------------------------------------------------------------------------------------


def seen(reply: Reply) -> Exchange:
    return Exchange(
        status=reply.status or None,
        connect_ms=reply.connect_ms,
        first_byte_ms=reply.first_byte_ms,
        total_ms=reply.total_ms,
        answer=reply.answer,
    )


def reply_of(status: int, **headers: str) -> Reply:
    reply = Reply(0.0, 1.0)
    reply.sent = True
    reply.status = status
    reply.headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply


@pytest.mark.parametrize("status", range(200, 600))
def test_2xx_alone_is_delivered_410_is_gone_and_all_else_is_tried_again(status: int) -> None:
    reply = reply_of(status)
    expected: Outcome
    if status < 300:
        expected = Delivered(exchange=seen(reply))
    elif status == 410:
        expected = Refused(reason="gone", scope=Scope.DESTINATION, exchange=seen(reply))
    else:
        expected = RetryLater(reason=f"http_{status}", exchange=seen(reply))
    assert outcome_of(reply, NOW) == expected


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_whole_destination(status: int) -> None:
    outcome = outcome_of(reply_of(status, Retry_After="120"), NOW)
    assert isinstance(outcome, RetryLater)
    assert (outcome.scope, outcome.after) == (Scope.DESTINATION, timedelta(minutes=2))
    assert not outcome.ambiguous


@pytest.mark.parametrize(("status", "value"), [(500, "120"), (404, "120"), (503, "0"), (429, "soon")])
def test_retry_after_elsewhere_or_without_sense_spends_a_try(status: int, value: str) -> None:
    outcome = outcome_of(reply_of(status, Retry_After=value), NOW)
    assert isinstance(outcome, RetryLater)
    assert (outcome.scope, outcome.after) == (Scope.DELIVERY, None)


def test_a_caller_says_what_a_status_means_to_its_partner() -> None:
    table = {**WEBHOOK_TABLE, 409: lambda x: Delivered(exchange=x), 422: lambda x: Refused(reason="wrong", exchange=x)}
    assert isinstance(outcome_of(reply_of(409), NOW, table), Delivered)
    assert isinstance(outcome_of(reply_of(422), NOW, table), Refused)
    assert isinstance(outcome_of(reply_of(410), NOW, {}), RetryLater)


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("1", timedelta(seconds=1)),
        (" 120 ", timedelta(minutes=2)),
        ("86400", timedelta(hours=24)),
        ("86401", timedelta(hours=24)),
        ("1000000000", timedelta(hours=24)),
        ("9" * 99, timedelta(hours=24)),
        ("Mon, 23 Nov 2026 07:06:09 GMT", timedelta(minutes=1)),
        ("Monday, 23-Nov-26 07:06:09 GMT", timedelta(minutes=1)),
        ("Mon Nov 23 07:06:09 2026", timedelta(minutes=1)),
        ("Tue, 23 Nov 2027 07:06:09 GMT", timedelta(hours=24)),
        ("Mon, 23 Nov 2026 07:05:09 GMT", None),
        ("Mon, 23 Nov 2026 07:04:09 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("0", None), ("-1", None), ("-120", None), ("+5", None), ("1.5", None), ("1e3", None), ("1_000", None),
        ("٣", None), ("", None), ("soon", None), ("9" * 200, None), (None, None), ("120, 30", None), ("NaN", None),
        ("Mon, 99 Nov 2026 99:99:99 GMT", None), ("Mon, 23 Nov 99999 07:06:09 GMT", None),
    ],
)  # fmt: skip
def test_every_form_of_retry_after_has_its_meaning(value: str | None, pause: timedelta | None) -> None:
    assert retry_after(value, NOW) == pause


@given(st.text() | st.text(alphabet="0123456789 ,:-+GMTMonNov", max_size=40))
def test_no_retry_after_raises_or_asks_for_more_than_a_day(value: str) -> None:
    pause = retry_after(value, NOW)
    assert pause is None or timedelta() < pause <= timedelta(hours=24)


# -- check and TLS ---------------------------------------------------------------------------------


def certificate(folder: Path, until: datetime) -> Path:
    """A self-signed certificate for the name localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


Secure = Callable[..., Awaitable[tuple[URL, ssl.SSLContext]]]


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Secure]:
    """Starts a TLS partner; answers its address and a context that trusts it."""
    partner = Partner()
    servers: list[asyncio.Server] = []

    async def start(until: datetime = datetime(2100, 1, 1, tzinfo=UTC)) -> tuple[URL, ssl.SSLContext]:
        pem = certificate(tmp_path, until)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        servers.append(await partner.serve(tls))
        return partner.url.with_host("localhost"), ssl.create_default_context(cafile=str(pem))

    yield start
    for server in servers:
        await partner.stop(server)


async def steps(url: URL, context: ssl.SSLContext | None = None, timeout_s: float = 5.0) -> list[CheckStep]:
    return [step async for step in check_steps(url, ssl_context=context, timeout_s=timeout_s)]


async def test_a_trusted_partner_is_posted_to_over_tls(secure: Secure) -> None:
    url, context = await secure()
    async with open_session(ssl_context=context) as session:
        assert (await post(session, url)).answer == b"ok"


async def test_an_unknown_expired_or_misnamed_certificate_is_a_tls_failure(secure: Secure) -> None:
    url, context = await secure()
    async with open_session() as session:
        assert (await post(session, url)).failure == "tls"
    async with open_session(ssl_context=context) as session:
        assert (await post(session, url.with_host("127.0.0.1"))).failure == "tls"
    url, context = await secure(until=datetime(2021, 1, 1, tzinfo=UTC))
    async with open_session(ssl_context=context) as session:
        reply = await post(session, url)
    assert (reply.failure, reply.sent) == ("tls", False)


async def test_check_tells_dns_tcp_and_tls_apart(secure: Secure, partner: Partner) -> None:
    url, context = await secure()
    assert [(step.step, step.ok) for step in await steps(url, context)] == [("dns", True), ("tcp", True), ("tls", True)]
    assert [(step.step, step.ok) for step in await steps(partner.url)] == [("dns", True), ("tcp", True)]
    refused = (await steps(url))[-1]
    assert (refused.step, refused.ok, refused.detail.split(":")[0]) == ("tls", False, "certificate_refused")
    assert await steps(URL("http://partner.invalid/")) == [CheckStep("dns", False, "host_unknown")]


async def test_check_names_a_refused_port_and_a_handshake_that_never_ends(partner: Partner) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = await steps(URL.build(scheme="http", host="127.0.0.1", port=unused.getsockname()[1]))
    assert found[-1] == CheckStep("tcp", False, "refused")
    partner.script = hang()
    assert (await steps(partner.url.with_scheme("https"), timeout_s=0.1))[-1] == CheckStep("tls", False, "timeout")


async def test_check_asks_the_guard_as_sending_does(partner: Partner) -> None:
    found = [step async for step in check_steps(partner.url, allowed=lambda ip: not ip.is_loopback)]
    assert found[-1] == CheckStep("tcp", False, "blocked_address")
    assert partner.connections == 0


def test_dates_are_compared_in_utc_whatever_zone_now_is_in() -> None:
    vietnam = NOW.astimezone(dt.timezone(timedelta(hours=7)))
    assert retry_after("Mon, 23 Nov 2026 07:06:09 GMT", vietnam) == timedelta(minutes=1)
