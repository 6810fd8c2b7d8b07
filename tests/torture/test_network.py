"""A hub on lines that are slow, cut, deaf or dead: each ends as what is known of it, and none takes from another."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from yarl import URL

from benchmarks.torture import victim
from benchmarks.torture.partner import Partner
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.http import exchange, open_session
from hub.model import Draft
from hub.testing import eventually, running_hub
from tests.flow.conftest import check_books, states
from tests.torture.faulty_line import FaultyLine, Mode, faulty_line

DEADLINE_S = 0.6


class Dice(random.Random):
    """A partner that never refuses."""

    def random(self) -> float:
        return 0.5


@dataclass
class Net:
    hub: HubApp
    line: FaultyLine
    partner: Partner

    async def emit(self, count: int = 1, start: int = 0) -> None:
        drafts = [
            Draft(type=victim.THING, source="/t", dedupe_key=str(n), data={"id": str(n), "n": n, "key": None})
            for n in range(start, start + count)
        ]
        await self.hub.commit(UnitOfWork(drafts=drafts))

    async def reach(self, name: str, *expected: str) -> None:
        async def there() -> bool:
            return sorted(await states(self.hub, name)) == sorted(expected)

        try:
            await eventually(there, 20)
        except AssertionError:
            assert sorted(await states(self.hub, name)) == sorted(expected)

    def arrivals(self, name: str) -> int:
        return sum(len(tries) for (connection, _), tries in self.partner.tries.items() if connection == name)


@asynccontextmanager
async def net(folder: Path) -> AsyncIterator[Net]:
    """``safe`` and ``unsafe`` speak over the line; all is well again a moment later, if a try asks again."""
    async with Partner(Dice()) as partner, faulty_line(int(partner.address.rpartition(":")[2])) as line:
        known = victim.registry(f"http://127.0.0.1:{line.port}")
        settings = victim.settings("")
        settings["worker"] = {"attempt_deadline_s": DEADLINE_S, "stop_within_s": 1}
        settings["retry"] = {"schedule_s": [0.1] * 50}
        async with running_hub(
            folder,
            known,
            connections={"safe": {}, "unsafe": {}},
            subscriptions=[{"name": n, "types": [victim.THING], "to": n} for n in ("safe", "unsafe")],
            settings=settings,
        ) as hub:
            yield Net(hub, line, partner)
            await check_books(hub.store)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Net]:
    async with net(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("mode", "amount"), [("latency", 0.05), ("slicer", 0), ("bandwidth", 20_000), ("slow_close", 0.2)]
)
async def test_a_line_that_is_only_slow_delivers_once(there: Net, mode: Mode, amount: float) -> None:
    there.line.mode, there.line.amount = mode, amount
    await there.emit(3)
    await there.reach("safe", *["delivered"] * 3)
    await there.reach("unsafe", *["delivered"] * 3)
    assert there.arrivals("safe") == there.arrivals("unsafe") == 3


@pytest.mark.parametrize(
    ("mode", "amount", "reason"),
    [
        ("timeout", 0, "timeout"),
        ("reset", 0, "disconnected"),
        ("limit_data", 10, "disconnected"),
        ("bandwidth", 20, "timeout"),
        ("never", 0, "timeout"),
    ],
)
async def test_a_line_that_swallows_the_answer_leaves_the_unsafe_unknown_and_the_safe_repeated(
    there: Net, mode: Mode, amount: float, reason: str
) -> None:
    there.line.mode, there.line.amount = mode, amount
    await there.emit()
    await there.reach("unsafe", f"unknown({reason})")
    before = there.arrivals("unsafe")
    there.line.mode = "good"
    there.line.cut()
    await there.reach("safe", "delivered")
    [body] = {each.body for (name, _), tries in there.partner.tries.items() for each in tries if name == "safe"}
    assert body, "the same bytes each time"
    assert there.arrivals("unsafe") == before <= 1
    assert await states(there.hub, "unsafe") == [f"unknown({reason})"]


async def test_a_line_that_is_down_and_comes_back_delivers_once_where_nothing_had_left(there: Net) -> None:
    port, server = there.line.there, there.line
    server.there = 1  # nobody listens behind the line
    server.mode = "down"
    await there.emit(3)
    await eventually(lambda: server.connections >= 6)
    server.mode, server.there = "good", port
    await there.reach("safe", *["delivered"] * 3)
    assert set(await states(there.hub, "unsafe")) <= {"delivered", "unknown(disconnected)"}
    assert there.arrivals("unsafe") == (await states(there.hub, "unsafe")).count("delivered")


async def test_a_destination_that_never_closes_takes_its_own_slots_and_nobody_elses(tmp_path: Path) -> None:
    """More is owed to it than it has slots; the other one is served in full meanwhile."""
    async with Partner(Dice()) as partner, faulty_line(int(partner.address.rpartition(":")[2])) as line:
        line.mode = "never"
        good, deaf = victim.registry(partner.address), victim.registry(f"http://127.0.0.1:{line.port}")
        types = {"safe": good.connector_types["safe"], "unsafe": deaf.connector_types["unsafe"]}
        known = replace(good, connector_types=types)
        settings = victim.settings("")
        settings["worker"] = {"attempt_deadline_s": 60, "stop_within_s": 0.5}
        async with running_hub(
            tmp_path, known, connections={"safe": {}, "unsafe": {}}, settings=settings,
            subscriptions=[{"name": n, "types": [victim.THING], "to": n} for n in ("safe", "unsafe")],
        ) as hub:  # fmt: skip
            made = Net(hub, line, partner)
            await made.emit(200)
            await made.reach("safe", *["delivered"] * 200)
            assert line.connections == victim.CONCURRENCY
            under_way = (await states(hub, "unsafe")).count("sending")
            assert under_way == victim.CONCURRENCY


async def test_names_connections_and_certificates_that_fail_are_told_apart() -> None:
    async with Partner(Dice()) as partner, open_session() as session:
        port = partner.address.rpartition(":")[2]

        async def failure(url: str) -> str | None:
            reply = await exchange(session, "POST", URL(url), headers={}, data=b"", deadline_s=10)
            assert not reply.sent, "nothing may be ambiguous before the first byte"
            return reply.failure

        assert await failure("http://no-such-host.invalid/") == "dns"
        assert await failure(f"https://127.0.0.1:{port}/") == "tls"
        assert await failure("http://127.0.0.1:1/") == "connect"
