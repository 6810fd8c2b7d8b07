"""The inspector inbox: a receiver inside the hub, so that a partner sees a verified event before it has a server.

What the sink would put on the wire is handed over in this process and judged as a receiver would: no socket is opened,
so the guard lets nothing more through than before. Kept: the last 50 requests of a partner, for 24 h.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from time import monotonic
from typing import Final

import orjson
from yarl import URL

from hub.contract import Hub, Sealed, UnitOfWork
from hub.http import Reply
from hub.model import new_id, to_us
from hub.signing import public_key
from plugins.partners import portal_tables as tables
from plugins.partners.doctor import diagnose
from plugins.partners.endpoint import Endpoint, Keys

#: In place of an address; no guard takes this spelling, so nobody can type it.
INBOX: Final = "inbox:/portal"
KEEP, KEEP_FOR = 50, timedelta(hours=24)
KEEP_REPLAYS_FOR = timedelta(days=90)


def target_of(url: str) -> URL | None:
    """What an endpoint that leads to the inbox is posted to; None for every other."""
    return URL(INBOX) if url == INBOX else None


def is_inbox(target: object) -> bool:
    return isinstance(target, URL) and target.scheme == "inbox"


def secret_text(keys: Keys) -> str:
    """What the receiver of these keys' signatures holds: ``whsec_...``, or ``whpk_...`` where it holds no secret."""
    if keys.secret is not None:
        return "whsec_" + b64encode(keys.secret).decode()
    assert keys.private is not None
    return public_key(keys.private)


async def receive(hub: Hub, endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> Reply:
    """One request: verified, kept, answered 204, or 401 with the rule that failed."""
    started = monotonic()
    found = diagnose(secret_text(endpoint.keys), headers, body, hub.now())
    content = orjson.dumps({"headers": dict(headers), "body": body.decode("utf-8", "replace")})
    kept = tables.RECEIVED(
        id=new_id().bytes,
        partner=endpoint.partner,
        endpoint=endpoint.name.partition(".")[2],
        now=to_us(hub.now()),
        rule=found.code,
        content=Sealed(f"partner:{endpoint.partner}", content),
    )
    await hub.commit(UnitOfWork(statements=[kept, tables.KEEP_LAST(partner=endpoint.partner, keep=KEEP)]))
    reply = Reply(started, started)
    reply.status, reply.sent = (204 if found.ok else 401), True
    reply.total_ms = reply.first_byte_ms = (monotonic() - started) * 1000
    return reply


async def tidy(hub: Hub) -> None:
    """Takes away passes that ended, and requests and replays that were kept long enough."""
    now, before, replays = to_us(hub.now()), to_us(hub.now() - KEEP_FOR), to_us(hub.now() - KEEP_REPLAYS_FOR)
    if await hub.fetch(tables.OLD(now=now, before=before, replays_before=replays)):
        ended = [tables.END_PASSES(now=now), tables.END_RECEIVED(before=before), tables.END_REPLAYS(before=replays)]
        await hub.commit(UnitOfWork(statements=ended))
