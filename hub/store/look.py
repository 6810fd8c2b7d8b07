"""What a start would find in a PostgreSQL database, and whether it could work there; looking changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hub.errors import ConfigError
from hub.store.migrate import Owner
from hub.store.place import place


@dataclass(frozen=True, slots=True)
class Found:
    """``place`` is server/database, without user and password."""

    place: str
    tables: Literal["none", "older", "current"]


async def look(url: str, owners: Sequence[Owner]) -> Found:
    """Args: owners: whose tables may be older than this code.

    Raises: ConfigError when somebody has to change server, database, rights or this hub; Busy when waiting helps.
    """
    from hub.store.postgres.connect import connect, explained
    from hub.store.postgres.upgrade import pending

    connection = await connect(url)
    where = place(url)
    try:
        behind = await pending(connection, owners)
        is_there = await connection.fetchval("SELECT to_regclass('installation') IS NOT NULL")
        if is_there:
            # Needs the right to write, and waits for nobody.
            await connection.execute("SELECT 1 FROM ledger FOR UPDATE SKIP LOCKED")
        if behind or not is_there:
            attempt = connection.transaction()
            await attempt.start()
            await connection.execute("CREATE TABLE unionhub_may_make_tables ()")
            await attempt.rollback()
    except ConfigError:
        raise
    except Exception as error:
        if (known := explained(error, where)) is None:
            raise
        raise known from error
    finally:
        await connection.close()
    return Found(where, "older" if behind and is_there else "current" if is_there else "none")
