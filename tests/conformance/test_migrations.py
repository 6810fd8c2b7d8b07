"""The end of the core's migration history is the schema that the code declares."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from hub.store import migrate, tables


def schema(path: Path) -> dict[str, str]:
    """Names and texts of all objects, white space and quotes folded."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    db.close()
    return {
        name: "".join(sql.split()).replace('"', "").replace("CREATEINDEXIFNOTEXISTS", "CREATEINDEX")
        for name, sql in rows
        if not name.endswith("_version") and not name.startswith("sqlite_")
    }


def test_the_migration_history_ends_in_the_declared_tables(tmp_path: Path) -> None:
    migrate.upgrade_sqlite(tmp_path / "migrated.db", [migrate.CORE])
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    tables.metadata.create_all(engine)
    engine.dispose()
    migrated, declared = schema(tmp_path / "migrated.db"), schema(tmp_path / "declared.db")
    assert migrated.keys() == declared.keys()
    for name, sql in declared.items():
        assert migrated[name] == sql, name
