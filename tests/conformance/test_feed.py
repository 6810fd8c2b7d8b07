"""Feed positions: whoever reads on from the last one he saw misses nothing and sees nothing go back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import asyncpg
import pytest

from hub.errors import Busy
from hub.model import new_id
from hub.store.base import Store, Unit
from hub.testing import StandingClock
from tests.conformance.conftest import Factory
from tests.conformance.several import Node, several
from tests.conformance.test_several_writers import Race
from tests.ledger import Desk, check_books, fact

NEXT = "SELECT position, id FROM event WHERE position > ? ORDER BY position LIMIT 25"
WRITERS = 8


class Reader:
    """Reads on from the last position seen, page by page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen: list[tuple[int, bytes]] = []

    async def read_on(self) -> int:
        page = await self._store.read(NEXT, (self.seen[-1][0] if self.seen else 0,))
        self.seen += [(position, id) for position, id in page]
        return len(page)

    async def read_until(self, count: int) -> None:
        while len(self.seen) < count:
            if not await self.read_on():
                await asyncio.sleep(0.002)

    @property
    def ids(self) -> list[bytes]:
        return [id for _, id in self.seen]


async def write(store: Store, writer: int, count: int) -> list[bytes]:
    """One by one, each after the answer to the one before; every third unit brings two."""
    ids = []
    for n in range(count):
        drafts = [fact(f"{writer}-{n}-{i}", 0) for i in range(1 + (n % 3 == 0))]
        await store.commit(Unit(drafts=drafts))
        ids += [draft.event[0] for draft in drafts]
    return ids


@asynccontextmanager
async def placing(stores: Sequence[Store]) -> AsyncIterator[None]:
    """Meanwhile each of them gives positions, a few at a time."""

    async def place(store: Store) -> None:
        while True:
            await store.place_events(7)

    tasks = [asyncio.create_task(place(store)) for store in stores]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read_beside_writers(reader: Reader, stores: list[Store], each: int) -> None:
    """Asserts what a reader beside eight writers must have seen."""
    total = WRITERS * (each + (each + 2) // 3)
    async with asyncio.timeout(60):
        *written, _ = await asyncio.gather(
            *(write(stores[n % len(stores)], n, each) for n in range(WRITERS)), reader.read_until(total)
        )
    assert await reader.read_on() == 0
    assert [position for position, _ in reader.seen] == list(range(1, total + 1)), "nothing twice, no gap, no way back"
    assert set(reader.ids) == {id for ids in written for id in ids}, "nothing is missed"
    place = {id: n for n, id in enumerate(reader.ids)}
    for ids in written:
        assert all(place[a] < place[b] for a, b in pairwise(ids)), "what one writer did after another comes after it"


async def test_a_reader_beside_eight_writers_misses_and_reorders_nothing(
    make_store: Factory, clock: StandingClock
) -> None:
    """On PostgreSQL two processes write, and their placers get in each other's way."""
    stores = [make_store()]
    await stores[0].open()
    if stores[0].shared:
        stores.append(make_store(lock_file=None))
        await stores[1].open()

    async with placing([store for store in stores if store.shared]):
        await read_beside_writers(Reader(stores[0]), stores, 30)
    await check_books(stores[0])
    for store in stores:
        await store.close()


async def test_positions_are_given_to_a_bounded_number_at_a_time(desk: Desk) -> None:
    for n in range(5):
        await desk.commit(*(fact(f"k{n}-{i}", desk.now) for i in range(5)))
    placed = [await desk.store.place_events(10) for _ in range(4)]
    assert placed == ([10, 10, 5, 0] if desk.store.shared else [0] * 4)
    assert await desk.store.read("SELECT min(position), max(position), count(*) FROM event") == [(1, 25, 25)]


async def test_what_is_placed_later_comes_later_whatever_the_ids_say(desk: Desk) -> None:
    ids = sorted((new_id().bytes for _ in range(6)), reverse=True)
    for id in ids:
        await desk.commit(fact(id.hex(), desk.now, event_id=id))
        await desk.store.place_events(10)
    assert await desk.store.read("SELECT id FROM event ORDER BY position") == [(id,) for id in ids]


# -- only where several write ------------------------------------------------------------------------


@pytest.fixture
async def nodes(ledger_dsn: str, clock: StandingClock) -> AsyncIterator[list[Node]]:
    async with several(ledger_dsn, clock, 2) as nodes:
        yield nodes


@pytest.mark.postgres
async def test_the_slowest_transaction_keeps_nobody_waiting_and_is_read_last(
    nodes: list[Node], ledger_dsn: str
) -> None:
    """Its id is the first of all. A reader by ids would never see it."""
    slow = fact("slow", 0)
    held_open = await asyncpg.connect(ledger_dsn)
    transaction = held_open.transaction()
    await transaction.start()
    await held_open.execute(
        "INSERT INTO event (id, source, type, subject, occurred_at, received_at, correlation_id, batch_id, scope_id,"
        " key_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *slow.event,
    )
    later = [fact(f"k{n}", 0) for n in range(100)]
    assert slow.event[0] < min(draft.event[0] for draft in later)
    for n, draft in enumerate(later):
        await nodes[n % 2].desk.commit(draft)
        if n % 10 == 0:
            await nodes[1].store.place_events(2000)
    assert await nodes[1].store.place_events(2000) == 9
    reader = Reader(nodes[0].store)
    async with asyncio.timeout(30):
        await reader.read_until(100)
    assert reader.seen == [(n + 1, draft.event[0]) for n, draft in enumerate(later)]
    assert await nodes[1].store.place_events(2000) == 0 and await reader.read_on() == 0
    await transaction.commit()
    await held_open.close()
    assert await nodes[1].store.place_events(2000) == 1 and await reader.read_on() == 1
    assert reader.seen[-1] == (101, slow.event[0])


@pytest.mark.postgres
async def test_two_that_place_at_once_do_no_harm(nodes: list[Node]) -> None:
    """A leader that was stopped and one that took over: the second waits, and goes on where the first ended."""
    await nodes[0].desk.commit(*(fact(f"k{n}", 0) for n in range(30)))
    placed = await Race(*nodes).run(
        nodes[0].store.place_events(20), b"COMMIT\0", lambda: nodes[1].store.place_events(20)
    )
    assert placed == (20, 10)
    await nodes[0].desk.commit(*(fact(f"more{n}", 0) for n in range(30)))
    placed = await asyncio.gather(*(nodes[n % 2].store.place_events(4) for n in range(12)))
    assert sum(placed) == 30 and max(placed) == 4


@pytest.mark.postgres
@pytest.mark.parametrize("cut", [b"COMMIT\0", b"UPDATE 1\0"])
async def test_a_placer_that_dies_leaves_no_gap_and_no_position_twice(nodes: list[Node], cut: bytes) -> None:
    """Before its commit, or when only its answer was lost: the books are checked after each test."""
    dice = random.Random(1)
    for n in range(20):
        await nodes[0].desk.commit(*(fact(f"k{n}-{i}", 0) for i in range(dice.randint(1, 5))))
        if n % 4 == 0:
            nodes[1].wire.cut_at_answer = cut
            with pytest.raises(Busy):
                await nodes[1].store.place_events(5)
            nodes[1].wire.cut_at_answer = None
        else:
            await nodes[0].store.place_events(5)


@pytest.mark.postgres
async def test_a_reader_beside_writers_on_slow_wires_misses_nothing_either(nodes: list[Node]) -> None:
    """Transactions last long and end in any order."""
    dice = random.Random(7)

    async def wait(_: bytes) -> None:
        await asyncio.sleep(dice.choice([0, 0, 0.002, 0.008]))

    for node in nodes:
        node.wire.before_passing_on = wait
    async with placing([node.store for node in nodes]):
        await read_beside_writers(Reader(nodes[0].store), [node.store for node in nodes], 10)
