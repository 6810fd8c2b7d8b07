"""What was kept because nobody could read it goes through tomorrow's mapping, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hub import views
from hub.contract import Connection, RawRequest, UnitOfWork, Verified
from hub.errors import NotUnderstood
from hub.ingest import QUARANTINED
from hub.model import Draft, Json
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from tests.flow.conftest import ON_BOTH

TYPE = "vn.congdoan.note.taken.v1"


class Notes:
    """Genuine by definition; understands bodies with the keys it knows."""

    def __init__(self) -> None:
        self.key = "old"

    def verify(self, request: RawRequest) -> Verified:
        return Verified(request.headers["id"])

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        if self.key not in body:
            raise NotUnderstood
        data: Json = {"id": body[self.key], "n": 1}
        return UnitOfWork(drafts=[Draft(type=TYPE, source="", dedupe_key=verified.dedupe_key, data=data)])


@pytest.fixture
def notes() -> Notes:
    return Notes()


@ON_BOTH
async def test_kept_requests_become_events_once_when_the_mapping_can_read_them(
    tmp_path: Path, notes: Notes, database_url: str
) -> None:
    sink = RecordingSink()
    registry = registry_of(
        connector_types=[connector("door", Connection(receiver=notes)), connector("desk", Connection(sink=sink))],
        event_types=[plain_event_type(TYPE)],
    )
    async with running_hub(
        tmp_path,
        registry,
        connections={"door": {}, "desk": {}},
        subscriptions=[{"name": "s", "types": [TYPE], "to": "desk"}],
        settings={"database_url": database_url},
    ) as hub:
        for number in (1, 2):
            body = b'{"new": %d}' % number
            taken = await hub.take(RawRequest("door", {"id": f"m{number}"}, body, hub.now()))
            assert taken.quarantined
        broken = await hub.take(RawRequest("door", {"id": "m3"}, b'{"neither": 3}', hub.now()))
        assert broken.quarantined
        assert await hub.reread("door") == (0, 3)
        notes.key = "new"
        assert await hub.reread("door") == (2, 1)
        await eventually(lambda: len(sink.shipments) == 2)
        assert sorted(s.event.data["id"] for s in sink.shipments) == [1, 2]
        kept = {UUID(e["id"]) for e in await views.events(hub.store) if e["type"] == QUARANTINED.name}
        assert {s.event.correlation_id for s in sink.shipments} < kept, "each tells which request it came from"
        assert [r["kind"] for r in await views.repairs(hub.store)] == ["not_understood"], "one is still unread"
        assert await hub.reread("door") == (0, 1)
        notes.key = "neither"
        assert await hub.reread("door") == (1, 0)
        assert await views.repairs(hub.store) == []
        repeat = await hub.take(RawRequest("door", {"id": "m1"}, b'{"new": 1}', hub.now()))
        assert repeat.repeated, "the sender's own id is still known"
        await eventually(lambda: len(sink.shipments) == 3)
