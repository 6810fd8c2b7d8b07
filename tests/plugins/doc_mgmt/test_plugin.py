"""What the plugin declares: settings, codes, event types, tables, commands."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pydantic import ValidationError

from hub.contract import EventType, Outcome, Refused, RetryLater, Scope
from hub.model import Event, new_id
from hub.plugins import Registry
from hub.testing import START
from plugins.doc_mgmt import codes, tables
from plugins.doc_mgmt.commands import render_list
from plugins.doc_mgmt.connector import AxisSink
from plugins.doc_mgmt.edxml import StatusCode
from plugins.doc_mgmt.edxml_reader import read_status
from plugins.doc_mgmt.schema import RECEIVED, STATUS_ISSUED, status_packet
from plugins.doc_mgmt.settings import DocAxisSettings
from tests.plugins.doc_mgmt.support import ORGAN_ID


def settings(**changes: Any) -> DocAxisSettings:
    given = {"endpoint": "http://127.0.0.1:8401", "system_id": "S", "secret": {"env": "X"}, "organ_id": ORGAN_ID}
    return DocAxisSettings.model_validate({**given, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "ftp://127.0.0.1"},
        {"endpoint": "http://u:p@127.0.0.1"},
        {"endpoint": "http://127.0.0.1/?a=1"},
        {"endpoint": "http://truc.example"},
        {"organ_id": "có dấu"},
        {"system_id": "a\r\nb"},
        {"connections": 11},
        {"page_size": 0},
        {"organid": "x"},
    ],
)
def test_a_setting_that_cannot_work_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**change)


def test_plain_http_to_another_machine_has_to_be_allowed() -> None:
    assert settings(endpoint="http://10.1.2.3/vxp/", allow_plain_http=True).endpoint == "http://10.1.2.3/vxp"
    assert settings(endpoint="https://truc.example").page_size == 20


def test_every_setting_is_described_in_both_languages() -> None:
    for field in DocAxisSettings.model_fields.values():
        assert field.title
        assert field.description


def outcome(**changes: Any) -> Outcome:
    given: dict[str, Any] = {
        "code": "refused", "http_status": 200, "error_code": "", "bytes_left": True, "retry_after_s": None, **changes,
    }  # fmt: skip
    return codes.outcome(**given)


@pytest.mark.parametrize(
    ("seen", "reason", "scope"),
    [
        ({"error_code": "10"}, "packet_refused", Scope.DELIVERY),
        ({"error_code": "15"}, "login_refused", Scope.CONNECTION),
        ({"error_code": "18"}, "receiver_unknown", Scope.DELIVERY),
        ({"error_code": "19"}, "sender_not_registered", Scope.CONNECTION),
        ({"error_code": "22"}, "packet_not_to_standard", Scope.DELIVERY),
        ({"error_code": "23"}, "receiver_locked", Scope.DELIVERY),
        ({"http_status": 401}, "login_refused", Scope.CONNECTION),
        ({"http_status": 403, "error_code": "20"}, "login_refused", Scope.CONNECTION),
        ({"http_status": 404}, "http_404", Scope.DELIVERY),
        ({"http_status": 413}, "packet_too_large", Scope.DELIVERY),
        ({"http_status": None, "code": "parameter_not_sendable"}, "parameter_not_sendable", Scope.DELIVERY),
    ],
)
def test_what_no_repetition_cures_is_refused(seen: dict[str, Any], reason: str, scope: Scope) -> None:
    result = outcome(**seen)
    assert isinstance(result, Refused)
    assert (result.reason, result.scope) == (reason, scope)


@pytest.mark.parametrize(
    ("seen", "reason", "ambiguous"),
    [
        ({"error_code": "20"}, "axis_error", False),
        ({"error_code": "21"}, "file_processing_error", False),
        ({"error_code": "777"}, "axis_error_code_unknown", False),
        ({"code": "answer_malformed"}, "answer_malformed", False),
        ({"http_status": 500}, "http_500", False),
        ({"http_status": 302}, "http_302", False),
        ({"http_status": 408}, "http_408", False),
        ({"http_status": None, "code": "timed_out"}, "timed_out", True),
        ({"http_status": None, "code": "timed_out", "bytes_left": False}, "timed_out", False),
        ({"http_status": None, "code": "connect_failed", "bytes_left": False}, "connect_failed", False),
    ],
)
def test_what_may_pass_later_is_tried_again(seen: dict[str, Any], reason: str, ambiguous: bool) -> None:
    result = outcome(**seen)
    assert isinstance(result, RetryLater)
    assert (result.reason, result.ambiguous, result.scope) == (reason, ambiguous, Scope.DELIVERY)


def test_a_pause_the_axis_asks_for_holds_the_whole_destination() -> None:
    for seen in ({"http_status": 429}, {"http_status": 503}):
        result = outcome(**seen, retry_after_s=7.0)
        assert isinstance(result, RetryLater)
        assert (result.after, result.scope) == (timedelta(seconds=7), Scope.DESTINATION)


@pytest.mark.parametrize("name", [RECEIVED, STATUS_ISSUED])
def test_the_example_of_every_event_type_fits_its_schema(event_types: dict[str, EventType], name: str) -> None:
    kind = event_types[name]
    jsonschema.Draft202012Validator.check_schema(dict(kind.schema))
    jsonschema.validate(dict(kind.example), dict(kind.schema))
    assert set(kind.thin) <= set(kind.example)


def test_the_subject_line_makes_a_document_personal_and_never_leaves_by_default(
    event_types: dict[str, EventType],
) -> None:
    assert event_types[RECEIVED].personal
    assert "subject_line" not in event_types[RECEIVED].thin
    assert not event_types[STATUS_ISSUED].personal


@pytest.mark.parametrize("code", list(StatusCode))
def test_the_status_packet_is_a_pure_function_of_its_event(event_types: dict[str, EventType], code: StatusCode) -> None:
    data = {**event_types[STATUS_ISSUED].example, "status_code": code.value}
    packet = status_packet(data)
    assert packet == status_packet(dict(reversed(list(data.items()))))
    status = read_status(packet)
    assert (status.code, status.at.isoformat()) == (code, data["timestamp"])
    assert status.response_for.organ_id == data["response_for"]["organ_id"]
    assert status.response_for.code.text == data["response_for"]["code"]


def test_an_event_that_is_no_status_renders_to_nothing() -> None:
    sink = AxisSink("axis", settings(), client=None)  # type: ignore[arg-type]  # nothing is sent
    event = Event(
        id=new_id(), type=RECEIVED, source="/t", subject=None, occurred_at=START, data={}, scope="",
        correlation_id=new_id(),
    )  # fmt: skip
    assert sink.render(event) == b""
    assert sink.resend_is_safe


def test_the_migration_makes_the_tables_the_code_uses() -> None:
    (script,) = tables.VERSIONS.glob("0001_*.py")
    spec = importlib.util.spec_from_file_location("doc_mgmt_0001", script)
    assert spec is not None and spec.loader is not None
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            migration.upgrade()
            assert compare_metadata(context, tables.METADATA) == []
            migration.downgrade()
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()


def test_heavy_libraries_wait_for_their_first_use() -> None:
    code = (
        "import sys, plugins.doc_mgmt; print([m for m in ('lxml', 'alembic', 'zoneinfo.tzdata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_root())
    assert done.stdout.strip() == "[]"


def _root() -> Path:
    return Path(__file__).parents[3]


def test_every_command_has_its_help_in_both_languages(registry: Registry) -> None:
    mine = {name: command for name, command in registry.commands.items() if name.startswith("documents ")}
    assert {name.split()[1] for name in mine} == {"list", "show", "save", "quarantine", "reparse", "resolve"}
    for command in mine.values():
        assert command.help_vi
        assert command.help_en
        for field in command.params.model_fields.values():
            assert field.description


def test_an_empty_list_says_how_it_fills() -> None:
    assert "unionhub sync" in render_list({"documents": []}, "vi")
    assert "unionhub sync" in render_list({"documents": []}, "en")
