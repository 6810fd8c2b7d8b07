"""What the plugin promises others: events that fit their schema, tables that match their migration."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from jsonschema import Draft202012Validator

from hub.contract import EventType
from hub.store.migrate import Owner, upgrade_sqlite
from plugins.members.events import EVENT_TYPES
from plugins.members.reading import read_list
from plugins.members.schema import FIELDS, event_data
from plugins.members.tables import SCHEMA

from .conftest import TODAY, Maker


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.name)
def test_an_example_fits_its_schema_and_thin_names_no_value(kind: EventType) -> None:
    Draft202012Validator.check_schema(dict(kind.schema))
    Draft202012Validator(dict(kind.schema)).validate(dict(kind.example))
    assert kind.personal
    assert set(kind.thin) == {"member_id", "unit_id", "changed"}
    assert set(kind.schema["properties"]["values"]["properties"]) == set(FIELDS)


def test_every_person_of_a_list_makes_an_event_that_fits(made: Maker) -> None:
    validator: Any = Draft202012Validator(dict(EVENT_TYPES[0].schema))
    for person in read_list(made(1).path, TODAY).people:
        validator.validate(event_data("some-id", person.unit_id, person.values()))


def test_the_migration_makes_the_tables_the_code_speaks_of(tmp_path: Path) -> None:
    def shape(engine: sa.Engine) -> list[Any]:
        inspector = sa.inspect(engine)
        tables = [t for t in sorted(inspector.get_table_names()) if not t.endswith("_version")]
        return [
            (
                table,
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted((str(i["name"]), i["column_names"], i["unique"]) for i in inspector.get_indexes(table)),
            )
            for table in tables
        ]

    upgrade_sqlite(tmp_path / "migrated.db", [Owner(SCHEMA.owner, SCHEMA.versions)])
    sqlite3.connect(tmp_path / "made.db").close()
    migrated = sa.create_engine(f"sqlite:///{tmp_path}/migrated.db")
    direct = sa.create_engine(f"sqlite:///{tmp_path}/made.db")
    SCHEMA.metadata.create_all(direct)
    assert shape(migrated) == shape(direct)
    migrated.dispose()
    direct.dispose()


def test_loading_the_plugin_loads_no_heavy_library() -> None:
    heavy = ("python_calamine", "xlsxwriter", "phonenumbers", "openpyxl", "alembic")
    code = (
        "import sys, plugins.members as m\n"
        "m.hub_event_types(), m.hub_schemas(), m.hub_commands(), m.hub_directory(None)\n"
        f"print([x for x in {heavy} if x in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
