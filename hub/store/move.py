"""Moves a ledger from its SQLite file into a PostgreSQL database, in pages that a stop does not undo.

Each page and the place it reached commit together, so a second call goes on where the first one ended. At the
end both sides are read again and compared row for row; only then is the file marked as moved.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from hub.errors import ConfigError, MoveFailed
from hub.store.lock import ProcessLock
from hub.store.migrate import Owner, upgrade_sqlite
from hub.store.place import place
from hub.store.rows import PAGE, Table, tables_of

#: Bytes of rows in one transaction of the target.
PAGE_BYTES = 8 << 20
#: Days of history that get partitions of their own; older rows go to the default one.
DAYS = 3660

#: Called with the table, and the rows done so far and in all.
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True)
class Content:
    """Rows of a table and the sum of their hashes: equal, in whichever order they were read, if the rows are."""

    rows: int = 0
    sum: int = 0

    def with_row(self, row: Sequence[Any]) -> Content:
        digest = hashlib.sha256(orjson.dumps([v.hex() if isinstance(v, bytes) else v for v in row])).digest()
        return Content(self.rows + 1, (self.sum + int.from_bytes(digest[:16])) & (1 << 128) - 1)


async def move(
    source: Path,
    lock_file: Path,
    url: str,
    owners: Sequence[Owner],
    fingerprint: bytes,
    progress: Progress,
    *,
    hold: str = "moved",
) -> dict[str, Content]:
    """Answers what was moved, by table. ``hold``: why the target sends nothing until it is released.

    Raises: ConfigError when somebody has to change something, AlreadyRunning while a hub works on the file,
        MoveFailed when it can be tried again.
    """
    lock = ProcessLock(lock_file)
    lock.acquire()
    try:
        _prepare(source, owners)
        with closing(sqlite3.connect(source, isolation_level=None)) as file:
            mover = _Move(file, url, owners, fingerprint, progress, hold)
            async with mover.connected():
                return await mover.run()
    finally:
        lock.release()


def _prepare(source: Path, owners: Sequence[Owner]) -> None:
    if not source.exists():
        raise ConfigError(f"không có sổ cái ở {source} / there is no ledger at {source}")
    upgrade_sqlite(source, owners)


class _Move:
    def __init__(
        self,
        file: sqlite3.Connection,
        url: str,
        owners: Sequence[Owner],
        fingerprint: bytes,
        progress: Progress,
        hold: str,
    ) -> None:
        self._file = file
        self._url = url
        self._owners = owners
        self._progress = progress
        self._hold = hold
        self._known: dict[str, bytes] = dict(file.execute("SELECT key, value FROM installation"))
        kept = self._known.get("key_fingerprint", fingerprint)
        if kept != fingerprint:
            raise ConfigError(
                "hub.key không phải khóa của sổ cái này: chép lại tệp khóa đúng rồi chuyển"
                " / hub.key is not the key of this ledger: copy the right key file, then move"
            )
        self._tables = list(tables_of(file, owners))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        import asyncpg

        from hub.store.postgres.connect import connect
        from hub.store.postgres.upgrade import upgrade_postgres

        self._place = place(self._url)
        moved_to = self._known.get("moved_to")
        if moved_to is not None and moved_to != self._place.encode():
            raise ConfigError(
                f"sổ cái này đã chuyển sang {moved_to.decode()} / this ledger was moved to {moved_to.decode()}"
            )
        await upgrade_postgres(self._url, self._owners)
        self._target = await connect(self._url, settings={"application_name": "unionhub-move"})
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            code = getattr(error, "sqlstate", None) or type(error).__name__
            raise MoveFailed(
                f"{self._place}: đứt giữa chừng ({code}); sổ cái cũ còn nguyên, chạy lại lệnh để đi tiếp"
                f" / broke off ({code}); the old ledger is as it was: run the command again and it goes on"
            ) from error
        finally:
            with suppress(Exception):
                await self._target.close(timeout=2.0)

    async def run(self) -> dict[str, Content]:
        """At no moment may both sides run: the source is marked first, and the target refuses until its own end."""
        marked = "moved_to" in self._known
        there = {row["key"]: row["value"] for row in await self._target.fetch("SELECT key, value FROM installation")}
        if there.get("id") == self._known["id"] and "moving" not in there:
            if marked:
                return {}
            raise ConfigError(
                f"{self._place} đã nhận sổ cái này rồi: tệp này là bản cũ / {self._place} has taken this ledger over"
                " already: this file is an old copy"
            )
        if not marked:
            await self._begin(there)
            await self._make_days()
            for table in self._tables:
                await self._copy(table)
        moved = await self._compare()
        self._file.execute(
            "INSERT INTO installation (key, value) VALUES ('moved_to', ?) ON CONFLICT (key) DO NOTHING",
            (self._place.encode(),),
        )
        await self._finish()
        return moved

    async def _begin(self, there: dict[str, bytes]) -> None:
        """Claims an empty database for this ledger, or finds what an earlier call left."""
        if there.get("id") == self._known["id"]:
            return
        filled = [t.name for t in self._tables if await self._target.fetchval(f"SELECT 1 FROM {t.name} LIMIT 1")]
        if there or filled:
            raise ConfigError(
                f"{self._place} đã có dữ liệu của một hub khác; hãy dùng cơ sở dữ liệu trống"
                f" / {self._place} holds another hub's data: give an empty database"
            )
        async with self._target.transaction():
            await self._target.executemany(
                "INSERT INTO installation (key, value) VALUES ($1, $2)",
                [*self._known.items(), ("moving", b"1")],
            )
            await self._target.execute("UPDATE ledger SET hold = $1", self._hold)

    async def _make_days(self) -> None:
        from hub.store.postgres import partitions

        low, high = self._file.execute("SELECT min(id), max(id) FROM event").fetchone()
        if low is None:
            return
        first, last = (partitions.day_of(int.from_bytes(id[:6]) * 1000) for id in (low, high))
        day = max(first, last - timedelta(days=DAYS))
        while day <= last:
            await partitions.ensure(self._target, int.from_bytes(partitions.first_key(day)) * 1000, days_ahead=0)
            day += timedelta(days=1)

    async def _copy(self, table: Table) -> None:
        mark = f"move:{table.name}"
        reached = await self._target.fetchval("SELECT value FROM installation WHERE key = $1", mark)
        after = None if reached is None else [_thaw(v) for v in orjson.loads(reached)]
        total = self._file.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
        done = 0 if after is None else await self._target.fetchval(f"SELECT count(*) FROM {table.name}")
        at = [table.columns.index(name) for name in table.key]
        for rows in _pages(self._file, table, after):
            last = orjson.dumps([_freeze(rows[-1][i]) for i in at])
            async with self._target.transaction():
                await self._target.copy_records_to_table(table.name, records=rows, columns=table.columns)
                await self._target.execute(
                    "INSERT INTO installation (key, value) VALUES ($1, $2)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    mark,
                    last,
                )
            done += len(rows)
            self._progress("copy", table.name, done, total)

    async def _compare(self) -> dict[str, Content]:
        moved = {}
        for table in self._tables:
            columns = ", ".join(table.columns)
            here = Content()
            for row in self._file.execute(f"SELECT {columns} FROM {table.name}"):
                here = here.with_row(row)
            there = Content()
            async with self._target.transaction(readonly=True):
                async for record in self._target.cursor(f"SELECT {columns} FROM {table.name}", prefetch=PAGE):
                    there = there.with_row(tuple(record))
                    if there.rows % PAGE == 0:
                        self._progress("compare", table.name, there.rows, here.rows)
            if here != there:
                raise MoveFailed(
                    f"{self._place}: bảng {table.name} khác bản gốc ({there.rows} dòng, gốc {here.rows}); tạo lại cơ sở"
                    " dữ liệu trống rồi chuyển lại từ đầu. Sổ cái cũ còn nguyên"
                    f" / table {table.name} differs from the original ({there.rows} rows, original {here.rows}): make"
                    " the database anew and move again. The old ledger is as it was"
                )
            moved[table.name] = here
        return moved

    async def _finish(self) -> None:
        (position,) = self._file.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'"
        ).fetchone()
        async with self._target.transaction():
            for name, column in await self._target.fetch(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND is_identity = 'YES'"
            ):
                await self._target.execute(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'),"
                    f" coalesce((SELECT max({column}) FROM {name}), 0) + 1, false)"
                )
            await self._target.execute("UPDATE ledger SET sequence = $1", position)
            await self._target.execute("DELETE FROM installation WHERE key = 'moving' OR key LIKE 'move:%'")


def _pages(file: sqlite3.Connection, table: Table, after: Sequence[Any] | None) -> Iterator[list[tuple[Any, ...]]]:
    key = ", ".join(table.key)
    where = f" WHERE ({key}) > ({', '.join('?' * len(table.key))})" if after is not None else ""
    rows = file.execute(f"SELECT {', '.join(table.columns)} FROM {table.name}{where} ORDER BY {key}", after or ())
    page: list[tuple[Any, ...]] = []
    weight = 0
    for row in rows:
        page.append(row)
        weight += sum(len(v) for v in row if isinstance(v, bytes | str))
        if len(page) >= PAGE or weight >= PAGE_BYTES:
            yield page
            page, weight = [], 0
    if page:
        yield page


def _freeze(value: Any) -> Any:
    return {"b": value.hex()} if isinstance(value, bytes) else value


def _thaw(value: Any) -> Any:
    return bytes.fromhex(value["b"]) if isinstance(value, dict) else value
