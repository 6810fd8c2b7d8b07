"""The guard against inside addresses: one judgement for save, test and live, and a canary that nobody reaches."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

from hub.contract import RetryLater
from hub.errors import InputError
from hub.http import exchange, open_session
from plugins.partners.access import checked
from plugins.partners.guard import Guard, Refusal, parse_networks
from plugins.partners.settings import PartnerSettings
from tests.plugins.partners.conftest import Open, event, ship


class Row(NamedTuple):
    host: str
    label: str
    kind: str


LINES = Path(__file__).with_name("addresses.tsv").read_text("utf-8").split("\n")
ROWS = [Row(*line.split("\t")) for line in LINES if line and not line.startswith("#")]
CLOSED = Guard()


def judged(url: str) -> str:
    return "refused" if isinstance(CLOSED.look(url), Refusal) else "open"


def has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2] or host.endswith(("]]", "[::1"))


def expanded() -> list[tuple[str, str]]:
    """10,000 addresses made of the table's hosts, with their labels; the same ones in every run."""
    schemes, ports = ("https://", "HTTPS://", "hTTps://"), ("", ":443", ":8443", ":65535")
    paths = (
        "",
        "/",
        "/hook",
        "/a/../b",
        "/x?u=http://10.0.0.1/",
        "/%2e%2e/",
        "/đường",
        "?q=@127.0.0.1",
        "//127.0.0.1/",
    )
    made = [
        (f"{scheme}{row.host}{port}{path}", row.label)
        for row in ROWS
        for scheme, port, path in itertools.product(schemes, ports, paths)
        if not (port and has_port(row.host))
    ]
    return random.Random(5).sample(made, 10_000)


def test_the_table_is_large_and_names_each_host_once() -> None:
    assert len(ROWS) == len({row.host for row in ROWS}) >= 300
    assert {row.label for row in ROWS} == {"open", "refused"}
    assert len({row.kind for row in ROWS}) > 50


@pytest.mark.parametrize("kind", sorted({row.kind for row in ROWS}))
def test_every_host_of_a_class_is_judged_as_labelled(kind: str) -> None:
    wrong = [r.host for r in ROWS if r.kind == kind and judged(f"https://{r.host}/hook") != r.label]
    assert not wrong


def test_ten_thousand_addresses_are_judged_right_and_the_same_wherever_they_are_asked() -> None:
    wrong, differs = [], []
    for url, label in expanded():
        if judged(url) != label:
            wrong.append(url)
        try:
            PartnerSettings.model_validate({"url": url, "secret": {"env": "S"}})
            saved = "open"
        except ValidationError:
            saved = "refused"
        if saved != label:
            differs.append(url)
    assert not wrong
    assert not differs


@given(st.text(max_size=60))
def test_no_text_at_all_makes_the_guard_raise(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/hook", f"https://[{text}]/"):
        CLOSED.look(url)


@given(st.ip_addresses())
def test_a_literal_is_judged_alike_as_text_and_as_an_address(address: object) -> None:
    text = str(address)
    url = f"https://[{text}]/" if ":" in text else f"https://{text}/"
    looked = CLOSED.look(url)
    if isinstance(looked, Refusal) and looked.code == "url_spelling":  # mapped: written as what it is, it may be open
        assert "ffff" in text.lower()
        return
    assert isinstance(looked, URL) == CLOSED.allows(ip_address(text))


def test_only_the_network_that_is_listed_is_opened() -> None:
    guard = Guard(parse_networks(["10.1.0.0/16", "fd00:1::/32", "64:ff9b::/96"]))
    for host in ("10.1.0.1", "10.1.255.254", "[fd00:1::5]", "[64:ff9b::808:808]", "8.8.8.8"):
        assert isinstance(guard.look(f"https://{host}/"), URL), host
    for host in ("10.0.0.1", "10.2.0.1", "127.0.0.1", "localhost", "[fd00:2::5]", "[::ffff:10.1.0.1]", "10.1.1"):
        assert isinstance(guard.look(f"https://{host}/"), Refusal), host


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "0.0.0.0/0", "::/0", "10", "a", "10.0.0.0/7", "300.0.0.0/8"])
def test_a_network_that_is_none_or_opens_everything_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=" / "):
        parse_networks([text])


def test_http_has_to_be_allowed_beyond_this_machine() -> None:
    listed = parse_networks(["127.0.0.0/8"])
    refusal = CLOSED.look("http://nhan.example.vn/")
    assert isinstance(refusal, Refusal) and refusal.code == "url_plain"
    assert isinstance(Guard(listed).look("http://127.0.0.1:9/"), URL)
    assert isinstance(Guard(allow_http=True).look("http://nhan.example.vn/"), URL)
    assert isinstance(Guard(allow_http=True).look("http://10.0.0.1/"), Refusal)


@pytest.mark.parametrize(
    ("numbers", "taken"),
    [
        (["10.0.0.1"], False), (["127.0.0.1", "::1"], False), (["fe80::1%eth0"], False), (["::ffff:10.0.0.1"], False),
        (["64:ff9b::a00:1"], False), ([], False), (["8.8.8.8"], True), (["10.0.0.1", "8.8.8.8"], True),
    ],
)  # fmt: skip
async def test_a_name_is_saved_only_if_a_number_of_it_is_allowed(numbers: list[str], taken: bool) -> None:
    async def look_up(url: URL) -> list[str]:
        assert url.raw_host == "nhan.example.vn"
        return numbers

    try:
        assert str(await checked(CLOSED, "https://nhan.example.vn/hook", look_up)) == "https://nhan.example.vn/hook"
    except InputError as refused:
        assert not taken
        assert (refused.problem, refused.http_status) == ("url-not-public", 422)
    else:
        assert taken


async def test_a_name_that_nobody_knows_yet_is_saved_and_judged_when_it_is_connected_to() -> None:
    async def look_up(url: URL) -> list[str]:
        raise socket.gaierror

    assert isinstance(await checked(CLOSED, "https://nhan.example.vn/hook", look_up), URL)


# -- the canary --------------------------------------------------------------------------------------


class Listener:
    """Counts connections; answers each request with ``answer``."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") -> None:
        self.answer = answer
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
            self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def listening(listener: Listener, host: str) -> AsyncIterator[Listener]:
    server = await asyncio.start_server(listener._serve, host, 0)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


class Resolver(AbstractResolver):
    """Answers every name with these addresses, one answer after the other and the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        address = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None: ...


async def test_no_spelling_and_no_name_reaches_the_canary_even_past_the_first_look() -> None:
    asked = 0
    async with listening(Listener(), "127.0.0.1") as canary:
        for row in ROWS:
            if row.label == "open" or has_port(row.host):
                continue
            try:
                url = URL(f"http://{row.host}:{canary.port}/")
            except ValueError:
                continue  # never becomes a request
            async with open_session(allowed=CLOSED.allows, resolver=Resolver("127.0.0.1")) as session:
                try:
                    reply = await exchange(session, "POST", url, headers={}, data=b"x", deadline_s=5)
                except (ValueError, AssertionError):
                    continue
            asked += 1
            assert not reply.sent or row.kind in ("user info", "backslash"), row
        assert asked > 200
        assert canary.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_to_the_canary(open_partner: Open, status: int) -> None:
    async with listening(Listener(), "127.0.0.1") as canary:
        to = b"HTTP/1.1 %d Moved\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % (status, canary.port)
        async with listening(Listener(to), "127.0.0.2") as partner:
            connection = open_partner(f"http://127.0.0.2:{partner.port}/hook", allow_networks=["127.0.0.2/32"])
            outcome = await ship(connection, event())
        assert isinstance(outcome, RetryLater) and outcome.reason == f"http_{status}"
        assert (partner.connections, canary.connections) == (1, 0)


async def test_a_name_that_turns_inward_between_two_tries_is_not_followed() -> None:
    guard = Guard(tuple(ip_network(each) for each in ("127.0.0.2/32",)), allow_http=True)
    resolver = Resolver("127.0.0.2", "127.0.0.1")
    async with listening(Listener(), "127.0.0.2") as partner:
        url = guard.look(f"http://nhan.example.vn:{partner.port}/hook")
        assert isinstance(url, URL)
        try:
            canary = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", partner.port)
        except OSError:
            pytest.fail("the partner's port is taken on 127.0.0.1")
        failures = []
        async with canary:
            for _ in range(2):
                async with open_session(allowed=guard.allows, resolver=resolver) as session:
                    failures.append((await exchange(session, "POST", url, headers={}, data=b"", deadline_s=5)).failure)
    assert failures == [None, "blocked_address"]
    assert b"\r\nHost: nhan.example.vn:" in partner.heads[0]


async def test_an_address_that_is_closed_later_is_not_sent_to(open_partner: Open) -> None:
    async with listening(Listener(), "127.0.0.1") as canary:
        connection = open_partner(f"http://127.0.0.1:{canary.port}/hook")
        sink = connection.sink
        object.__setattr__(sink._book, "guard", CLOSED)  # type: ignore[union-attr]
        outcome = await ship(connection, event())
        assert isinstance(outcome, RetryLater) and outcome.reason == "blocked_address"
        assert canary.connections == 0
