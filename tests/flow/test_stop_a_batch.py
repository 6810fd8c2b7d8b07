"""Stopping a batch in a running hub: what is under way ends as it ends, and nothing of it begins again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from hub.app import HubApp
from hub.contract import Connection, Outcome, RetryLater, Shipment, UnitOfWork
from hub.control import run_command
from hub.errors import Conflict, NotFound
from hub.model import Audience, Draft, Json, new_id
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from tests.engines import ON_BOTH

MADE = "vn.congdoan.thing.made.v1"


def thing(batch: UUID, key: str) -> Draft:
    return Draft(type=MADE, source="/tests", dedupe_key=key, data={"id": key}, batch_id=batch, purpose="care")


class Crowd:
    """A directory of 1,200 people, whose second page is read only when told to."""

    def __init__(self) -> None:
        self.second_page, self.go_on, self.pages = asyncio.Event(), asyncio.Event(), 0

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        yield [f"m-{n:04}" for n in range(1200)]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        if len(subjects) > 1:  # a page of the fan-out; each delivery asks for one
            self.pages += 1
            if self.pages == 2:
                self.second_page.set()
                await self.go_on.wait()
        return {subject: f"{channel}:{subject}" for subject in subjects}

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return None


async def counts(hub: HubApp, batch: UUID) -> dict[str, int]:
    found = await hub.batch(batch)
    assert found is not None
    assert found["total"] == found["unreachable"] + found["unmade"] + sum(found["counts"].values())
    return dict(found["counts"])


@ON_BOTH
async def test_a_try_under_way_at_the_stop_ends_and_is_not_begun_again(tmp_path: Path, database_url: str) -> None:
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(shipment: Shipment) -> Outcome:
        assert shipment.purpose == "care"
        under_way.set()
        await go_on.wait()
        return RetryLater(reason="busy", after=timedelta(milliseconds=50))

    sink = RecordingSink(script=[slowly], concurrency=1)
    batch = new_id()
    async with running_hub(
        tmp_path,
        registry_of(
            connector_types=[connector("post", Connection(sink=sink))], event_types=[plain_event_type(MADE)]
        ),
        connections={"post": {}},
        subscriptions=[{"name": "all", "types": [MADE], "to": "post"}],
        settings={"database_url": database_url, "retry": {"schedule_s": [0.05] * 20}},
    ) as hub:  # fmt: skip
        await hub.commit(UnitOfWork(drafts=[thing(batch, str(n)) for n in range(20)]))
        await under_way.wait()
        stopped = await run_command(hub, "batches stop", {"id": str(batch)}, lambda progress: None)
        assert stopped["state"] == "stopped" and stopped["counts"]["cancelled"] >= 1
        go_on.set()

        async def all_cancelled() -> bool:
            return await counts(hub, batch) == {"cancelled": 20}

        await eventually(all_cancelled)
        with pytest.raises(Conflict):
            await hub.commit(UnitOfWork(drafts=[thing(batch, "late")]))
        with pytest.raises(NotFound):
            await run_command(hub, "batches stop", {"id": str(new_id())}, lambda progress: None)
    assert len(sink.shipments) == 1


async def test_a_fan_out_that_is_stopped_makes_no_more_and_is_no_failure(tmp_path: Path) -> None:
    people, phone = Crowd(), RecordingSink()
    batch = new_id()
    async with running_hub(
        tmp_path,
        registry_of(
            connector_types=[connector("phone", Connection(sink=phone), channel="phone")],
            event_types=[plain_event_type(MADE)],
            directory=lambda hub: people,
        ),
        connections={"phone": {}},
        subscriptions=[{"name": "each", "types": [MADE], "to_each": {"phone": "phone"}}],
    ) as hub:
        draft = Draft(
            type=MADE, source="/tests", dedupe_key="k", data={"id": "k"}, batch_id=batch,
            audience=Audience({}, ("phone",), "care"),
        )  # fmt: skip
        await hub.commit(UnitOfWork(drafts=[draft]))
        await people.second_page.wait()
        assert await hub.stop_batch(draft.id)
        people.go_on.set()

        async def over() -> bool:
            runs = await hub.store.read("SELECT state FROM run")
            return runs == [("done",)] and set(await counts(hub, batch)) <= {"delivered", "cancelled"}

        await eventually(over)
        assert await hub.store.read("SELECT count(*) FROM repair") == [(0,)]
        found = await hub.batch(batch)
        assert found is not None and found["id"] == str(batch) and found["state"] == "stopped"
        assert found["unmade"] == 700 and sum(found["counts"].values()) == 500
