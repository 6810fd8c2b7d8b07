"""Writes a ledger on PostgreSQL into a new SQLite file: one snapshot of it, beside the nodes that go on working.

It is what a backup holds, so that one kind of archive serves both engines; ``hub.store.move`` is the way back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from hub.store.migrate import Owner, upgrade_sqlite
from hub.store.postgres.connect import connect
from hub.store.rows import PAGE, tables_of

#: Called with the rows written so far; may raise to stop.
Step = Callable[[int], None]
#: A snapshot for hours is what keeps dead rows alive: no statement of it has a limit, the session tells its name.
SETTINGS = {"application_name": "unionhub-backup", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}


async def export(url: str, file: Path, owners: Sequence[Owner], step: Step) -> None:
    """Fills ``file``, which must not be there yet. The marks of this database stay behind.

    Raises: ConfigError, Busy as ``connect`` does; sqlite3.Error when the disk is full; what ``step`` raises.
    """
    upgrade_sqlite(file, owners)
    connection = await connect(url, settings=SETTINGS)
    written = 0
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # a file that is not whole is thrown away
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                db.execute("BEGIN")
                for table in tables_of(db, owners):
                    columns = ", ".join(table.columns)
                    insert = f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(table.columns))})"
                    cursor = await connection.cursor(_ordered(table.name, columns))
                    while rows := await cursor.fetch(PAGE):
                        db.executemany(insert, [tuple(row) for row in rows])
                        written += len(rows)
                        step(written)
                facts = await connection.fetch("SELECT key, value FROM installation WHERE key <> 'place'")
                db.executemany("INSERT INTO installation (key, value) VALUES (?, ?)", [tuple(f) for f in facts])
                ((sequence, hold),) = await connection.fetch("SELECT sequence, hold FROM ledger")
                db.execute("UPDATE ledger SET sequence = ?, hold = ?", (sequence, hold))
                # Positions go on behind the last one given, even if its event is gone.
                db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'event'", (sequence,))
                db.execute("COMMIT")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        await connection.close()


def _ordered(table: str, columns: str) -> str:
    """Events that were not placed yet get the next positions, as the leader would have given them."""
    if table != "event":
        return f"SELECT {columns} FROM {table}"
    placed = columns.replace(
        "position",
        "coalesce(position, (SELECT sequence FROM ledger) + row_number() OVER (PARTITION BY position IS NULL"
        " ORDER BY id)) AS position",
    )
    return f"SELECT {placed} FROM event"
