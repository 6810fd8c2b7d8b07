"""Events of a range sent to one endpoint again, or for the first time: counted first, then at a set speed, with a stop.

A replay is a row; the connection that sends takes a few events of it every second, in order, and after a restart or on
another node goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from hub.contract import Guard, Hub, UnitOfWork
from hub.errors import Conflict, InputError
from hub.model import from_us, to_us
from plugins.partners import portal_tables as tables
from plugins.partners.endpoint import Endpoint
from plugins.partners.grants import Grant, matches

#: failed: what stopped; missing: also what was never sent; all: also what arrived.
Mode = Literal["failed", "missing", "all"]
#: Events of one look, and how many a count goes through at most.
PAGE, COUNT_MOST = 1000, 100_000
#: Between two steps of a replay, and how long a node that died in one keeps the others from it.
EVERY_US, TAKEN_US = 1_000_000, 30_000_000
_FINAL = ("dead", "cancelled", "delivered")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a replay means: what the endpoint wants and its partner may see, by what became of it."""

    destination: str
    types: Sequence[str]
    grants: Sequence[Grant]
    mode: Mode

    def means(self, event: bytes, kind: str, last: tuple[str, int] | None, before: int, now: datetime) -> bool:
        """``last``: state and instant of its newest delivery; ``before``: one made since the replay began counts."""
        if not any(matches(each, kind) for each in self.types):
            return False
        came = from_us((int.from_bytes(event) >> 80) * 1000)
        if not any(grant.begins_at <= came and grant.covers(kind) and grant.holds(now) for grant in self.grants):
            return False
        if last is None:
            return self.mode != "failed"
        state, created_at = last
        if state not in _FINAL or created_at >= before:
            return False
        return state == "dead" or (state == "cancelled" and self.mode != "failed") or self.mode == "all"


def bound(at: datetime) -> bytes:
    """The lowest id of an event that came at this instant."""
    return int(at.timestamp() * 1000).to_bytes(6) + bytes(10)


async def look(
    hub: Hub, wanted: Wanted, after: bytes, until: bytes, before: int, limit: int = PAGE
) -> tuple[list[bytes], bytes | None]:
    """Events meant among the next ``limit`` of the range, and the last one looked at; None at the end."""
    rows = [(bytes(id), kind) for id, kind in await hub.fetch(tables.EVENTS(after=after, until=until, limit=limit))]
    if not rows:
        return [], None
    first, last = rows[0][0][:6] + bytes(10), rows[-1][0][:6] + b"\xff" * 10
    newest = {
        bytes(event): (state, created_at)
        for event, _, state, created_at in await hub.fetch(
            tables.OWED(first=first, last=last, destination=wanted.destination)
        )
    }
    now = hub.now()
    found = [id for id, kind in rows if wanted.means(id, kind, newest.get(id), before, now)]
    return found, rows[-1][0] if len(rows) == limit else None


async def count(hub: Hub, wanted: Wanted, after: bytes, until: bytes, before: int) -> int:
    """How many events a replay would send. Raises: InputError (422) for a range too large to count."""
    total, seen, following = 0, 0, after
    while True:
        found, last = await look(hub, wanted, following, until, before)
        total, seen = total + len(found), seen + PAGE
        if last is None:
            return total
        if seen >= COUNT_MOST:
            text = "khoảng này quá lớn; chọn khoảng ngắn hơn / this range is too large; choose a shorter one"
            raise InputError(text, problem="input-invalid", status=422)
        following = last


def estimate_s(total: int, per_s: int) -> timedelta:
    return timedelta(seconds=-(-total // per_s))


async def step(hub: Hub, connection: str, endpoints: Mapping[str, Endpoint]) -> None:
    """One second's worth of every replay that took none within the last one, on whichever node."""
    now = to_us(hub.now())
    running = await hub.fetch(tables.RUNNING(before=now - EVERY_US))
    for id, partner, name, mode, after, until, per_s, _, _, _, created_at in running:
        taken = tables.TAKE_REPLAY(id=bytes(id), old=bytes(after), until=now + TAKEN_US, before=now - EVERY_US)
        try:
            await hub.commit(UnitOfWork(guards=[Guard(taken, otherwise="moved")]))
        except Conflict:
            continue  # stopped, or another node does this step
        destination = f"{connection}/{partner}.{name}"
        endpoint = endpoints.get(destination)
        sent, last, state = 0, bytes(after), "done"
        if endpoint is not None:
            wanted = Wanted(destination, endpoint.types, endpoint.grants or (), mode)
            found, following = await look(hub, wanted, bytes(after), bytes(until), created_at)
            for event in found[:per_s]:
                # The same event twice, after a crash before the row below: owed since the replay began, so left alone.
                sent += await _resent(hub, event, destination, created_at)
            if len(found) > per_s:
                last, state = found[per_s - 1], "running"
            elif following is not None:
                last, state = following, "running"
        moved = tables.STEP_REPLAY(id=bytes(id), old=bytes(after), new=last, sent=sent, state=state, now=now)
        try:
            await hub.commit(UnitOfWork(guards=[Guard(moved, otherwise="moved")]))
        except Conflict:
            continue  # stopped


async def _resent(hub: Hub, event: bytes, destination: str, created_at: int) -> bool:
    try:
        return await hub.resend(UUID(bytes=event), destination, before=from_us(created_at)) is not None
    except InputError:  # its content is gone
        return False
