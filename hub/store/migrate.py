"""Brings a database to the schema of this hub and its plugins; older code refuses a newer schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.errors import ConfigError

HERE = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a set of tables belongs to; ``versions`` is the folder with its migration scripts."""

    name: str
    versions: Path


CORE = Owner("hub", HERE / "versions")


def _head_names(owner: Owner) -> list[str]:
    return sorted(p.name.split("_")[0] for p in owner.versions.glob("[0-9]*.py"))


def pending(db: sqlite3.Connection, owners: Sequence[Owner]) -> list[Owner]:
    """Owners whose tables are behind; reads nothing but version tables, so that a start stays fast.

    Raises: ConfigError when a schema is newer than this code.
    """
    behind = []
    for owner in owners:
        known = _head_names(owner)
        table = f"{owner.name}_version"
        exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        current = db.execute(f"SELECT version_num FROM {table}").fetchone() if exists else None
        if current is not None and current[0] not in known:
            raise ConfigError(
                f"bảng dữ liệu của '{owner.name}' ở phiên bản {current[0]}, mới hơn phần mềm này ({known[-1]}): hãy cài"
                f" lại bản mới hơn / the tables of '{owner.name}' have version {current[0]}, newer than this hub knows"
                f" ({known[-1]}): install the newer version again"
            )
        if current is None or current[0] != known[-1]:
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
    import alembic.command
    import alembic.config
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        f"sqlite:///{path}", connect_args={"isolation_level": None}, poolclass=sqlalchemy.NullPool
    )
    config = alembic.config.Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(owner.versions))
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        config.attributes["version_table"] = f"{owner.name}_version"
        alembic.command.upgrade(config, "head")
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
