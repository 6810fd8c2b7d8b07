"""A disk that is full, breaks or is held by a reader, under a hub that takes requests and sends."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.torture.disk import OK, Disk, Op, layer
from hub.contract import Delivered, Outcome, Shipment, UnitOfWork
from hub.errors import Busy
from hub.model import Draft
from hub.testing import RecordingSink, eventually
from tests.flow.conftest import check_books, states
from tests.flow.front_door import QUESTION, Door, open_door, question, signed


@pytest.fixture
def disk() -> Iterator[Disk]:
    with layer() as disk:
        yield disk


@pytest.fixture
async def door(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    async with open_door(tmp_path, monkeypatch) as door:
        yield door
        disk.judge = lambda op: OK
        await check_books(door.hub.store)
        assert await door.hub.store.read("PRAGMA integrity_check") == [("ok",)]


async def ask(door: Door, id: str) -> int:
    """The status of one question; a refusal must say when to come back, and that nothing was stored."""
    answer = await door.post(question(id), signed(question(id), id))
    if answer.status != 202:
        assert answer.status == 503 and answer.problem == "busy" and int(answer.headers["retry-after"]) > 0
    return answer.status


async def stored(door: Door) -> list[str]:
    rows = await door.hub.store.read("SELECT key FROM dedupe d JOIN event e ON e.id = d.event_id WHERE e.type = ?",
                                     (QUESTION,))  # fmt: skip
    return [key for (key,) in rows]


async def all_sent(door: Door, count: int) -> None:
    async def condition() -> bool:
        return await states(door.hub) == ["delivered"] * count

    await eventually(condition, 20)
    sink = door.hub.connections["quiet"].sink
    assert isinstance(sink, RecordingSink)
    assert len(sink.shipments) == count == len({s.id for s in sink.shipments})


async def test_a_full_disk_refuses_before_anything_is_acknowledged_and_goes_on_by_itself(
    door: Door, disk: Disk
) -> None:
    assert await ask(door, "before") == 202
    await all_sent(door, 1)
    disk.is_full()
    assert [await ask(door, f"full-{n}") for n in range(5)] == [503] * 5
    assert len(await stored(door)) == 1
    ready = await door.get("/readyz")
    assert ready.status == 503 and "SQLITE_FULL" in ready.body.decode() and "retry-after" in ready.headers
    assert (await door.get("/healthz")).status == 200
    lines = [line for line in door.log.getvalue().splitlines() if b'"worker.blocked"' in line]
    assert len(lines) < 20, "a full disk is not filled further with words about it"
    disk.is_full(False)
    assert [await ask(door, f"full-{n}") for n in range(5)] == [202] * 5
    assert (await door.get("/readyz")).status == 200
    await all_sent(door, 6)


async def test_an_io_error_at_any_write_loses_nothing_that_was_acknowledged_and_doubles_nothing(
    door: Door, disk: Disk
) -> None:
    """The write, or the fsync, number 1, 2, 3, ... from the moment of the request: accept, claim, settlement alike."""
    failed: list[list[Op]] = []
    faults = [("write", n) for n in range(1, 26)] + [("sync", n) for n in range(1, 16)]
    for kind, n in faults:
        failed.append(disk.fail_at(n, kinds=[kind]))
        if await ask(door, f"{kind}-{n}") != 202:
            disk.judge = lambda op: OK
            assert await ask(door, f"{kind}-{n}") == 202, "the same request is taken when it comes again"
    disk.judge = lambda op: OK
    assert {op.kind for each in failed for op in each} == {"write", "sync"}
    await all_sent(door, len(faults))


async def test_an_outcome_that_could_not_be_written_is_not_forgotten_and_not_sent_again(door: Door, disk: Disk) -> None:
    sink = door.hub.connections["quiet"].sink
    assert isinstance(sink, RecordingSink)
    told: list[list[Op]] = []

    async def break_the_disk(shipment: Shipment) -> Outcome:
        told.append(disk.fail_at(1, 10**9))
        return Delivered()

    sink.script = [break_the_disk]
    assert await ask(door, "q") == 202
    await eventually(lambda: told and told[0], 20)  # the settlement has met the broken disk
    assert await states(door.hub) == ["leased"]
    disk.judge = lambda op: OK
    await all_sent(door, 1)


async def test_a_file_that_a_reader_holds_open_goes_on_being_written_and_shrinks_afterwards(
    door: Door, tmp_path: Path
) -> None:
    database = tmp_path / "var" / "unionhub.db"
    wal = database.with_name(database.name + "-wal")

    async def fill(name: str) -> None:
        for n in range(30):
            data = {"n": 1, "text": "x" * 20_000}
            draft = Draft(type="vn.congdoan.test.made.v1", source="/t", dedupe_key=f"{name}-{n}", data=data)
            try:
                await door.hub.commit(UnitOfWork(drafts=[draft]))
            except Busy as busy:
                pytest.fail(f"a reader stood in the way of a writer: {busy}")

    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event").fetchone()
        await door.hub.store.submit(lambda tx: tx.execute("PRAGMA wal_autocheckpoint = 50"))  # type: ignore[attr-defined]
        await fill("held")
        assert await ask(door, "while-held") == 202
        held = wal.stat().st_size
    await fill("free")
    assert wal.stat().st_size <= held + 100_000, "once the reader is gone the log is used again from its beginning"
