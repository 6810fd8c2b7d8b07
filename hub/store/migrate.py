"""Brings a database to the schema of this hub and its plugins; older code refuses a newer schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hub.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection

HERE = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a set of tables belongs to; ``versions`` is the folder with its migration scripts."""

    name: str
    versions: Path


CORE = Owner("hub", HERE / "versions")


def _head_names(owner: Owner) -> list[str]:
    return sorted(p.name.split("_")[0] for p in owner.versions.glob("[0-9]*.py"))


def is_behind(owner: Owner, current: str | None) -> bool:
    """Whether its tables are older than this code.

    Args:
        current: what its version table holds, None without one.

    Raises: ConfigError when they are newer than this code.
    """
    known = _head_names(owner)
    if current is not None and current not in known:
        raise ConfigError(
            f"bảng dữ liệu của '{owner.name}' ở phiên bản {current}, mới hơn phần mềm này ({known[-1]}): hãy cài"
            f" lại bản mới hơn / the tables of '{owner.name}' have version {current}, newer than this hub knows"
            f" ({known[-1]}): install the newer version again"
        )
    return current != known[-1]


def pending(db: sqlite3.Connection, owners: Sequence[Owner]) -> list[Owner]:
    """Owners whose tables are behind; reads nothing but version tables, so that a start stays fast.

    Raises: ConfigError when a schema is newer than this code.
    """
    behind = []
    for owner in owners:
        table = f"{owner.name}_version"
        exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        current = db.execute(f"SELECT version_num FROM {table}").fetchone() if exists else None
        if is_behind(owner, current[0] if current else None):
            behind.append(owner)
    return behind


def upgrade_sqlite(path: Path, owners: Sequence[Owner]) -> list[str]:
    """Upgrades what is behind, each owner in one transaction; keeps a copy of a non-empty file first.

    Raises: ConfigError when a schema is newer than this code.
    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        behind = pending(db, owners)
        if behind and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            copy = path.with_name(path.name + ".before-upgrade")
            copy.unlink(missing_ok=True)
            db.execute("VACUUM INTO ?", (str(copy),))
    finally:
        db.close()
    for owner in behind:
        _upgrade(path, owner)
    return [owner.name for owner in behind]


def _upgrade(path: Path, owner: Owner) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        f"sqlite:///{path}", connect_args={"isolation_level": None}, poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        run_scripts(connection, owner)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


def run_scripts(connection: Connection, owner: Owner) -> None:
    """Runs the owner's scripts up to the newest, in the transaction that is open on ``connection``."""
    import alembic.command
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(owner.versions))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = f"{owner.name}_version"
    alembic.command.upgrade(config, "head")
