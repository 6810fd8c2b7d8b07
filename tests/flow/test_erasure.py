"""Erasing a person: nothing opens any more, nothing is sent any more, on either store, and a backup changes nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hub import erasure
from hub.contract import RetryLater, UnitOfWork
from hub.control import run_command
from hub.errors import HubError, InputError
from hub.model import Draft, to_us
from hub.security.keys import HubKey
from hub.testing import StandingClock, eventually
from tests.command_line import unionhub
from tests.flow.conftest import ON_BOTH, PERSONAL, Site, emit, later, placed, reach
from tests.flow.test_db_commands import Machine, machine
from tests.ledger import check_books

__all__ = ["machine", "unionhub"]  # fixtures
WHY = "Phiếu 12/2026, 23/11/2026"


async def erase(hub: Any, subject: str, **more: Any) -> Any:
    return await run_command(hub, "subjects erase", {"subject": subject, "reason": WHY, **more}, lambda progress: None)


@ON_BOTH
async def test_an_erased_person_can_be_read_nowhere_and_is_owed_nothing(site: Site, clock: StandingClock) -> None:
    sink = site.sink("alpha")
    sink.script = [RetryLater(reason="http_503")]
    async with site.running() as hub:
        await emit(hub, type=PERSONAL, subject="m-0")
        await reach(hub, ["pending(http_503)"])
        await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
        await emit(hub, type=PERSONAL, subject="m-1")
        await emit(hub, type=PERSONAL, subject="m-2")
        counted = await erase(hub, "m-1")
        assert (counted["events"], counted["would_cancel"], counted["under_way"]) == (1, 1, 0)
        await reach(hub, ["pending", "pending", "pending(http_503)"])
        assert (await erase(hub, "m-1", confirm="m-1"))["cancelled"] == 1
        assert (await erase(hub, "m-0", confirm="m-0"))["cancelled"] == 1
        await reach(hub, ["cancelled(erased)"] * 2 + ["pending"])
        rows = await hub.store.read("SELECT sealed_for, body FROM content ORDER BY sealed_for")
        opened = await hub.unseal([(subject, body) for subject, body in rows])
        assert [value is None for value in opened] == [True, True, False]
        assert len(await hub.store.read("SELECT 1 FROM event")) == 3, "the envelope stays"
        assert len(await hub.store.read("SELECT 1 FROM attempt")) == len(sink.shipments) == 1, "the evidence too"
        told = (await run_command(hub, "subjects erased", {}, lambda progress: None))["erased"]
        assert {(each["subject"], each["by"], each["reason"]) for each in told} == {
            ("m-0", "operator", WHY), ("m-1", "operator", WHY)
        }  # fmt: skip
        await hub.store.pause("connection", "alpha", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["cancelled(erased)"] * 2 + ["delivered"])
        assert [s.event.subject for s in sink.shipments] == ["m-0", "m-2"]
        await placed(hub)
        await check_books(hub.store)


async def test_without_the_same_id_said_back_nothing_is_erased(site: Site) -> None:
    async with site.running() as hub:
        await emit(hub, type=PERSONAL, subject="m-1")
        before = await hub.store.read("SELECT * FROM subject_key")
        for wrong in ({"confirm": "m-2"}, {"confirm": "m-1", "reason": "số 0912 345 678 yêu cầu"}):
            with pytest.raises(InputError):
                await erase(hub, "m-1", **wrong)
        with pytest.raises(HubError):
            await erase(hub, "nobody", confirm="nobody")
        assert await hub.store.read("SELECT * FROM subject_key") == before
        assert await hub.store.read("SELECT * FROM erasure") == []


async def test_an_erasure_that_was_cut_off_is_ended_by_the_next_call(site: Site, clock: StandingClock) -> None:
    site.sink("alpha")
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
        await emit(hub, type=PERSONAL, subject="m-1")
        await hub.store.erase("m-1", "operator", WHY, to_us(clock()))
        assert (await erase(hub, "m-1", confirm="m-1"))["cancelled"] == 1
        assert len(await hub.store.read("SELECT 1 FROM erasure")) == 1


async def test_whoever_comes_again_begins_anew_and_opens_nothing_old(site: Site) -> None:
    async with site.running() as hub:
        await emit(hub, type=PERSONAL, subject="m-1")
        await erase(hub, "m-1", confirm="m-1")
        again = Draft(type=PERSONAL, source="/t", dedupe_key="again", data={"id": "new", "n": 2}, subject="m-1")
        await hub.commit(UnitOfWork(drafts=[again]))
        rows = await hub.store.read("SELECT event_id, body FROM content ORDER BY event_id")
        opened = await hub.unseal([("m-1", body) for _, body in rows])
        assert opened[0] is None and opened[1] is not None
        assert (await erase(hub, "m-1", confirm="m-1"))["erased"]
        assert len(await hub.store.read("SELECT 1 FROM erasure")) == 2


@pytest.mark.postgres
@pytest.mark.parametrize("engine", ["postgres"])
async def test_a_node_forgets_the_key_that_another_one_destroyed(site: Site, clock: StandingClock) -> None:
    async with site.running() as hub:
        await emit(hub, type=PERSONAL, subject="m-1")
        ((body,),) = await hub.store.read("SELECT body FROM content")
        assert await hub.unseal([("m-1", body)]) != [None]
        await hub.store.erase("m-1", "somebody", WHY, to_us(clock()))  # as another process does it
        await eventually(lambda: _none_of(hub, body))


async def _none_of(hub: Any, body: bytes) -> bool:
    return bool(await hub.unseal([("m-1", body)]) == [None])


async def test_the_bytes_of_the_key_are_gone_from_the_file(site: Site) -> None:
    async with site.running() as hub:
        for n in range(40):
            await emit(hub, type=PERSONAL, subject=f"m-{n}")
        keys = dict(await hub.store.read("SELECT subject, wrapped FROM subject_key"))
        for n in range(0, 40, 3):
            await erase(hub, f"m-{n}", confirm=f"m-{n}")
        database = hub.config.database
    kept = database.read_bytes()
    assert {subject for subject, wrapped in keys.items() if wrapped in kept} == {
        f"m-{n}" for n in range(40) if n % 3
    }, "SQLite leaves what was there in the page unless it is told not to"


def test_a_backup_from_before_is_restored_without_the_person(machine: Machine) -> None:
    key = HubKey.load(machine.var / "hub.key", may_create=False)
    sealed = key.wrap("m-1", b"k" * 32), key.wrap("m-2", b"l" * 32)
    with closing(sqlite3.connect(machine.database, isolation_level=None)) as db:
        db.executemany(
            "INSERT INTO subject_key (subject, wrapped, created_at) VALUES (?, ?, 1)",
            zip(["m-1", "m-2"], sealed, strict=True),
        )
    archive = machine.backup()
    done = machine("subjects", "erase", "m-1", "--reason", WHY, "--confirm", "m-1", "--json")
    assert done.code == 0 and json.loads(done.out)["erased"]
    other = machine.another()
    restored = other("db", "restore", archive, "--json")
    assert restored.code == 0 and restored.json["erased_again"] == 1
    left = other.rows("SELECT subject, wrapped FROM subject_key ORDER BY subject")
    assert left == [("m-1", None), ("m-2", sealed[1])]
    assert sealed[0] not in other.database.read_bytes()
    # The list goes on: what the new machine backs up has it beside it, though its own table never knew.
    assert erasure.known([other.backup().parent], key) == erasure.known([archive.parent], key) != set()


def test_a_ledger_that_is_replaced_tells_itself_whom_it_erased(machine: Machine, tmp_path: Path) -> None:
    key = HubKey.load(machine.var / "hub.key", may_create=False)
    with closing(sqlite3.connect(machine.database, isolation_level=None)) as db:
        db.execute(
            "INSERT INTO subject_key (subject, wrapped, created_at) VALUES ('m-1', ?, 1)", (key.wrap("m-1", b"k" * 32),)
        )
    archive = machine.backup()
    assert machine("subjects", "erase", "m-1", "--reason", WHY, "--confirm", "m-1").code == 0
    for lost in (machine.var, archive.parent):
        (lost / erasure.LIST).unlink()
    assert machine("db", "restore", archive, "--replace", "--json").json["erased_again"] == 1


def test_only_the_own_installations_lines_count_and_others_stay(tmp_path: Path) -> None:
    mine, other = HubKey(b"m" * 32), HubKey(b"o" * 32)
    erasure.keep(tmp_path, [b"a" * 32], mine)
    erasure.keep(tmp_path, [b"b" * 32], other)
    with (tmp_path / erasure.LIST).open("a") as file:
        file.write(f"{(b'c' * 32).hex()} {'0' * 32}\nnonsense\n")
    erasure.keep(tmp_path, [b"d" * 32], mine)
    assert erasure.known([tmp_path], mine) == {b"a" * 32, b"d" * 32}
    assert erasure.known([tmp_path], other) == {b"b" * 32}
