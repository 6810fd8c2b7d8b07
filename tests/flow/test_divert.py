"""A sink hands deliveries on to another destination; what came from it, and only that, can be brought back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from hub.app import HubApp
from hub.contract import Admission, Admit, Connection, Divert, Hold, RetryLater, Scope, Shipment, UnitOfWork
from hub.model import Draft
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub

THING = "vn.congdoan.test-thing.happened.v1"


async def happen(hub: HubApp, key: str) -> None:
    await hub.commit(UnitOfWork(drafts=[Draft(type=THING, source="/t", dedupe_key=key, data={"id": key})]))


def two_sinks(tmp_path: Path, door: RecordingSink, there: RecordingSink, to: tuple[str, ...] = ("door",)) -> Any:
    return running_hub(
        tmp_path,
        registry_of(
            connector_types=[connector("door", Connection(sink=door)), connector("there", Connection(sink=there))],
            event_types=[plain_event_type(THING)],
        ),
        connections={"door": {}, "there": {}},
        subscriptions=[{"name": name, "types": [THING], "to": name} for name in to],
        settings={"retry": {"schedule_s": [1000.0] * 5}},
        synchronous="OFF",
    )


async def test_a_diverted_delivery_arrives_there_with_a_line_in_its_history(tmp_path: Path) -> None:
    door, there = RecordingSink(admit_with=lambda shipment: Divert("there")), RecordingSink()
    async with two_sinks(tmp_path, door, there) as hub:
        await happen(hub, "one")
        await eventually(lambda: there.shipments)

        async def delivered() -> Any:
            return await hub.store.read("SELECT id FROM delivery WHERE state = 'delivered' AND destination = 'there'")

        ((id,),) = await eventually(delivered)
        lines = "SELECT outcome, reason, destination FROM attempt WHERE delivery_id = ? ORDER BY lease_no"
        found = [tuple(line) for line in await hub.store.read(lines, (id,))]
        assert found == [("diverted", "to:there", "door"), ("delivered", "", "there")]
        assert not door.shipments and there.shipments[0].try_no == 1 and there.shipments[0].id == id


async def test_a_diversion_to_nowhere_pauses_and_loses_nothing(tmp_path: Path) -> None:
    door = RecordingSink(admit_with=lambda shipment: Divert("gone"))
    async with two_sinks(tmp_path, door, RecordingSink()) as hub:
        await happen(hub, "one")

        async def paused() -> bool:
            return (await hub.standings(["door"]))["door"].blocked == "paused"

        await eventually(paused)
        assert (await hub.standings(["door"]))["door"].open == 1


async def test_only_what_was_handed_on_comes_back(tmp_path: Path) -> None:
    """The same event is owed to the second destination by a subscription of its own too: that one stays."""
    full = False

    def at_the_door(shipment: Shipment) -> Admission:
        if full:
            return Hold(hub.now() + timedelta(hours=1), "full")
        return Divert("there")

    door, there = RecordingSink(admit_with=at_the_door), RecordingSink(resend_is_safe=False)
    there.script = [RetryLater(reason="busy")] * 2
    async with two_sinks(tmp_path, door, there, ("door", "there")) as hub:
        await happen(hub, "one")

        async def both_wait() -> bool:
            rows = await hub.store.read("SELECT state FROM queue WHERE destination = 'there' AND tries = 1")
            return [state for (state,) in rows] == ["pending"] * 2

        await eventually(both_wait)
        full = True
        assert await hub.divert("there", "door", tried=0) == 1 and await hub.divert("there", "door") == 0

        async def held() -> bool:
            rows = await hub.store.read("SELECT reason FROM queue WHERE destination = 'door'")
            return [tuple(row) for row in rows] == [("full",)]

        await eventually(held)
        assert (await hub.standings(["door", "there", "nowhere"])).keys() == {"door", "there"}
        assert (await hub.standings(["there"]))["there"].open == 1


async def test_what_was_tried_comes_back_as_often_as_is_allowed(tmp_path: Path) -> None:
    door = RecordingSink(admit_with=lambda shipment: Divert("there"))
    there = RecordingSink(resend_is_safe=False, script=[RetryLater(reason="busy")] * 2)
    async with two_sinks(tmp_path, door, there) as hub:
        await happen(hub, "one")
        for tries in (1, 2):

            async def tried(tries: int = tries) -> bool:
                return bool(await hub.store.read("SELECT 1 FROM queue WHERE state = 'pending' AND tries = ?", (tries,)))

            await eventually(tried)
            assert await hub.divert("there", "door", tried=1) == (1 if tries == 1 else 0)


async def test_a_hold_of_the_whole_destination_asks_for_nothing_else_meanwhile(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def busy(shipment: Shipment) -> Admission:
        asked.append(shipment.id)
        return Hold(hub.now() + timedelta(hours=1), "full", Scope.DESTINATION) if len(asked) == 1 else Admit()

    door = RecordingSink(admit_with=busy, concurrency=1)
    async with two_sinks(tmp_path, door, RecordingSink()) as hub:
        await happen(hub, "one")

        async def rests() -> bool:
            return bool(await hub.store.read("SELECT 1 FROM queue WHERE reason = 'full' AND state = 'pending'"))

        await eventually(rests)
        await happen(hub, "two")
        (rest,) = await hub.store.read("SELECT not_before FROM destination WHERE id = 'door'")
        assert rest[0] > 0 and len(asked) == 1 and not door.shipments
