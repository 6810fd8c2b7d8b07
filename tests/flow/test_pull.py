"""A pull: each page and the cursor that is true with it are one transaction; a crash repeats a page at most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from hub import views
from hub.app import HubApp
from hub.clock import system_clock
from hub.contract import Connection, Guard, Page, UnitOfWork
from hub.model import Draft
from hub.store.base import Store
from hub.testing import RecordingSink, eventually
from tests.flow.conftest import ON_BOTH, THING, Site, check_books, reach, subscription
from tests.flow.test_handlers import CREATE, EFFECT, NEXT, READ

pytestmark = ON_BOTH

PAGES, PER_PAGE = 5, 4


class Archive:
    """A partner with pages of papers; remembers what was asked, what was acknowledged and what it saw then."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.acknowledged: list[tuple[str | None, str | None]] = []
        self.fail_page = self.fail_acknowledge = self.block_page = self.block_acknowledge = -1
        self.blocked = asyncio.Event()
        self.store: Store | None = None
        self.guards: Sequence[Guard] = ()

    async def page(self, cursor: str | None) -> Page:
        self.asked.append(cursor)
        n = int(cursor or 0)
        if n == self.fail_page:
            raise ConnectionResetError("half-way")
        if n == self.block_page:
            self.blocked.set()
            await asyncio.Event().wait()
        drafts = [
            Draft(type=THING, source="/forged", dedupe_key=f"paper-{n}-{i}", data={"id": f"{n}-{i}"})
            for i in range(PER_PAGE)
        ]
        following = str(n + 1)
        return Page(unit=UnitOfWork(drafts=drafts, guards=self.guards), cursor=following, done=n + 1 == PAGES, token=n)

    async def acknowledge(self, page: Page) -> None:
        assert self.store is not None
        [(kept,)] = await self.store.read("SELECT cursor FROM connection WHERE name = 'archive'")
        self.acknowledged.append((page.cursor, kept))
        if page.token == self.fail_acknowledge:
            raise ConnectionResetError("they will ask again")
        if page.token == self.block_acknowledge:
            self.blocked.set()
            await asyncio.Event().wait()


@pytest.fixture
def archive(site: Site) -> Archive:
    archive = Archive()
    site.parts["archive"] = Connection(source=archive)
    return archive


@pytest.fixture
def alpha(site: Site) -> RecordingSink:
    sink = RecordingSink()
    site.parts["alpha"] = Connection(sink=sink)
    site.subscriptions.append(subscription("alpha", fields=["id"]))
    return sink


async def pull(hub: HubApp, archive: Archive, state: str = "done") -> None:
    """One run, to its end."""
    archive.store = hub.store
    before = len(await views.runs(hub.store, 100))
    hub.clock.advance(1)  # type: ignore[attr-defined]
    assert await hub.pull_now("archive")

    async def ended() -> bool:
        runs = await views.runs(hub.store, 100)
        return len(runs) == before + 1 and runs[0]["state"] == state

    await eventually(ended)


async def events(hub: HubApp) -> list[str]:
    return [key for (key,) in await hub.store.read("SELECT source FROM event")]


async def everything_came_once(hub: HubApp, alpha: RecordingSink) -> None:
    await reach(hub, ["delivered"] * PAGES * PER_PAGE)
    assert sorted(s.event.data["id"] for s in alpha.shipments) == sorted(
        f"{n}-{i}" for n in range(PAGES) for i in range(PER_PAGE)
    )
    assert {s.event.source for s in alpha.shipments} == {hub.config.hub.source + "/connections/archive"}
    await check_books(hub.store)


async def test_every_page_is_kept_once_and_acknowledged_after_its_commit(
    site: Site, archive: Archive, alpha: RecordingSink
) -> None:
    async with site.running() as hub:
        await pull(hub, archive)
        await everything_came_once(hub, alpha)
        assert archive.asked == [None, "1", "2", "3", "4"]
        assert archive.acknowledged == [(str(n), str(n)) for n in range(1, 6)]
        [run] = await views.runs(hub.store)
        assert (run["pages"], run["items"]) == (PAGES, PAGES * PER_PAGE)


async def test_a_source_that_raises_leaves_the_cursor_where_the_last_page_put_it(
    site: Site, archive: Archive, alpha: RecordingSink
) -> None:
    archive.fail_page = 2
    async with site.running() as hub:
        await pull(hub, archive, "failed")
        assert await hub.store.read("SELECT cursor FROM connection WHERE name = 'archive'") == [("2",)]
        assert (await views.runs(hub.store))[0]["reason"] == "ConnectionResetError"
        archive.fail_page = -1
        await pull(hub, archive)
        assert archive.asked == [None, "1", "2", "2", "3", "4"]
        await everything_came_once(hub, alpha)


async def test_an_acknowledgement_that_fails_loses_nothing(site: Site, archive: Archive, alpha: RecordingSink) -> None:
    archive.fail_acknowledge = 1
    async with site.running() as hub:
        await pull(hub, archive, "failed")
        archive.fail_acknowledge = -1
        await pull(hub, archive)
        await everything_came_once(hub, alpha)


@pytest.mark.parametrize("where", ["block_page", "block_acknowledge"])
async def test_a_hub_that_stops_in_a_pull_goes_on_with_it(
    site: Site, archive: Archive, alpha: RecordingSink, where: str
) -> None:
    setattr(archive, where, 2)
    async with site.running() as hub:
        archive.store = hub.store
        await hub.pull_now("archive")
        await archive.blocked.wait()
    setattr(archive, where, -1)
    async with site.running(start=False) as hub:
        archive.store = hub.store
        await hub.start()
        await everything_came_once(hub, alpha)


async def test_a_page_that_comes_again_adds_nothing(site: Site, archive: Archive, alpha: RecordingSink) -> None:
    """The partner lists it again, because the acknowledgement never reached it."""
    async with site.running() as hub:
        await pull(hub, archive)
        await reach(hub, ["delivered"] * PAGES * PER_PAGE)
        from sqlalchemy import text

        from hub.sql import query

        await hub.commit(UnitOfWork(statements=[query(text("UPDATE connection SET cursor = NULL"))()]))
        await pull(hub, archive)
        assert len(archive.asked) == 2 * PAGES
        await everything_came_once(hub, alpha)


async def test_a_page_whose_own_guard_fails_is_made_again_from_what_is_true_now(
    site: Site, archive: Archive, alpha: RecordingSink
) -> None:
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE(), EFFECT(event="counter", n=7)]))
        archive.guards = [Guard(NEXT(seen=6))]
        original = archive.page

        async def page(cursor: str | None) -> Page:
            made = await original(cursor)
            [(seen,)] = await hub.fetch(READ())
            archive.guards = [Guard(NEXT(seen=seen))]
            return made

        archive.page = page  # type: ignore[method-assign]
        await pull(hub, archive)
        await everything_came_once(hub, alpha)
        assert await hub.fetch(READ()) == [(7 + PAGES,)]


async def test_a_cursor_moved_by_somebody_else_ends_the_run_and_keeps_theirs(
    site: Site, archive: Archive, alpha: RecordingSink
) -> None:
    from sqlalchemy import text

    from hub.sql import query

    original = archive.page

    async def page(cursor: str | None) -> Page:
        made = await original(cursor)
        if cursor == "1":
            await hub.commit(UnitOfWork(statements=[query(text("UPDATE connection SET cursor = '4'"))()]))
        return made

    archive.page = page  # type: ignore[method-assign]
    async with site.running() as hub:
        await pull(hub, archive, "failed")
        assert await hub.store.read("SELECT cursor FROM connection WHERE name = 'archive'") == [("4",)]
        assert await hub.store.read("SELECT count(*) FROM event") == [(PER_PAGE,)]


async def test_only_one_pull_of_a_connection_is_open(site: Site, archive: Archive, alpha: RecordingSink) -> None:
    archive.block_page = 0
    async with site.running() as hub:
        assert await hub.pull_now("archive")
        await archive.blocked.wait()
        assert not await hub.pull_now("archive")
        assert len(archive.asked) == 1


async def test_a_schedule_pulls_by_itself_and_makes_up_one_slot_after_a_stop(
    site: Site, archive: Archive, alpha: RecordingSink
) -> None:
    site.clock = system_clock
    async with site.running(start=False, schedule="every 1h") as hub:
        archive.store = hub.store
        await hub.start()
        await everything_came_once(hub, alpha)
    async with site.running(start=False, schedule="every 1h") as hub:
        archive.store = hub.store
        await hub.start()
        runs = await views.runs(hub.store)
        assert len(runs) == len({r["slot"] for r in runs}) <= 2, "the slot of this hour is there already"
