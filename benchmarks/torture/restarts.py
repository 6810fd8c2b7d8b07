"""PostgreSQL stopped as by a crash, again and again, under a hub that takes messages and sends them on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.torture.results import Progress
from hub.contract import Connection, UnitOfWork
from hub.errors import Busy
from hub.model import Draft
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub

THING = "vn.congdoan.thing.happened.v1"
CALLERS = 8
#: Seconds of work before a stop, and away after it, at most.
UP_S, AWAY_S = 4.0, 2.0
#: The last of several stops.
LONG_AWAY_S = 30.0


async def run(stops: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """Stops it ``stops`` times; figures, and what was broken."""
    from tests.postgres import running_postgres

    dice = random.Random(seed)
    sinks = {"safe": RecordingSink(), "unsafe": RecordingSink(resend_is_safe=False)}
    with running_postgres() as server:
        async with running_hub(
            folder,
            registry_of(
                connector_types=[connector(n, Connection(sink=s)) for n, s in sinks.items()],
                event_types=[plain_event_type(THING)],
            ),
            connections={name: {} for name in sinks},
            subscriptions=[{"name": name, "types": [THING], "to": name} for name in sinks],
            settings={"database_url": server.dsn(server.create_database())},
        ) as hub:
            kept: list[str] = []
            busy = 0
            ending = False

            async def caller(me: int) -> None:
                nonlocal busy
                n = 0
                while not ending:
                    n += 1
                    draft = Draft(type=THING, source="/t", dedupe_key=f"{me}-{n}", data={"id": f"{me}-{n}", "n": n})
                    while True:
                        try:
                            [event] = (await hub.commit(UnitOfWork(drafts=[draft]))).events
                            break
                        except Busy:
                            busy += 1
                            await asyncio.sleep(0.05)
                    kept.append(event.hex)
                    await asyncio.sleep(0.01)

            calling = [asyncio.create_task(caller(n)) for n in range(CALLERS)]
            resumed: list[float] = []
            for stop in range(1, stops + 1):
                await asyncio.sleep(dice.random() * UP_S)
                await asyncio.to_thread(server.stop, "immediate")
                last = stops > 1 and stop == stops
                await asyncio.sleep(LONG_AWAY_S if last else dice.random() * AWAY_S)
                await asyncio.to_thread(server.start)
                back, before = monotonic(), len(kept)
                await eventually(lambda: len(kept) > before, 60)  # noqa: B023 - awaited within the turn
                resumed.append(monotonic() - back)
                say(f"{stop} of {stops} stops, {len(kept)} acknowledged")
            ending = True
            await asyncio.gather(*calling)

            async def nothing_owed() -> bool:
                return await hub.store.read("SELECT count(*) FROM queue WHERE state <> 'unknown'") == [(0,)]

            await eventually(nothing_owed, 60)
            stored = {id.hex() for (id,) in await hub.store.read("SELECT id FROM event")}
            broken = []
            if lost := set(kept) - stored:
                broken.append(f"{len(lost)} acknowledged and lost")
            sent = {name: Counter(s.delivery_id for s in sink.shipments) for name, sink in sinks.items()}
            if again := sum(count > 1 for count in sent["unsafe"].values()):
                broken.append(f"{again} sent again where that is unsafe")
            if len(sent["safe"]) < len(kept):
                broken.append(f"{len(kept) - len(sent['safe'])} never sent")
    repeats = sum(sent["safe"].values()) - len(sent["safe"])
    return {
        "stops": stops,
        "acknowledged": len(kept),
        "refused_as_busy": busy,
        "repeats_where_safe": repeats,
        "resumed_ms_median": round(median(resumed) * 1000),
        "resumed_ms_worst": round(max(resumed) * 1000),
        "broken": broken,
    }
