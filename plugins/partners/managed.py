"""The endpoints that the API manages, read from the plugin's tables, and what every connection does while the hub runs.

Commands change rows; every node's connection notices the counter, reads again and tells the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from hub.contract import Connection, ConnectionContext, Hub, Subscribed
from hub.model import from_us
from hub.signing import parse_private_key, parse_secret
from plugins.partners import inbox, replays, tables
from plugins.partners.access import sending
from plugins.partners.connector import PartnerSink, open_connection
from plugins.partners.content_filter import BadFilter, Filter
from plugins.partners.endpoint import Endpoint, Keys
from plugins.partners.grants import Grant, common_types
from plugins.partners.guard import Guard
from plugins.partners.settings import PartnerSettings, PartnersSettings

#: How soon a node notices what another one changed, and a grant that ended.
LOOK_EVERY_S = 1.0
#: No delivery of a webhook lives longer, whatever its endpoint does.
EXPIRES_AFTER_S = 90 * 86_400


def subject_of(partner: str) -> str:
    """Under whose key a partner's secrets and contact are sealed."""
    return f"partner:{partner}"


def read_grant(row: Sequence[Any]) -> Grant:
    id, _, types, fields, purpose, legal_basis, begins_at, ends_at = row
    return Grant(
        id=bytes(id).hex(),
        types=tuple(orjson.loads(types)),
        fields=tuple(orjson.loads(fields)),
        purpose=purpose,
        legal_basis=legal_basis,
        begins_at=from_us(begins_at),
        ends_at=None if ends_at is None else from_us(ends_at),
    )


async def read_endpoints(hub: Hub, rows: Sequence[Sequence[Any]], guard: Guard, public_url: str = "") -> list[Endpoint]:
    """Endpoints of rows of ``tables.ENDPOINTS``; one whose keys were destroyed is left out."""
    sealed = [(subject_of(row[0]), value) for row in rows for value in row[5:9]]
    opened = await hub.unseal(sealed)
    found = []
    for n, (partner, name, url, types, settings, *_, until) in enumerate(rows):
        secret, private, older, older_private = (None if v is None else v.decode() for v in opened[4 * n : 4 * n + 4])
        if secret is None and private is None:
            continue
        own = orjson.loads(settings)
        found.append(
            Endpoint(
                name=f"{partner}.{name}",
                partner=partner,
                target=inbox.target_of(url) or guard.look(url),
                keys=Keys(
                    secret=None if secret is None else parse_secret(secret),
                    private=None if private is None else parse_private_key(private),
                    older_secrets=() if older is None else (parse_secret(older),),
                    older_private=() if older_private is None else (parse_private_key(older_private),),
                    older_until=from_us(until),
                ),
                mode=own["mode"],
                timeout_s=own["timeout_s"],
                concurrency=own["concurrency"],
                rate_per_s=own["rate_per_s"],
                grants=(),
                filter=_filter(own["filter"]),
                reference=reference_of(public_url, partner) if own.get("detail") != "full" else "",
                types=tuple(orjson.loads(types)),
            )
        )
    return found


def reference_of(public_url: str, partner: str) -> str:
    return f"{public_url}/api/v1/partners/{partner}/events/" if public_url else ""


def _filter(text: str) -> Filter | None:
    try:
        return Filter(text) if text else None
    except BadFilter:  # one that an older release took: better nothing than too much
        return Filter("`false`")


@dataclass
class ManagedBook:
    """``Book`` of the connection that sends for what the API manages."""

    context: ConnectionContext
    guard: Guard
    public_url: str = ""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    limit_per_host: int = 500
    _number: int = -1

    async def reload(self) -> None:
        """Reads partners, grants and endpoints again if anything has changed."""
        hub = self.context.hub
        if sending(hub) != self.context.name:
            return  # another connection of this type sends for all
        number = max((int(n) for (n,) in await hub.fetch(tables.CHANGED())), default=0)
        if number == self._number:
            return
        grants: dict[str, list[Grant]] = {}
        for row in await hub.fetch(tables.GRANTS()):
            grants.setdefault(row[1], []).append(read_grant(row))
        rows = await hub.fetch(tables.ENDPOINTS())
        self.endpoints = {
            f"{self.context.name}/{each.name}": replace(each, grants=tuple(grants.get(each.partner, ())))
            for each in await read_endpoints(hub, rows, self.guard, self.public_url)
        }
        self._number = number

    def wanted(self, now: datetime) -> tuple[Subscribed, ...]:
        """Subscriptions under the grants that have not ended; the sink cuts to the fields of each type."""
        found = []
        for destination, endpoint in sorted(self.endpoints.items()):
            holding = [grant for grant in endpoint.grants or () if grant.ends_at is None or now < grant.ends_at]
            types = common_types(endpoint.types, holding)
            if types:
                fields = sorted({name for grant in holding for name in grant.fields})
                found.append(
                    Subscribed(
                        name=f"partners:{endpoint.name}",
                        types=types,
                        to=destination,
                        fields=tuple(fields),
                        expires_after_s=EXPIRES_AFTER_S,
                    )
                )
        return tuple(found)


# -- while the hub runs ----------------------------------------------------------------------------


def open_managed(context: ConnectionContext, settings: PartnersSettings) -> Connection:
    """The connection of type ``partners``."""
    book = ManagedBook(context, settings.guard, settings.public_url)
    sink = PartnerSink(context, book)
    routed: list[object] = [()]

    async def routes() -> Sequence[Subscribed]:
        await book.reload()
        found = book.wanted(context.hub.now())
        routed[0] = (tuple(book.endpoints.values()), found)
        return found

    async def look() -> None:
        await book.reload()
        await sink.health.refresh()
        # A grant may also have ended by the clock alone.
        if (tuple(book.endpoints.values()), book.wanted(context.hub.now())) != routed[0]:
            await context.changed()
        # Last: an endpoint that is not subscribed yet is owed nothing.
        if sending(context.hub) == context.name:
            await replays.step(context.hub, context.name, book.endpoints)
            await inbox.tidy(context.hub)

    return Connection(sink=sink, check=sink.check, close=sink.close, run=_every(look), routes=routes)


def open_partner(context: ConnectionContext, settings: PartnerSettings) -> Connection:
    """The connection of type ``partner``: one endpoint, as its file says."""
    connection = open_connection(context, settings)
    assert isinstance(connection.sink, PartnerSink)
    connection.run = _every(connection.sink.health.refresh)
    return connection


def _every(look: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        while True:
            await look()
            await asyncio.sleep(LOOK_EVERY_S)

    return run
