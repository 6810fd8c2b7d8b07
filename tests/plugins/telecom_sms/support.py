"""Fakes and small tools of this plugin's tests: a ledger of two tables in memory, a scripted peer, a waiter."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from hub.contract import (
    OPERATOR,
    Committed,
    ConnectionContext,
    DestinationNow,
    Directory,
    Sealed,
    SecretRef,
    Shipment,
    UnitOfWork,
)
from hub.errors import Busy, Conflict
from hub.model import Draft, Event, Json, Receipt, new_id
from hub.sql import Statement
from plugins.telecom_sms import tables
from plugins.telecom_sms.settings import SmsSettings
from plugins.telecom_sms.simulator import wire

KEY = bytes(range(16))
PHONE = "0912555123"
MSISDN = "84912555123"


async def until(claim: Callable[[], Any], within_s: float = 10.0) -> None:
    """Waits for a condition, not for a time."""
    async with asyncio.timeout(within_s):
        # The claims are about sockets and other processes, which set no event of ours.
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class MemoryHub:
    """The part of the hub this plugin uses, on SQLite in memory, with the ledger's rules for guards."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.receipts: list[Receipt] = []
        self.drafts: list[Draft] = []
        self.at = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
        self.principal = OPERATOR
        self.connections: dict[str, Any] = {}
        self.busy = False
        self.before_commit: Callable[[], Awaitable[None]] | None = None
        for table in tables.METADATA.sorted_tables:
            from sqlalchemy.dialects import sqlite
            from sqlalchemy.schema import CreateIndex, CreateTable

            for made in (CreateTable(table), *(CreateIndex(index) for index in table.indexes)):
                self.db.execute(str(made.compile(dialect=sqlite.dialect())))

    async def commit(self, unit: UnitOfWork) -> Committed:
        if self.before_commit is not None:
            await self.before_commit()
        if self.busy:
            raise Busy
        self.db.execute("BEGIN IMMEDIATE")
        for guard in unit.guards:
            statement = guard.statement
            touched = self._run(statement)
            if touched != guard.rows:
                self.db.execute("ROLLBACK")
                raise Conflict(otherwise=guard.otherwise)
        for statement in unit.statements:
            self._run(statement)
        self.db.execute("COMMIT")
        self.receipts.extend(unit.receipts)
        known = {(draft.source, draft.dedupe_key) for draft in self.drafts}
        repeated = tuple((draft.source, draft.dedupe_key) in known for draft in unit.drafts)
        self.drafts.extend(draft for draft, again in zip(unit.drafts, repeated, strict=True) if not again)
        return Committed(tuple(draft.id for draft in unit.drafts), repeated)

    def _run(self, statement: Statement) -> int:
        plain = {k: v.plaintext if isinstance(v, Sealed) else v for k, v in statement.values.items()}
        return self.db.execute(statement.query.sqlite, Statement(statement.query, plain).sqlite_parameters()).rowcount

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self.db.execute(statement.query.sqlite, statement.sqlite_parameters()).fetchall()

    async def unseal(self, sealed: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
        return [value for _, value in sealed]

    def settings_of(self, kind: type[Any]) -> dict[str, Any]:
        return {name: each for name, each in self.connections.items() if isinstance(each, kind)}

    async def standings(self, destinations: Sequence[str]) -> dict[str, DestinationNow]:
        return {}

    async def batch(self, id: UUID) -> Json | None:
        return None

    async def stop_batch(self, id: UUID) -> bool:
        return False

    def keyed_hash(self, kind: str, value: str) -> bytes:
        return hashlib.blake2b(f"{kind}:{value}".encode(), key=KEY, digest_size=16).digest()

    def now(self) -> datetime:
        return self.at

    @property
    def directory(self) -> Directory:
        raise NotImplementedError


class Context:
    """A connection's context that remembers what was logged and which repairs are open."""

    def __init__(self, hub: MemoryHub, password: str = "demo") -> None:
        self.hub = hub
        self.password = password
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.repairs: dict[str, str] = {}

    def value(self) -> ConnectionContext:
        async def open_repair(kind: str, detail: str) -> None:
            self.repairs.setdefault(kind, detail)

        async def clear_repair(kind: str) -> None:
            self.repairs.pop(kind, None)

        return ConnectionContext(
            name="carrier",
            hub=self.hub,
            secret=lambda _: self.password,
            log=lambda event, **keys: self.logged.append((event, keys)),
            open_repair=open_repair,
            clear_repair=clear_repair,
            var_dir=Path(),
        )


def settings(port: int, **changes: Any) -> SmsSettings:
    """Short times, so that a test of a time-out is over soon."""
    base: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "system_id": "demo",
        "password": SecretRef(env="UNUSED"),
        "sender": "CONGDOAN",
        "response_timeout_s": 2.0,
    }
    return SmsSettings(**(base | changes))


def event(text: Any = "Chào", **data: Any) -> Event:
    return Event(
        id=new_id(), type="vn.congdoan.campaign.sent.v1", source="test", subject=None, scope="",
        occurred_at=datetime(2026, 11, 23, tzinfo=UTC), data={"text": text, **data}, correlation_id=new_id(),
    )  # fmt: skip


def shipment(
    text: str,
    *,
    address: str | None = PHONE,
    deadline_s: float = 10.0,
    recorded: list[str] | None = None,
    batch_id: UUID | None = None,
    delivery_id: UUID | None = None,
    expires_in: timedelta | None = None,
    purpose: str = "",
    data: dict[str, Any] | None = None,
) -> Shipment:
    async def record_refs(refs: Sequence[str], of_parts: int = 0) -> None:
        if recorded is not None:
            recorded.extend(refs)

    return Shipment(
        id=(delivery_id or new_id()).bytes, lease_no=1, try_no=1, destination="carrier",
        event=event(text, **(data or {})), recipient="" if data else "member-1", address=address, purpose=purpose,
        batch_id=batch_id, body=text.encode(), deadline_s=deadline_s,
        expires_at=datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC) + expires_in if expires_in else None,
        record_refs=record_refs,
    )  # fmt: skip


class ScriptedPeer:
    """An SMSC of which the test says every word."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._buffer = bytearray()
        self._frames: list[tuple[int, int, int, bytes]] = []

    async def read(self) -> tuple[int, int, int, bytes]:
        """The next PDU: (command, status, sequence, body)."""
        while not self._frames:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError
            self._buffer += data
            self._frames += wire.read_frames(self._buffer)
        return self._frames.pop(0)

    def say(self, command: int, status: int = 0, sequence: int = 0, body: bytes = b"") -> None:
        self.writer.write(wire.frame(command, status, sequence, body))

    async def accept_bind(self) -> None:
        command, _, sequence, _ = await self.read()
        self.say(command | 0x80000000, 0, sequence, b"smsc\0")

    async def answer_submit(self, message_id: str = "1", status: int = 0) -> bytes:
        """The body of the submit; raises ``ConnectionError`` when the client leaves instead."""
        command, _, sequence, body = await self.read()
        if command == wire.UNBIND:
            self.say(command | 0x80000000, 0, sequence)
            raise ConnectionResetError
        assert command == wire.SUBMIT
        self.say(command | 0x80000000, status, sequence, message_id.encode() + b"\0")
        return body


@asynccontextmanager
async def scripted(script: Callable[[ScriptedPeer], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server that plays ``script`` to each client; a failed assertion in it fails the test."""
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(ScriptedPeer(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    if failures:
        raise failures[0]
