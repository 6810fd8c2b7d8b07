"""Dead letters in bulk: how many stopped for which reason, and all of one reason sent again.

Counted first: whoever wants to send says how many he expects, and nothing is sent while it is another number. Each
step is a transaction of its own, so that stopping it (Ctrl-C, or a destination that fails again) leaves the rest dead.
The console starts one at a time, watches it and stops it (``Again``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hub.app import HubApp
from hub.commit import delivery_id as derive_id
from hub.contract import Report
from hub.errors import HubError, InputError, NotFound
from hub.log import log
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
    found = await _found(hub, reason, destination, state)
    if expect is None:
        destinations = [{"destination": name, "count": count} for name, count in found.per_destination.items()]
        return {"would_replay": found.total, "destinations": destinations, "next": f"--expect {found.total}"}
    found.must_be(expect)
    return await _send(hub, found, report)


async def stopped(hub: HubApp) -> list[Json]:
    """What is dead and could be sent again: reason, destination and count of each group, the most first."""
    rows = await hub.store.read(
        f"SELECT reason, destination, count(*) FROM delivery d WHERE d.state = 'dead'{_LATEST}"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
    )
    return [{"reason": reason, "destination": name, "count": count} for reason, name, count in rows]


@dataclass(frozen=True, slots=True)
class _Found:
    """Deliveries of one reason: how they are asked for, and how many there are."""

    of_these: str
    values: list[Any]
    per_destination: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.per_destination.values())

    def must_be(self, expect: int) -> None:
        """Raises InputError (409): nobody is sent to on a number that nobody has seen."""
        if expect != self.total:
            raise InputError(
                f"có {self.total} lượt gửi, không phải {expect}; chưa gửi lại lượt nào. Xem lại rồi chạy với"
                f" --expect {self.total} / there are {self.total} deliveries, not {expect}; none was sent again. Look,"
                f" then run with --expect {self.total}",
                problem="conflict",
                status=409,
            )


async def _found(hub: HubApp, reason: str, destination: str | None, state: str) -> _Found:
    """Raises NotFound when there is none."""
    where, values = _filter(state, destination, reason)
    of_these = f"FROM delivery d WHERE 1 = 1{where}{_LATEST}"
    rows = await hub.store.read(f"SELECT destination, count(*) {of_these} GROUP BY 1 ORDER BY 1", values)
    if not rows:
        raise NotFound(
            f"không có lượt gửi nào '{state}' vì '{reason}' / no delivery is '{state}' because of '{reason}'"
        )
    return _Found(of_these, values, dict(rows))


async def _send(hub: HubApp, found: _Found, report: Report, is_stopped: Callable[[], bool] = lambda: False) -> Json:
    sql = f"SELECT id, event_id, destination, recipient, generation {found.of_these} ORDER BY id"
    rows = await hub.store.read(sql, found.values)
    replayed = gone = 0
    stopped_by = ""
    before = await _put_aside(hub, list(found.per_destination))
    for start in range(0, len(rows), STEP):
        aside = await _put_aside(hub, list(found.per_destination)) - before
        if stopped_by := "operator" if is_stopped() else ", ".join(sorted(aside)):
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
        report({"replayed": replayed, "of": found.total})
        await asyncio.sleep(0)
    return {
        "replayed": replayed,
        "content_gone": gone,
        "left": found.total - replayed - gone,
        "stopped_by": stopped_by,
        "failed": bool(stopped_by),
    }


@dataclass(slots=True)
class Sending:
    """One group that is sent again, or the last one that was."""

    reason: str
    total: int
    replayed: int = 0
    is_stopped: bool = False
    #: What came of it; None while it runs.
    ended: Json | None = None


class Again:
    """For the console: starts one group at a time in this process, says how far it is, stops it."""

    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self._task: asyncio.Task[None] | None = None
        #: The one that runs, or ran last since this process began.
        self.sending: Sending | None = None

    async def start(self, reason: str, destination: str | None, expect: int) -> None:
        """Raises: InputError (409) while another runs or when it is another number, NotFound when there is none."""
        found = await _found(self._hub, reason, destination, "dead")
        found.must_be(expect)
        if self._task is not None and not self._task.done():
            raise InputError("đang gửi lại một nhóm khác / another group is being sent", problem="busy", status=409)
        self.sending = Sending(reason, found.total)
        self._task = asyncio.create_task(self._run(found, self.sending), name="again")

    async def _run(self, found: _Found, sending: Sending) -> None:
        def report(progress: Any) -> None:
            sending.replayed = progress["replayed"]
            self._hub.on_change()

        try:
            sending.ended = await _send(self._hub, found, report, lambda: sending.is_stopped)
        except HubError as error:  # the ledger takes no writes now: what was not sent again is dead as before
            log("worker.blocked", reason=error.code)
            left = sending.total - sending.replayed
            sending.ended = {"replayed": sending.replayed, "left": left, "stopped_by": error.code, "failed": True}
        self._hub.on_change()

    def stop(self) -> None:
        """Ends it after the step under way."""
        if self.sending is not None:
            self.sending.is_stopped = True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


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
