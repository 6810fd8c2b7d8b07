"""History that is let go while a hub runs: by the clock, by command, and what is told of it."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer

from hub import log as hub_log
from hub import metrics, views
from hub.app import HubApp
from hub.contract import RetryLater, UnitOfWork
from hub.control import run_command
from hub.errors import InputError
from hub.model import Draft, Json, to_us
from hub.retention import PAGE, Pruner, Rules, observe
from hub.store.base import PruneStep
from hub.store.ops.prune import EVENTS
from hub.testing import RecordingSink, StandingClock, eventually
from hub.web import server
from hub.web.problems import problem_of
from tests.flow.conftest import CALL, THING, Site, emit, later, reach, states
from tests.history import DAY, id_at, number, orphans
from tests.ledger import check_books

LONG_AGO = 500


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    """Where log lines go during a test."""
    before, handlers, level = vars(hub_log._state).copy(), logging.root.handlers[:], logging.root.level
    lines = io.BytesIO()
    hub_log.configure(lines)
    yield lines
    vars(hub_log._state).update(before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(stream: io.BytesIO, event: str) -> list[Json]:
    hub_log.flush()
    return [line for line in map(orjson.loads, stream.getvalue().splitlines()) if line["event"] == event]


async def emit_aged(hub: HubApp, days: int, count: int = 1, **more: Any) -> list[str]:
    """Events as they came so many days ago."""
    at = to_us(hub.now()) - days * DAY
    return [(await emit(hub, id=UUID(bytes=id_at(at, n)), **more))[0] for n in range(count)]


def pruner(hub: HubApp, **more: Any) -> Pruner:
    return Pruner(hub.store, Rules.of(hub.config, hub.router), hub.clock, share=1, **more)


async def command(hub: HubApp, name: str, **params: Any) -> Json:
    return await run_command(hub, name, params, lambda progress: None)


def tables(answer: Json) -> dict[str, int]:
    return {row["table"]: row["rows"] for row in answer["tables"]}


# -- by command ------------------------------------------------------------------------------------


async def test_a_dry_run_counts_what_the_command_then_deletes(hub: HubApp) -> None:
    await emit_aged(hub, LONG_AGO, 3)
    await emit_aged(hub, 5, 2)
    await reach(hub, ["delivered"] * 5)

    foretold = await command(hub, "db prune", dry_run=True)
    assert (foretold["dry_run"], foretold["history_kept_from"]) == (True, "2025-10-19")
    assert tables(foretold) == {"event": 3, "content": 3, "delivery": 3, "attempt": 3}
    assert await number(hub.store, "event") == 5

    done = await command(hub, "db prune")
    assert (done["dry_run"], tables(done)) == (False, tables(foretold))
    assert tables(await command(hub, "db prune")) == {}
    assert await states(hub) == ["delivered"] * 2
    assert await orphans(hub.store) == []


async def test_what_waits_for_a_partner_is_sent_however_old_it_is_and_then_goes(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    alpha.script = [RetryLater(reason="busy")]
    (event_id,) = await emit_aged(hub, LONG_AGO)
    await reach(hub, ["pending(busy)"])
    await emit(hub)
    await reach(hub, ["pending(busy)", "delivered"])

    assert tables(await command(hub, "db prune")) == {}
    later(hub, clock, 60)
    await reach(hub, ["delivered"] * 2)
    assert [str(s.event.id) for s in alpha.shipments].count(event_id) == 2
    assert tables(await command(hub, "db prune"))["event"] == 1
    assert await states(hub) == ["delivered"]


async def test_contents_go_by_their_type_and_the_rest_can_still_be_looked_at(site: Site, alpha: RecordingSink) -> None:
    site.settings = {"retention": {"event_types": {CALL: 30, "vn.congdoan.*": 60}}}
    async with site.running() as hub:
        for days in (10, 40, 70):
            for kind in (THING, CALL):
                at = to_us(hub.now()) - days * DAY
                await emit(hub, type=kind, id=UUID(bytes=id_at(at, int(kind == CALL))))
        await reach(hub, ["delivered"] * 6)
        assert tables(await command(hub, "db prune")) == {"content": 3}
        left = await hub.store.read(
            "SELECT e.type, e.id FROM event e JOIN content c ON c.event_id = e.id ORDER BY e.id"
        )
        assert [kind for kind, _ in left] == [THING, THING, CALL]
        rows = await views.deliveries(hub.store)
        assert len(rows) == 6
        shown = await views.delivery(hub.store, views.parse_id(rows[-1]["id"]))
        assert shown is not None and len(shown["attempts"]) == 1 and shown["event"]["type"]
        await check_books(hub.store)


async def test_a_pass_takes_all_of_it_however_much_it_is(site: Site) -> None:
    """More than is read at once, of events and of contents."""
    site.settings = {"retention": {"content_days": 30}}
    count = PAGE + EVENTS + 1
    async with site.running() as hub:
        for days in (LONG_AGO, 50):
            at = to_us(hub.now()) - days * DAY
            drafts = [
                Draft(
                    type=THING, source="/test", dedupe_key=f"{days}/{n}", data={}, id=UUID(bytes=id_at(at + n * 1000))
                )
                for n in range(count)
            ]
            await hub.commit(UnitOfWork(drafts=drafts))
        await emit(hub)
        assert tables(await command(hub, "db prune")) == {"event": count, "content": 2 * count}
        await check_books(hub.store)


async def test_sending_again_what_has_no_content_any_more_is_refused_and_says_so(hub: HubApp) -> None:
    (event_id,) = await emit_aged(hub, LONG_AGO)
    await reach(hub, ["delivered"])
    await hub.store.prune(PruneStep(table="content", events=[UUID(event_id).bytes]))
    (row,) = await views.deliveries(hub.store)
    with pytest.raises(InputError) as refused:
        await command(hub, "deliveries replay", id=row["id"])
    assert "thời hạn lưu" in str(refused.value) and "cannot be sent again" in str(refused.value)
    answer = problem_of(refused.value)
    assert (answer.status, orjson.loads(bytes(answer.body))["type"]) == (410, "/problems/content-gone")  # type: ignore[arg-type]
    assert await states(hub) == ["delivered"]


async def test_counts_of_a_destination_are_from_the_beginning(hub: HubApp) -> None:
    await emit_aged(hub, LONG_AGO, 2)
    await emit(hub)
    await reach(hub, ["delivered"] * 3)
    before = await views.connections(hub.store)
    await command(hub, "db prune")
    assert await views.connections(hub.store) == before
    assert before[0]["counts"]["delivered"] == 3


# -- by the clock ----------------------------------------------------------------------------------


async def test_a_pass_says_what_went(hub: HubApp, stream: io.BytesIO) -> None:
    await emit_aged(hub, LONG_AGO, 3)
    await emit(hub)
    await reach(hub, ["delivered"] * 4)
    before = metrics.registry.get_sample_value("unionhub_pruned_rows_total", {"table": "delivery"}) or 0
    assert await pruner(hub).turn(0)
    (line,) = lines(stream, "history.pruned")
    assert line["rows"] == {"event": 3, "content": 3, "delivery": 3, "attempt": 3}
    assert line["before"] == "2025-10-19"
    after = metrics.registry.get_sample_value("unionhub_pruned_rows_total", {"table": "delivery"})
    assert after == before + 3


async def test_only_the_process_that_leads_lets_history_go(hub: HubApp) -> None:
    await emit_aged(hub, LONG_AGO)
    await emit(hub)
    await reach(hub, ["delivered"] * 2)
    assert not await pruner(hub, leads=lambda: False).turn(0)
    assert await number(hub.store, "event") == 2
    assert await pruner(hub, leads=lambda: True).turn(0)
    assert await number(hub.store, "event") == 1


async def test_a_clock_that_was_set_while_a_pass_was_waited_for_deletes_nothing(
    hub: HubApp, stream: io.BytesIO
) -> None:
    """A year ahead by mistake: all of it would be old."""
    await emit(hub, 2)
    await reach(hub, ["delivered"] * 2)
    told = [hub.now(), hub.now() + timedelta(days=2 * 365)]
    wrong = Pruner(hub.store, Rules.of(hub.config, hub.router), lambda: told.pop(0) if len(told) > 1 else told[0])
    assert not await wrong.turn(0)
    assert [line["reason"] for line in lines(stream, "history.postponed")] == ["clock_set"]
    assert await number(hub.store, "event") == 2


async def test_a_ledger_that_cannot_be_written_postpones_the_rest(
    site: Site, alpha: RecordingSink, stream: io.BytesIO
) -> None:
    async with site.running(start=False) as hub:
        assert await pruner(hub).turn(0)
    assert not await pruner(hub).turn(0)
    assert [line["reason"] for line in lines(stream, "history.postponed")] == ["ledger_busy"]


async def test_passes_go_on_for_as_long_as_the_hub_runs(hub: HubApp) -> None:
    passes = asyncio.create_task(pruner(hub).run(first_s=0, every_s=0))
    for _ in range(2):
        await emit_aged(hub, LONG_AGO)
        await emit(hub)
        await eventually(lambda: _kept_are_young(hub))
        await reach(hub, ["delivered"] * await number(hub.store, "event"))
    passes.cancel()


async def _kept_are_young(hub: HubApp) -> bool:
    low = id_at(to_us(hub.now()) - DAY)
    return await hub.store.read("SELECT count(*) FROM event WHERE id < ?", (low,)) == [(0,)]


# -- what is told ----------------------------------------------------------------------------------


def gauge(name: str) -> float:
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value


async def test_the_oldest_day_is_told_and_what_is_stuck_shows_in_it(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    await observe(hub.store, hub.now())
    assert gauge("unionhub_history_oldest_seconds") == 0
    alpha.script = [RetryLater(reason="busy")]
    await emit_aged(hub, LONG_AGO)
    await reach(hub, ["pending(busy)"])
    await emit(hub)
    await command(hub, "db prune")
    await observe(hub.store, hub.now())
    assert gauge("unionhub_history_oldest_seconds") == LONG_AGO * 86400 + 7 * 3600  # it is seven o'clock

    later(hub, clock, 60)
    await reach(hub, ["delivered"] * 2)
    await command(hub, "db prune")
    await observe(hub.store, hub.now())
    assert gauge("unionhub_history_oldest_seconds") < 2 * 86400


async def test_a_long_read_shows_as_an_old_snapshot_until_it_ends(hub: HubApp) -> None:
    assert await hub.store.snapshot_age_s() == 0
    forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n"
    read = asyncio.create_task(hub.store.read(forever))

    async def shows() -> bool:
        return await hub.store.snapshot_age_s() > 0

    await eventually(shows)
    await read
    assert await hub.store.snapshot_age_s() == 0


async def test_a_scrape_tells_the_age_of_history_and_of_the_oldest_snapshot_and_no_pruned_state(
    site: Site, alpha: RecordingSink
) -> None:
    async with site.running() as hub, TestClient(TestServer(server.build(hub))) as client:
        await emit_aged(hub, LONG_AGO)
        await emit(hub)
        await reach(hub, ["delivered"] * 2)
        await command(hub, "db prune")
        metrics.oldest_day.set(-1)
        metrics.oldest_snapshot.set(-1)
        answer = await client.get("/metrics", headers={"Host": "127.0.0.1"})
        text = await answer.text()
    assert answer.status == 200
    assert "unionhub_snapshot_age_seconds 0.0" in text and "unionhub_history_oldest_seconds -1" not in text
    assert 'unionhub_deliveries{destination="alpha",state="delivered"} 2.0' in text
    assert "pruned:" not in text
