"""What a start would find in a PostgreSQL database; looking changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hub.errors import ConfigError
from hub.store.migrate import Owner


@dataclass(frozen=True, slots=True)
class Found:
    """``place`` is server/database, without user and password."""

    place: str
    tables: Literal["none", "older", "current"]


async def look(url: str, owners: Sequence[Owner]) -> Found:
    """Raises: ConfigError when somebody has to change server, database, rights or this hub; Busy when waiting helps."""
    from hub.store.place import place
    from hub.store.postgres.connect import connect, explained, missing_right
    from hub.store.postgres.upgrade import pending

    connection = await connect(url)
    where = place(url)
    try:
        behind = await pending(connection, owners)
        empty = await connection.fetchval("SELECT to_regclass('installation') IS NULL")
        if behind and not await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            raise ConfigError(missing_right(where))
    except Exception as error:
        if (known := explained(error, where)) is None:
            raise
        raise known from error
    finally:
        await connection.close()
    return Found(where, "none" if empty else "older" if behind else "current")
