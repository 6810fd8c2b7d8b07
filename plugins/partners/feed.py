"""What a partner's API key reads of the feed: the same grants as its endpoints, no endpoint needed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import orjson

from hub.contract import Hub, Principal
from hub.model import Event, Json
from plugins.partners import tables
from plugins.partners.access import OWNER
from plugins.partners.grants import Grant, what_may_leave
from plugins.partners.managed import read_grant
from plugins.partners.schema import cloud_event


@dataclass
class PartnerFeed:
    """``FeedView``: the granted part of an event as a CloudEvent; read again whenever a grant changed."""

    hub: Hub
    _number: int = -1
    _grants: dict[str, list[Grant]] = field(default_factory=dict)

    async def __call__(self, principal: Principal, event: Event) -> Json | None:
        if not principal.owner.startswith(OWNER):
            return None
        await self._reload()
        grants = self._grants.get(principal.owner.removeprefix(OWNER), [])
        data = what_may_leave(grants, event, self.hub.now())
        if isinstance(data, str):
            return None
        shown: Json = orjson.loads(cloud_event(replace(event, data=data)))
        return shown

    async def _reload(self) -> None:
        number = max((int(n) for (n,) in await self.hub.fetch(tables.CHANGED())), default=0)
        if number == self._number:
            return
        grants: dict[str, list[Grant]] = {}
        for row in await self.hub.fetch(tables.GRANTS()):
            grants.setdefault(row[1], []).append(read_grant(row))
        self._grants, self._number = grants, number
