"""Inbound requests as they came: sealed rows, and back to what a receiver is handed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from sqlalchemy import text

from hub import strictjson
from hub.commit import Committer
from hub.contract import RawRequest, Sealed, Verified
from hub.errors import NotFound
from hub.model import Draft, from_us, to_us
from hub.sql import Statement, query
from hub.store.base import Store

#: What proves who sent it proves nothing later, and is not for keeping.
_NOT_KEPT = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})

_KEEP = query(
    text(
        "INSERT INTO raw_request (id, connection, state, event_id, received_at, sealed_for, request, keep_until)"
        " VALUES (:id, :connection, :state, :event_id, :received_at, :sealed_for, :request, :keep_until)"
        " ON CONFLICT (id) DO NOTHING"
    )
)
_FIND = query(
    text(
        "SELECT r.connection, r.state, r.event_id, r.received_at, r.sealed_for, r.request, c.sealed_for, c.body"
        " FROM raw_request r LEFT JOIN content c ON c.event_id = r.event_id AND r.state = 'unread' WHERE r.id = :id"
    )
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a connection keeps as it came."""

    what: Literal["none", "failures", "all"]
    days: int


DEFAULT = Keeping("failures", 30)


def parsed(request: RawRequest) -> Any:
    """What ``understand`` is handed: strict JSON, or bytes where that is not what was said. Raises ``InputError``."""
    if request.method in ("GET", "HEAD", "DELETE") or not is_json(request.headers.get("content-type")):
        return request.body
    return strictjson.loads(request.body)


def is_json(content_type: str | None) -> bool:
    """Whether a media type is JSON; what says nothing is."""
    media = (content_type or "application/json").partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def as_it_came(
    request: RawRequest,
    verified: Verified,
    state: Literal["read", "unread", "not_json"],
    committer: Committer,
    raw: Keeping,
    drafts: Sequence[Draft] = (),
    body: bytes | None = None,
) -> Statement:
    """Keeps it, once for the same message. ``body``: what its identity is made of where that is kept elsewhere."""
    headers = {name: value for name, value in request.headers.items() if name not in _NOT_KEPT}
    head = {
        "method": request.method, "path": request.path, "query": _utf8(request.query), "headers": _utf8(headers),
    }  # fmt: skip
    # A body about one person goes with that person.
    subjects = {draft.subject for draft in drafts if draft.subject is not None}
    subject = subjects.pop() if len(subjects) == 1 else f"raw:{request.connection}"
    now = to_us(request.received_at)
    identity = f"{request.connection}\0{verified.dedupe_key}\0{state}\0".encode()
    return _KEEP(
        id=committer.keyed_hash("raw", identity + (request.body if body is None else body)),
        connection=request.connection,
        state=state,
        event_id=drafts[0].id.bytes if drafts else None,
        received_at=now,
        sealed_for=subject,
        request=Sealed(subject, orjson.dumps(head) + b"\n" + request.body),
        keep_until=now + raw.days * 86_400_000_000,
    )


def _utf8(values: Mapping[str, str]) -> dict[str, str]:
    """Bytes that are no UTF-8 arrive as half surrogates, which JSON cannot carry."""
    return {k.encode(errors="replace").decode(): v.encode(errors="replace").decode() for k, v in values.items()}


def from_kept(connection: str, opened: bytes, received_at: datetime) -> RawRequest:
    """The request behind a row that was opened."""
    head, _, body = opened.partition(b"\n")
    said = orjson.loads(head)
    return RawRequest(
        connection=connection,
        headers=said["headers"],
        body=body,
        received_at=received_at,
        method=said["method"],
        path=said["path"],
        query=said["query"],
    )


async def find(id: bytes, committer: Committer, store: Store) -> tuple[RawRequest, bytes | None]:
    """A request and the event it became. Raises ``NotFound`` also where the person it was about is erased."""
    rows = await store.fetch(_FIND(id=id))
    if not rows:
        raise NotFound
    connection, state, event_id, received_at, sealed_for, sealed, body_for, body = rows[0]
    await committer.ring.prepare([sealed_for, body_for or sealed_for], make=False)
    opened = committer.ring.unseal(sealed_for, sealed)
    if opened is None:
        raise NotFound
    request = from_kept(connection, opened, from_us(received_at))
    if state == "unread":
        content = None if body is None else committer.ring.unseal(body_for, body)
        if content is None:
            raise NotFound
        opened = opened + content
        request = from_kept(connection, opened, request.received_at)
    return request, event_id
