"""Idempotency-Key: the same request again gets the same answer, for a day, and is done once.

A row is written before the work and completed after it. What a dead process left half done is run again, with the
same ``request_key``: a command that makes its drafts by it adds nothing twice.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sqlalchemy import text

from hub.app import HubApp
from hub.contract import Guard, Principal, Sealed, UnitOfWork
from hub.errors import Conflict, InputError
from hub.model import to_us
from hub.sql import query

HEADER = "Idempotency-Key"
KEPT_US = 24 * 3_600_000_000
#: Answers are sealed under a key of their own: they may hold what an event's content holds.
_SUBJECT = "api-answers"
_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)

_BEGIN = query(
    text(
        "INSERT INTO idempotency (principal, key, fingerprint, boot, keep_until)"
        " VALUES (:principal, :key, :fingerprint, :boot, :keep_until) ON CONFLICT (principal, key) DO UPDATE"
        " SET fingerprint = excluded.fingerprint, boot = excluded.boot, status = NULL, answer = NULL,"
        " keep_until = excluded.keep_until WHERE idempotency.keep_until < :now OR (idempotency.status IS NULL"
        " AND idempotency.fingerprint = excluded.fingerprint AND idempotency.boot = :lost)"
    )
)
_FIND = query(
    text(
        "SELECT i.fingerprint, i.status, i.answer, i.boot, i.keep_until, n.boot FROM idempotency i LEFT JOIN node n"
        " ON n.boot = i.boot AND n.lease_until > :now WHERE i.principal = :principal AND i.key = :key"
    )
)
_DONE = query(
    text(
        "UPDATE idempotency SET status = :status, answer = :answer WHERE principal = :principal AND key = :key"
        " AND boot = :boot AND status IS NULL"
    )
)
_UNDO = query(
    text("DELETE FROM idempotency WHERE principal = :principal AND key = :key AND boot = :boot AND status IS NULL")
)


class Idempotency:
    """One per server: it knows what runs in this process."""

    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self._running: set[tuple[str, bytes]] = set()

    def key_of(self, value: str) -> str:
        """Raises ``InputError`` for what is no key."""
        # The draft's own form is a string in quotes; most senders leave them out.
        key = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        if not _KEY.fullmatch(key):
            raise InputError(problem="idempotency-key-invalid", status=400, at=HEADER)
        return key

    async def once(
        self, who: Principal, key: str, asked: bytes, status: int, work: Callable[[Principal], Awaitable[bytes]]
    ) -> tuple[int, bytes, bool]:
        """Status, body, and whether it is the answer from before. ``work`` gets the principal with its request_key.

        Raises: InputError 409 while the first is still running, 422 where the key was used for something else;
            whatever ``work`` raises, and then nothing is kept: it may be tried again with the same key.
        """
        hub = self._hub
        mine = (who.name, hub.keyed_hash("idempotency", key))
        before, until = await self._begin(mine, hub.keyed_hash("asked", asked.decode()))
        if before is not None:
            return *before, True
        try:
            # Its end tells it from a later use of the same key.
            answer = await work(replace(who, request_key=f"{who.name}:{mine[1].hex()}:{until}"))
        except BaseException:
            await self._write(Guard(_UNDO(principal=mine[0], key=mine[1], boot=hub.boot)))
            raise
        finally:
            self._running.discard(mine)
        sealed = Sealed(_SUBJECT, answer)
        done = _DONE(status=status, answer=sealed, principal=mine[0], key=mine[1], boot=hub.boot)
        await self._write(Guard(done))
        return status, answer, False

    async def _write(self, guard: Guard) -> None:
        try:
            await self._hub.commit(UnitOfWork(guards=[guard]))
        except Conflict:
            return  # another node took this process for dead and runs it again

    async def _begin(self, mine: tuple[str, bytes], fingerprint: bytes) -> tuple[tuple[int, bytes] | None, int]:
        """The answer from before, or None: it is ours to run now; and until when it is kept."""
        hub = self._hub
        principal, key = mine
        lost, until = b"", 0
        for _ in range(3):
            now = to_us(hub.now())
            until = until or now + KEPT_US
            guard = Guard(
                _BEGIN(
                    principal=principal, key=key, fingerprint=fingerprint, boot=hub.boot, now=now, lost=lost,
                    keep_until=until,
                )
            )  # fmt: skip
            if mine not in self._running:
                self._running.add(mine)
                try:
                    await hub.commit(UnitOfWork(guards=[guard]))
                    return None, until
                except Conflict:
                    self._running.discard(mine)
                except BaseException:
                    self._running.discard(mine)
                    raise
            rows = await hub.fetch(_FIND(principal=principal, key=key, now=now))
            if not rows:
                lost, until = b"", 0
                continue  # it was undone meanwhile, or is being begun
            kept, status, sealed, boot, until, alive = rows[0]
            if kept != fingerprint:
                raise InputError(problem="idempotency-key-reused", status=422, at=HEADER)
            if status is not None:
                (answer,) = await hub.unseal([(_SUBJECT, sealed)])
                return (status, answer if answer is not None else b"{}"), until
            runs = mine in self._running if boot == hub.boot else hub.store.shared and alive is not None
            if runs:
                break
            lost = boot
        raise InputError(problem="request-in-flight", status=409, at=HEADER)
