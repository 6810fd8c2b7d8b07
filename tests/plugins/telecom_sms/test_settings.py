"""Settings, codes and tables: what stands in a file must be right before anything runs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from pydantic import ValidationError

from hub.contract import SecretRef
from plugins import telecom_sms
from plugins.telecom_sms import tables
from plugins.telecom_sms.codes import RECEIPT_STATES, Verdict, meaning_of
from plugins.telecom_sms.settings import SmsSettings, is_loopback

from .support import settings


def test_every_setting_has_a_vietnamese_title_and_an_english_description() -> None:
    for name, field in SmsSettings.model_fields.items():
        assert field.title, name
        assert field.description and field.description.endswith((".", "}")), name


@pytest.mark.parametrize(
    ("sender", "ton", "npi"), [("CONGDOAN", 5, 0), ("CD-TN 1", 5, 0), ("84912555000", 1, 1), ("8088", 0, 0)]
)
def test_the_sender_says_what_kind_of_number_it_is(sender: str, ton: int, npi: int) -> None:
    made = settings(1, sender=sender)
    assert (made.ton, made.npi) == (ton, npi)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender": "CONGDOANTINH"},
        {"sender": "Công đoàn"},
        {"sender": ""},
        {"port": 0},
        {"window": 0},
        {"max_segments": 11},
        {"reference_bits": 12},
        {"receipt_ids": "guess"},
        {"text_field": "a..b"},
        {"password": "in the file"},
        {"colour": "red"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**({"port": 1} | wrong))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "192.168.1.1", "smsc.example.vn", "localhost.example.vn", "127.1", "2130706433", "", "::ffff:8.8.8.8"],
)
def test_anything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x00, Verdict.TAKEN),
        (0x08, Verdict.AGAIN_SOON),
        (0x14, Verdict.AGAIN_SOON),
        (0x58, Verdict.AGAIN_SOON),
        (0x0A, Verdict.STOP),
        (0x0E, Verdict.STOP),
        (0x0B, Verdict.BAD_NUMBER),
        (0x66, Verdict.REFUSED),
        (0x45, Verdict.LATER),
        (0x0400, Verdict.LATER),
        (0xFFFFFFFF, Verdict.LATER),
    ],
)
def test_a_status_means_what_the_table_says(status: int, verdict: Verdict) -> None:
    assert meaning_of(status).verdict is verdict


def test_receipt_states_only_use_what_the_ledger_knows() -> None:
    assert {state for state, _ in RECEIPT_STATES.values()} == {"delivered", "failed", "interim"}


def test_the_plugin_offers_an_smpp_account_and_its_tables() -> None:
    kind = telecom_sms.hub_connector_types()[0]
    assert (kind.name, kind.channel, kind.settings) == ("telecom_sms", "phone", SmsSettings)
    (schema,) = telecom_sms.hub_schemas()
    assert schema.owner == "telecom_sms"
    assert all(name.startswith("telecom_sms_") for name in schema.metadata.tables)


def test_the_migrations_make_the_tables_that_are_declared_and_take_them_away() -> None:
    engine = sa.create_engine("sqlite://")
    script = ScriptDirectory(str(tables.VERSIONS.parent), version_locations=[str(tables.VERSIONS)])
    newest_first = list(script.walk_revisions())
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        for revision in reversed(newest_first):
            revision.module.upgrade()
        found = sa.inspect(connection)
        for table in tables.METADATA.sorted_tables:
            columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
            assert columns == {column.name: column.nullable for column in table.columns}
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
            assert {index["name"] for index in found.get_indexes(table.name)} == {i.name for i in table.indexes}
        for revision in newest_first:
            revision.module.downgrade()
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()


def test_the_simulator_gets_every_account_and_no_password_on_its_command_line(tmp_path: Path) -> None:
    kind = telecom_sms.hub_connector_types()[0]
    assert kind.simulator is not None
    both = {"a": settings(2775, system_id="first"), "b": settings(2776, system_id="second")}
    arguments = kind.simulator.arguments(both, lambda ref: "s3cret", tmp_path)
    assert list(arguments[:2]) == ["--port=2775", "--port=2776"]
    assert not any("s3cret" in argument for argument in arguments)
    accounts = Path(arguments[-1])
    assert json.loads(accounts.read_text()) == {"first": "s3cret", "second": "s3cret"}
    assert accounts.stat().st_mode & 0o777 == 0o600


def test_postgresql_gets_the_same_statements() -> None:
    for query in (tables.CLAIM_PHONE, tables.LAST_REFERENCE, tables.COUNT_ON):
        assert query.sqlite_names == query.postgres_names
        assert f"${len(query.postgres_names)}" in query.postgres


def test_secrets_are_references() -> None:
    assert settings(1).password == SecretRef(env="UNUSED")
    assert sqlite3.sqlite_version_info >= (3, 35), "ON CONFLICT DO UPDATE with WHERE"
