"""A stop gives everything back, a restart goes on, and a copied database sends nothing until it is released."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from hub.app import HubApp
from hub.contract import Delivered, Outcome, Shipment, UnitOfWork
from hub.errors import AlreadyRunning, ConfigError
from hub.sql import query
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import ON_BOTH, Blocked, Site, check_books, emit, later, reach, states
from tests.flow.test_handlers import CREATE


async def in_flight(hub: HubApp) -> int:
    [(count,)] = await hub.store.read("SELECT count(*) FROM queue WHERE state IN ('leased', 'sending')")
    return int(count)


@ON_BOTH
async def test_a_stop_lets_tries_end_and_gives_back_what_had_not_begun(site: Site) -> None:
    sink = site.sink("alpha", concurrency=2)
    slow = Blocked(Delivered())
    sink.script = [slow] * 2
    site.settings = {"worker": {"stop_within_s": 5}}
    async with site.running() as hub:
        await emit(hub, 10)
        await eventually(lambda: slow.waiting == 2)
        stopping = asyncio.create_task(hub.stop())
        await asyncio.sleep(0)
        slow.let_go.set()
        await stopping
    assert len(sink.shipments) == 2
    async with site.running(start=False) as hub:
        assert sorted(s.split("(")[0] for s in await states(hub)) == ["delivered"] * 2 + ["pending"] * 8
        assert await hub.store.read("SELECT count(*) FROM attempt") == [(2,)]
        await check_books(hub.store)


@ON_BOTH
@pytest.mark.parametrize("safe", [True, False])
async def test_a_try_that_does_not_end_is_cut_off_and_told_as_what_it_is(site: Site, safe: bool) -> None:
    sink = site.sink("alpha", concurrency=2, resend_is_safe=safe)
    slow = Blocked(Delivered())
    sink.script = [slow] * 2
    site.settings = {"worker": {"stop_within_s": 0.3}}
    async with site.running() as hub:
        ids = await emit(hub, 5)
        await eventually(lambda: slow.waiting == 2)
    cut = {str(s.event.id) for s in sink.shipments}
    async with site.running(start=False) as hub:
        assert await in_flight(hub) == 0
    async with site.running() as hub:
        if safe:
            hub.clock.advance(10)  # type: ignore[attr-defined]
            hub.worker.wake()  # type: ignore[union-attr]
        expected = ["delivered"] * 5 if safe else ["delivered"] * 3 + ["unknown(stopped_while_sending)"] * 2
        await reach(hub, expected)
        sent = [str(s.event.id) for s in sink.shipments]
        assert set(sent) == set(ids)
        again = {id for id in sent if sent.count(id) > 1}
        assert again == (cut if safe else set()), "an unsafe one is never sent again by a machine"


@ON_BOTH
@pytest.mark.parametrize("safe", [True, False])
async def test_stops_at_any_moment_of_the_claim_lose_and_double_nothing(site: Site, safe: bool) -> None:
    """A claim may be on its way through the writer when the stop comes."""
    sink = site.sink("alpha", resend_is_safe=safe, concurrency=4)
    site.settings = {"worker": {"stop_within_s": 20}}  # on a busy machine a claim takes its time
    wanted: list[str] = []
    # A start takes longer there, and a claim more moments.
    for moment in range(0, 12, 2) if site.database_url else range(12):
        async with site.running() as hub:
            wanted += await emit(hub, 20)
            for _ in range(moment):
                await asyncio.sleep(0.001)
        shipped = len(sink.shipments)
        async with site.running(start=False) as hub:
            assert await in_flight(hub) == 0
            assert not [s for s in await states(hub) if s.startswith("unknown")]
            assert (await states(hub)).count("delivered") == shipped, "what was sent is on record"
    async with site.running() as hub:
        await reach(hub, ["delivered"] * len(wanted))
    sent = [str(s.event.id) for s in sink.shipments]
    assert sorted(sent) == sorted(wanted)


SLOW = query(
    text(
        "INSERT INTO effect SELECT 'slow', sum(x) FROM (WITH RECURSIVE n(x) AS"
        " (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000) SELECT x FROM n)"
    )
)


@pytest.mark.parametrize("safe", [True, False])
async def test_what_a_claim_brings_after_the_stop_is_given_back_unsent(
    site: Site, clock: StandingClock, safe: bool
) -> None:
    """The claim waits in the writer behind a slow unit while the stop is asked for."""
    sink = site.sink("alpha", resend_is_safe=safe)
    site.settings = {"worker": {"stop_within_s": 20}}
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE()]))
        await asyncio.sleep(0.05)  # the worker has looked once and sleeps
        slow = asyncio.create_task(hub.commit(UnitOfWork(statements=[SLOW()])))
        await asyncio.sleep(0.02)
        owed = asyncio.create_task(emit(hub, 10))
        await asyncio.sleep(0)
        later(hub, clock, 0)
        await asyncio.sleep(0.02)
        assert not slow.done(), "make it slower: the claim must still be waiting"
        await hub.stop()
        await asyncio.gather(slow, owed)
    assert sink.shipments == []
    async with site.running(start=False) as hub:
        assert await states(hub) == ["pending(stopped)"] * 10
        assert await hub.store.read("SELECT count(*) FROM attempt") == [(0,)]


@ON_BOTH
async def test_a_commit_after_the_stop_is_refused_not_swallowed(site: Site, alpha: RecordingSink) -> None:
    async with site.running() as hub:
        await hub.stop()
        with pytest.raises(Exception, match="closing"):
            await emit(hub)


@ON_BOTH
async def test_a_second_hub_on_the_same_folder_is_refused(site: Site, alpha: RecordingSink, hub: HubApp) -> None:
    with pytest.raises(AlreadyRunning, match="pid"):
        async with site.running():
            pass
    await emit(hub)
    await reach(hub, ["delivered"])


# -- copies ------------------------------------------------------------------------------------------


async def with_history(site: Site) -> None:
    async with site.running() as hub:
        await emit(hub, 3)
        await reach(hub, ["delivered"] * 3)


def copy_of(site: Site, tmp_path: Path, *, marker: bool) -> Site:
    """The folder as somebody would copy it to another place."""
    other = Site(tmp_path / "copy", site.clock, site.parts, site.channels, site.subscriptions)
    shutil.copytree(site.folder / "var", other.folder / "var", ignore=shutil.ignore_patterns("*.lock"))
    if not marker:
        (other.folder / "var" / "unionhub.db.marker").unlink()
    return other


@pytest.mark.parametrize("marker", [True, False])
async def test_a_copied_database_shows_and_takes_in_but_sends_nothing_until_released(
    tmp_path: Path, clock: StandingClock, marker: bool
) -> None:
    (tmp_path / "original").mkdir()
    site = Site(tmp_path / "original", clock)
    sink = site.sink("alpha")
    await with_history(site)
    other = copy_of(site, tmp_path, marker=marker)
    for _ in range(2):  # a restart releases nobody
        async with other.running() as hub:
            assert await hub.store.held() == ("another_identity" if marker else "no_marker")
            await emit(hub)
            assert (await states(hub)).count("delivered") == 3
    async with other.running() as hub:
        from hub.commands import COMMANDS

        release = next(c for c in COMMANDS if c.name == "release")
        assert len(sink.shipments) == 3
        await release.run(hub, release.params(), lambda said: None)
        await reach(hub, ["delivered"] * 5)
    async with other.running() as hub:
        assert await hub.store.held() is None


async def test_a_database_behind_its_marker_is_held(site: Site, alpha: RecordingSink, tmp_path: Path) -> None:
    """Somebody put last night's copy back over the same file."""
    await with_history(site)
    database = site.folder / "var" / "unionhub.db"
    old = database.read_bytes()
    await with_history_again(site)
    with database.open("r+b") as file:  # the same file, so the same inode
        file.write(old)
        file.truncate()
    async with site.running() as hub:
        assert await hub.store.held() == "behind_marker"


async def with_history_again(site: Site) -> None:
    async with site.running() as hub:
        await emit(hub, 2)
        await reach(hub, ["delivered"] * 5)


@ON_BOTH
async def test_an_untouched_database_is_not_held(site: Site, alpha: RecordingSink, clock: StandingClock) -> None:
    for n in range(3):
        async with site.running() as hub:
            assert await hub.store.held() is None
            await emit(hub)
            later(hub, clock, 0)
            await reach(hub, ["delivered"] * (n + 1))


@ON_BOTH
async def test_a_database_without_its_key_is_refused_and_no_new_key_is_made(site: Site, alpha: RecordingSink) -> None:
    await with_history(site)
    key = site.folder / "var" / "hub.key"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigError, match="copy the key file"):
        async with site.running():
            pass
    assert not key.exists()
    key.write_bytes(bytes(32))
    with pytest.raises(ConfigError, match="not the key of this database"):
        async with site.running():
            pass
    key.write_bytes(kept)
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"] * 4)


async def test_what_a_crash_left_leased_is_sent_and_what_it_left_sending_is_not(
    site: Site, clock: StandingClock
) -> None:
    """The rows as a killed process leaves them, found by the next one."""
    safe = site.sink("safe")
    unsafe = site.sink("unsafe", resend_is_safe=False)
    sending: list[str] = []

    async def die(shipment: Shipment) -> Outcome:
        sending.append(str(shipment.event.id))
        await asyncio.Event().wait()
        raise AssertionError

    safe.script = [die] * 3
    unsafe.script = [die] * 3
    var = site.folder / "var"
    async with site.running() as hub:
        await emit(hub, 3)
        await eventually(lambda: len(sending) == 6)
        killed = {f.name: f.read_bytes() for f in var.iterdir() if f.is_file() and "lock" not in f.name}
    inode = (var / "unionhub.db").stat().st_ino
    for name, content in killed.items():
        (var / name).write_bytes(content)
    assert (var / "unionhub.db").stat().st_ino == inode
    async with site.running() as hub:
        await reach(hub, ["delivered"] * 3, "safe")
        await reach(hub, ["unknown(crashed_while_sending)"] * 3, "unsafe")
        assert len(unsafe.shipments) == 3 and len(safe.shipments) == 6
        assert len({(s.event.id, s.body) for s in safe.shipments}) == 3
        rows = await hub.store.read("SELECT outcome, count(*) FROM attempt GROUP BY 1")
        assert dict(rows) == {"lost": 6, "delivered": 3}
        await check_books(hub.store)
