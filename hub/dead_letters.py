"""Dead letters in bulk: how many stopped for which reason, and all of one reason sent again.

Counted first: whoever wants to send says how many he expects, and nothing is sent while it is another number. Each
step is a transaction of its own, so that stopping it (Ctrl-C, or a destination that fails again) leaves the rest dead.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from hub.app import HubApp
from hub.commit import delivery_id as derive_id
from hub.contract import Report
from hub.errors import InputError, NotFound
from hub.model import Json, to_us

#: Deliveries between two looks at their destinations.
STEP = 100
#: What a person may send again in bulk. ``unknown`` is none of them: each may have arrived.
ENDED = ("dead", "cancelled")
Group = Literal["reason", "destination", "state"]

_SETTLED = "SELECT id, event_id, destination, recipient, state, reason, generation, settled_at FROM delivery"
_HELD = "SELECT id, event_id, destination, recipient, state, reason, generation, due_at FROM queue"
#: The last generation of each only: what was sent again already is not dead any more.
_LATEST = (
    " AND NOT EXISTS (SELECT 1 FROM delivery n WHERE n.event_id = d.event_id AND n.destination = d.destination"
    " AND n.recipient = d.recipient AND n.generation > d.generation) AND NOT EXISTS (SELECT 1 FROM queue n"
    " WHERE n.event_id = d.event_id AND n.destination = d.destination AND n.recipient = d.recipient"
    " AND n.generation > d.generation)"
)


async def counted(hub: HubApp, by: Group, state: str | None, destination: str | None, reason: str | None) -> Json:
    """Deliveries that did not arrive, or those of ``state``, by reason, destination or state; the most first."""
    where, values = _filter(state, destination, reason)
    if state is None:
        where += " AND state IN ('dead', 'cancelled', 'unknown')"
    rows = await hub.store.read(
        f"SELECT {by}, state, count(*) FROM ({_SETTLED} UNION ALL {_HELD}) d WHERE 1 = 1{where}"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
        values,
    )
    return {"groups": [{by: key, "state": state, "count": count} for key, state, count in rows]}


async def replay(
    hub: HubApp, reason: str, destination: str | None, state: str, expect: int | None, report: Report
) -> Json:
    """Counts; with ``expect`` the same number, sends. A destination that is put aside meanwhile ends it.

    Raises: NotFound when there is none, InputError when it is another number than expected.
    """
    where, values = _filter(state, destination, reason)
    of_these = f"FROM delivery d WHERE 1 = 1{where}{_LATEST}"
    per_destination = await hub.store.read(f"SELECT destination, count(*) {of_these} GROUP BY 1 ORDER BY 1", values)
    total = sum(count for _, count in per_destination)
    if not total:
        raise NotFound(
            f"không có lượt gửi nào '{state}' vì '{reason}' / no delivery is '{state}' because of '{reason}'"
        )
    found = [{"destination": name, "count": count} for name, count in per_destination]
    if expect is None:
        return {"would_replay": total, "destinations": found, "next": f"--expect {total}"}
    if expect != total:
        raise InputError(
            f"có {total} lượt gửi, không phải {expect}; chưa gửi lại lượt nào. Xem lại rồi chạy với --expect {total}"
            f" / there are {total} deliveries, not {expect}; none was sent again. Look, then run with --expect {total}",
            problem="conflict",
            status=409,
        )
    return await _send(hub, of_these, values, [name for name, _ in per_destination], total, report)


async def _send(
    hub: HubApp, of_these: str, values: list[Any], destinations: list[str], total: int, report: Report
) -> Json:
    rows = await hub.store.read(
        f"SELECT id, event_id, destination, recipient, generation {of_these} ORDER BY id", values
    )
    replayed = gone = 0
    stopped = ""
    before = await _put_aside(hub, destinations)
    for start in range(0, total, STEP):
        if stopped := ", ".join(sorted(await _put_aside(hub, destinations) - before)):
            break
        for id, event_id, destination, recipient, generation in rows[start : start + STEP]:
            following = derive_id(event_id, destination, recipient, generation + 1)
            try:
                done = await hub.store.replay(id, following, to_us(hub.now()))
            except InputError:  # its content is gone
                gone += 1
                continue
            replayed += done is not None
        if hub.worker is not None:
            hub.worker.wake()
        report({"replayed": replayed, "of": total})
        await asyncio.sleep(0)
    return {
        "replayed": replayed,
        "content_gone": gone,
        "left": total - replayed - gone,
        "stopped_by": stopped,
        "failed": bool(stopped),
    }


async def _put_aside(hub: HubApp, destinations: list[str]) -> set[str]:
    """Those that are paused, or whose breaker is open."""
    failures = hub.config.hub.breaker.failures
    rows = await hub.store.read(
        "SELECT d.id FROM destination d JOIN connection c ON c.name = d.connection"
        " WHERE d.paused_by IS NOT NULL OR c.paused_by IS NOT NULL OR d.failures >= ?",
        (failures,),
    )
    return {name for (name,) in rows} & set(destinations)


def _filter(state: str | None, destination: str | None, reason: str | None) -> tuple[str, list[Any]]:
    given = (("state", state), ("destination", destination), ("reason", reason))
    where = "".join(f" AND d.{column} = ?" for column, value in given if value is not None)
    return where, [value for _, value in given if value is not None]
