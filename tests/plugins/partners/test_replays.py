"""A thousand events sent again: the same ids, marked, at the speed that was asked for however many nodes there are."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from hub import views
from hub.contract import UnitOfWork
from hub.model import Draft
from hub.testing import StandingClock, eventually
from plugins.partners import replays
from tests.plugins.partners.conftest import receiver
from tests.plugins.partners.test_managed import sink_of
from tests.plugins.partners.test_portal import TYPE, Site, open_site

COUNT, PER_S = 1000, 100
TO = "doi-tac/so-noi-vu.chinh"


async def publish(site: Site, count: int) -> list[str]:
    ids = []
    for start in range(0, count, 250):
        drafts = [
            Draft(type=TYPE, source="/tests", dedupe_key=str(n), data={"unit": str(n), "phone": ""})
            for n in range(start, start + 250)
        ]
        ids += [str(each) for each in (await site.hub.commit(UnitOfWork(drafts=drafts))).events]
    return ids


async def owed_again(site: Site) -> int:
    rows = await site.hub.store.read(
        "SELECT (SELECT count(*) FROM queue WHERE generation = 1)"
        " + (SELECT count(*) FROM delivery WHERE generation = 1)"
    )
    return int(rows[0][0])


async def test_a_thousand_events_sent_again_keep_their_ids_are_marked_and_two_nodes_are_no_faster(
    tmp_path: Path,
) -> None:
    # Ids of events carry the real time.
    clock, seen = StandingClock(datetime.now(UTC)), list[str]()
    async with receiver(seen) as url, open_site(tmp_path, clock=clock) as site:
        dev = await site.signed_in("so-noi-vu")
        assert (await dev.post("/portal/new-endpoint", endpoint="chinh", url=url))[0] == 200

        async def routed() -> bool:
            return any(s.to == TO for s in site.hub.router.subscriptions)

        await eventually(routed, 30)
        ids = await publish(site, COUNT)

        async def arrived() -> bool:
            return (await site.hub.store.read("SELECT count(*) FROM delivery WHERE state = 'delivered'"))[0][0] == COUNT

        await eventually(arrived, 60)
        assert Counter(seen) == Counter(ids)
        seen.clear()
        clock.advance(60)
        _, page = await dev.get(f"/portal/endpoints/chinh/replay?mode=all&per_s={PER_S}")
        given = dict(re.findall(r'name="(mode|since|until|per_s|expect)" value="([^"]+)"', page))
        assert given["expect"] == str(COUNT)
        assert (await dev.post("/portal/endpoints/chinh/replay", **given))[0] == 303
        _, book = sink_of(site.hub)
        for second in range(1, COUNT // PER_S + 1):
            # What every node does once a second and, here, the hub's own look as well.
            await asyncio.gather(*(replays.step(site.hub, "doi-tac", book.endpoints) for _ in range(2)))
            await replays.step(site.hub, "doi-tac", book.endpoints)
            assert await owed_again(site) == second * PER_S
            clock.advance(1)
        assert (await site.hub.store.read("SELECT sent FROM partners_replay"))[0][0] == COUNT

        async def came_again() -> bool:
            return len(seen) >= COUNT

        await eventually(came_again, 60)
        assert Counter(seen) == Counter(ids), "every webhook-id once more, and no other"
        page = (await dev.get("/portal/endpoints/chinh"))[1]
        [again] = [
            row for row in await views.deliveries(site.hub.store, event_id=UUID(ids[0]).bytes) if row["generation"] == 1
        ]
        assert "gửi lại lần 1" in (await dev.get(f"/portal/endpoints/chinh/deliveries/{again['id']}"))[1]
