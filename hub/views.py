"""What people look at: the ledger as plain dicts, for the command line, the API and the console.

Every function takes the principal who looks. Who does not see everything sees the events and deliveries of some
scopes, and nothing of what has no scope: connections, repairs, runs, nodes. Whoever holds a plugin's key (an owner's)
sees nothing here; what such a key reads is the plugin's own answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from hub import answers
from hub.commit import event_range
from hub.contract import OPERATOR, Principal
from hub.errors import InputError
from hub.model import Json, from_us
from hub.store.base import Store

#: Beyond every feed position.
LAST = 2**62
#: States of what the hub itself will still move.
OPEN = ("waiting", "pending", "leased", "sending")


def _seen_by(who: Principal) -> tuple[str, tuple[str, ...]]:
    """A condition on the scope of a row, and its values."""
    if who.sees_all:
        return "1 = 1", ()
    scopes = () if who.owner else tuple(sorted(who.sees or ()))
    return (f"scope_id IN ({', '.join('?' * len(scopes))})" if scopes else "1 = 0"), scopes


_COLUMNS = (
    "id, event_id, destination, recipient, generation, batch_id, subscription, state, reason, priority, tries,"
    " crashes, lease_no, created_at, expires_at, scope_id"
)
_DELIVERIES = (
    f"SELECT {_COLUMNS}, due_at, CAST(NULL AS BIGINT) AS settled_at FROM queue"
    f" UNION ALL SELECT {_COLUMNS}, CAST(NULL AS BIGINT) AS due_at, settled_at FROM delivery"
)


def parse_id(text: str) -> bytes:
    """16 bytes of an id as people type it, with or without dashes."""
    try:
        return UUID(text.strip()).bytes
    except ValueError:
        raise InputError(f"không phải mã hợp lệ / not an id: {text[:60]!r}", problem="id-invalid", status=400) from None


#: What a person typed as the reason of a resolution may hold a phone or a citizen number.
_DIGITS = re.compile(r"\+?[0-9](?:[ .-]?[0-9]){7,}")


def show_reason(reason: str) -> str:
    """A code as it is; a person's own words without their long numbers."""
    return _DIGITS.sub("***", reason) if reason.startswith("resolved:") else reason


def show_id(raw: bytes | None) -> str | None:
    return None if raw is None else str(UUID(bytes=raw))


def show_time(us: int | None) -> str | None:
    return None if us is None else from_us(us).isoformat(timespec="milliseconds")


async def connections(store: Store, who: Principal = OPERATOR) -> list[Json]:
    """One row per destination: state, why it is paused, counts by state."""
    if not who.sees_all:
        return []
    rows = await store.read(
        "SELECT d.id, d.connection, c.type, coalesce(c.paused_by, d.paused_by), CASE WHEN c.paused_by IS NOT NULL"
        " THEN c.paused_reason ELSE d.paused_reason END, d.failures, d.breaker_until, d.not_before"
        " FROM destination d JOIN connection c ON c.name = d.connection ORDER BY d.id"
    )
    counts: dict[str, dict[str, int]] = {}
    # What is gone from the history is counted in them still, and once more as "pruned:...": not shown.
    tally = "SELECT destination, state, count FROM tally WHERE state NOT LIKE 'pruned:%'"
    for destination, state, count in await store.read(tally):
        counts.setdefault(destination, {})[state] = count
    idle = await store.read(
        "SELECT name, type, paused_by, paused_reason, cursor FROM connection WHERE type <> 'internal'"
        " AND name NOT IN (SELECT connection FROM destination) ORDER BY name"
    )
    result: list[Json] = []
    for id, connection, kind, paused_by, why, failures, breaker_until, not_before in rows:
        result.append(
            {
                "destination": id,
                "connection": connection,
                "type": kind,
                "state": "paused" if paused_by else "breaker_open" if breaker_until else "open",
                "paused_by": paused_by,
                "reason": why,
                "failures": failures,
                "not_before": show_time(not_before) if not_before else None,
                "breaker_until": show_time(breaker_until) if breaker_until else None,
                "counts": counts.get(id, {}),
            }
        )
    for name, kind, paused_by, why, _cursor in idle:
        result.append(
            {
                "destination": None, "connection": name, "type": kind, "state": "paused" if paused_by else "open",
                "paused_by": paused_by, "reason": why, "failures": 0, "not_before": None, "breaker_until": None,
                "counts": {},
            }
        )  # fmt: skip
    return result


_EVENTS = "SELECT position, id, type, source, subject, occurred_at, received_at, batch_id FROM event"


async def events(
    store: Store,
    limit: int = 50,
    after: int | None = None,
    before: int | None = None,
    who: Principal = OPERATOR,
) -> list[Json]:
    """The newest events first (older than the feed position ``before``); with ``after``, those behind it in order.

    Among the newest may be some without a feed position yet: no reader of the feed has seen them.
    """
    seen, scopes = _seen_by(who)
    listed = f"{_EVENTS} WHERE {seen}"
    if after is not None:
        rows = await store.read(f"{listed} AND position > ? ORDER BY position LIMIT ?", (*scopes, after, limit))
    elif before is not None:
        rows = await store.read(f"{listed} AND position < ? ORDER BY position DESC LIMIT ?", (*scopes, before, limit))
    else:
        # PostgreSQL's way with NULL in descending order, and only there a position may be missing.
        rows = await store.read(f"{listed} ORDER BY position DESC, id DESC LIMIT ?", (*scopes, limit))
    return [_event(row) for row in rows]


async def event(store: Store, event_id: bytes, who: Principal = OPERATOR) -> Json | None:
    """One event's envelope; its content is not for looking at."""
    seen, scopes = _seen_by(who)
    rows = await store.read(f"{_EVENTS} WHERE id = ? AND {seen}", (event_id, *scopes))
    return _event(rows[0]) if rows else None


def _event(row: tuple[Any, ...]) -> Json:
    position, id, type_, source, subject, occurred, received, batch = row
    return {
        "position": position,
        "id": show_id(id),
        "type": type_,
        "source": source,
        "subject": subject,
        "occurred_at": show_time(occurred),
        "received_at": show_time(received),
        "batch_id": show_id(batch),
    }


async def deliveries(
    store: Store,
    *,
    state: str | None = None,
    destination: str | None = None,
    reason: str | None = None,
    event_id: bytes | None = None,
    arrived: tuple[int, int] | None = None,
    before: bytes | None = None,
    limit: int = 50,
    who: Principal = OPERATOR,
) -> list[Json]:
    """Newest first: unsettled and settled ones alike.

    Args:
        state: one state, or "open" for all that the hub itself will still move.
        arrived: only deliveries of events that came between these two instants (microseconds).
        before: only those listed after this delivery, for the next page.
    """
    seen, scopes = _seen_by(who)
    where: list[str] = [] if who.sees_all else [seen]
    values: list[str | bytes] = [*scopes]
    if state == "open":
        where.append("state IN ('" + "', '".join(OPEN) + "')")
        state = None
    for column, value in (("state", state), ("destination", destination), ("reason", reason)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if event_id is not None:
        low, high = event_range(event_id)
        where.append("id BETWEEN ? AND ? AND event_id = ?")
        values += [low, high, event_id]
    if arrived is not None:
        where.append("id >= ? AND id < ?")
        values += [_first_id(arrived[0]), _first_id(arrived[1])]
    if before is not None:
        where.append("id < ?")
        values.append(before)
    condition = " WHERE " + " AND ".join(where) if where else ""
    # The id leads with the event's time, so each half is read from its end by index.
    halves = [
        f"SELECT * FROM (SELECT {_COLUMNS}, due_at, CAST(NULL AS BIGINT) AS settled_at FROM queue{condition}"
        " ORDER BY id DESC LIMIT ?) q",
        f"SELECT * FROM (SELECT {_COLUMNS}, CAST(NULL AS BIGINT), settled_at FROM delivery{condition}"
        " ORDER BY id DESC LIMIT ?) d",
    ]
    sql = " UNION ALL ".join(halves) + " ORDER BY 1 DESC LIMIT ?"
    rows = await store.read(sql, (*values, limit, *values, limit, limit))
    return [_delivery(row) for row in rows]


def _first_id(us: int) -> bytes:
    """No delivery of an event made at this instant or later has a lower id: ids lead with milliseconds."""
    return (us // 1000).to_bytes(6) + bytes(10)


def _delivery(row: tuple[Any, ...]) -> Json:
    (id, event_id, destination, recipient, generation, batch_id, subscription, state, reason, priority, tries,
     crashes, _lease_no, created_at, expires_at, _scope, due_at, settled_at) = row  # fmt: skip
    return {
        "id": show_id(id),
        "event_id": show_id(event_id),
        "destination": destination,
        "recipient": recipient,
        "generation": generation,
        "batch_id": show_id(batch_id),
        "subscription": subscription,
        "state": state,
        "reason": show_reason(reason),
        "priority": priority,
        "tries": tries,
        "crashes": crashes,
        "created_at": show_time(created_at),
        "expires_at": show_time(expires_at),
        "due_at": show_time(due_at) if state in ("pending", "accepted", "unknown") else None,
        "settled_at": show_time(settled_at),
    }


async def delivery(
    store: Store, delivery_id: bytes, who: Principal = OPERATOR, unseal: answers.Unseal | None = None
) -> Json | None:
    """One delivery with its event's envelope, attempts, references and receipts.

    Args:
        unseal: opens answers that are sealed under a person's key; without it they are left out.
    """
    seen, scopes = _seen_by(who)
    found_by = f"SELECT * FROM ({_DELIVERIES}) all_of_them WHERE id = ? AND {seen}"
    rows = await store.read(found_by, (delivery_id, *scopes))
    if not rows:
        return None
    found = _delivery(rows[0])
    if envelope := await event(store, rows[0][1]):
        found["event"] = envelope
    found["attempts"] = await attempts(store, delivery_id, unseal or _closed)
    found["receipts"] = [
        {"ref": ref, "state": state, "reason": reason, "received_at": show_time(at)}
        for ref, state, reason, at in await store.read(
            "SELECT p.ref, coalesce(r.state, p.state), coalesce(r.reason, p.reason), coalesce(r.received_at,"
            " p.updated_at) FROM provider_ref p LEFT JOIN receipt r ON r.connection = p.connection AND r.ref = p.ref"
            " WHERE p.delivery_id = ? ORDER BY 4",
            (delivery_id,),
        )
    ]
    return found


async def _closed(sealed: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
    return [None] * len(sealed)


async def attempts(store: Store, delivery_id: bytes, unseal: answers.Unseal) -> list[Json]:
    """What was tried, the first first: times apart, and of the answer what is kept, masked."""
    rows = await store.read(
        "SELECT lease_no, started_at, finished_at, outcome, reason, status, connect_us, first_byte_us, total_us,"
        " answer FROM attempt WHERE delivery_id = ? ORDER BY lease_no",
        (delivery_id,),
    )
    kept = await answers.read(unseal, [row[-1] for row in rows])
    return [
        {
            "no": no,
            "started_at": show_time(started),
            "finished_at": show_time(finished),
            "outcome": outcome,
            "reason": reason,
            "status": status,
            "dns_ms": _ms(seen.dns_us),
            "connect_ms": _ms(connect),
            "tls_ms": _ms(seen.tls_us),
            "first_byte_ms": _ms(first),
            "total_ms": _ms(total),
            "answer": seen.answer,
        }
        for (no, started, finished, outcome, reason, status, connect, first, total, _), seen in zip(
            rows, kept, strict=True
        )
    ]


def _ms(us: int | None) -> float | None:
    return None if us is None else round(us / 1000, 1)


#: Hours the day's counts look back.
DAY_HOURS = 24
_HOUR_US = 3_600_000_000
_DAY = " UNION ALL ".join(
    "SELECT destination, (created_at - ?) / 3600000000 AS hour,"
    " sum(CASE WHEN state IN ('delivered', 'accepted') THEN 1 ELSE 0 END),"
    " sum(CASE WHEN state IN ('dead', 'unknown') THEN 1 ELSE 0 END)"
    f" FROM {table} WHERE id >= ? AND created_at >= ? GROUP BY destination, hour"
    for table in ("delivery", "queue")
)


async def day_counts(store: Store, now: int, who: Principal = OPERATOR) -> dict[str, list[list[int]]]:
    """Per destination and hour of the last day, the oldest hour first: [arrived or accepted, dead or unknown].

    Counted by when the delivery was owed. Reads every delivery of the day's events: keep the answer a while.
    """
    start = now - DAY_HOURS * _HOUR_US
    result: dict[str, list[list[int]]] = {}
    for destination, hour, good, bad in await store.read(_DAY, (start, _first_id(start), start) * 2):
        hours = result.setdefault(destination, [[0, 0] for _ in range(DAY_HOURS)])
        # An event committed between the clock's reading and the query belongs to the last hour.
        at = min(hour, DAY_HOURS - 1)
        hours[at][0] += good
        hours[at][1] += bad
    return result


_LAST_RUN = "SELECT state, reason, items, due_at, finished_at FROM run WHERE kind = 'pull' AND object = ? ORDER BY slot"


async def last_run(store: Store, connection: str, who: Principal = OPERATOR) -> Json | None:
    """The latest pull of a connection: a scheduled one has its time as slot, one asked for the negative time."""
    rows = await store.read(
        f"SELECT * FROM ({_LAST_RUN} DESC LIMIT 1) l UNION SELECT * FROM ({_LAST_RUN} LIMIT 1) f ORDER BY due_at DESC",
        (connection, connection),
    )
    if not rows:
        return None
    state, reason, items, due, finished = rows[0]
    return {
        "state": state, "reason": reason, "items": items, "due_at": show_time(due), "finished_at": show_time(finished)
    }  # fmt: skip


async def repairs(store: Store, who: Principal = OPERATOR) -> list[Json]:
    """What a person must do, the oldest first."""
    if not who.sees_all:
        return []
    return [
        {"id": id, "kind": kind, "object": object, "detail": detail, "opened_at": show_time(at)}
        for id, kind, object, detail, at in await store.read(
            "SELECT id, kind, object, detail, opened_at FROM repair WHERE cleared_at IS NULL ORDER BY opened_at"
        )
    ]


async def nodes(store: Store, who: Principal = OPERATOR) -> list[Json]:
    """The processes that share the ledger, the oldest first; none on SQLite, which one process has for itself."""
    held: dict[bytes, list[str]] = {}
    for lease, owner in await store.read("SELECT name, owner FROM lease ORDER BY name"):
        held.setdefault(owner, []).append(lease)
    now = await store.now()
    return [
        {
            "name": name,
            "boot": show_id(boot),
            "since": show_time(started_at),
            "state": "alive" if lease_until > now else "silent",
            "lease_until": show_time(lease_until),
            "leads": "leader" in held.get(boot, ()),
            "sessions": [lease.split(":")[1] for lease in held.get(boot, ()) if lease.startswith("session:")],
        }
        for boot, name, started_at, lease_until in await store.read(
            "SELECT boot, name, started_at, lease_until FROM node ORDER BY started_at, boot"
        )
    ]


async def batches(store: Store, who: Principal = OPERATOR) -> list[Json]:
    return [
        {
            "id": show_id(id), "event_id": show_id(event), "state": state, "total": total, "made": made,
            "unreachable": unreachable, "created_at": show_time(at),
        }
        for id, event, state, total, made, unreachable, at in await store.read(
            "SELECT id, event_id, state, total, made, unreachable, created_at FROM batch ORDER BY created_at DESC"
        )
    ]  # fmt: skip


async def runs(store: Store, limit: int = 20, who: Principal = OPERATOR) -> list[Json]:
    return [
        {
            "kind": kind, "object": object, "slot": slot, "state": state, "pages": pages, "items": items,
            "reason": reason, "started_at": show_time(started), "finished_at": show_time(finished),
        }
        for kind, object, slot, state, pages, items, reason, started, finished in await store.read(
            "SELECT kind, object, slot, state, pages, items, reason, started_at, finished_at FROM run"
            " ORDER BY due_at DESC LIMIT ?",
            (limit,),
        )
    ]  # fmt: skip


async def unsettled(store: Store) -> Mapping[str, int]:
    """Counts of what has still something to come by itself, for whoever waits until all is settled."""
    rows = await store.read("SELECT state, count(*) FROM queue GROUP BY state")
    return dict(rows)
