"""Workers' questions: genuine or refused, understood or kept for a person."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from standardwebhooks import Webhook

from hub.contract import RawRequest, Receiver
from hub.errors import ConfigError, NotUnderstood, Unauthenticated
from plugins.citizen_app.schema import EVENT_TYPES, question_draft
from tests.plugins.citizen_app.conftest import OLD_WEBHOOK_SECRET, WEBHOOK_SECRET, FakeHub, Open

QUESTION = {
    "type": "question",
    "id": "q-1",
    "worker": {"phone": "0912555123", "name": "Nguyễn Thị Mẫu"},
    "text": " Công ty chậm trả lương. ",
    "asked_at": "2026-11-23T14:05:09+07:00",
    "topic": "luong",
}


def request(body: bytes, now: datetime, secret: str = WEBHOOK_SECRET, message_id: str = "msg_1") -> RawRequest:
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
    }
    return RawRequest(connection="c-thainguyen", headers=headers, body=body, received_at=now)


@pytest.fixture
def receiver(open_app: Open) -> Receiver:
    connection = open_app("http://127.0.0.1:1", webhook_secrets=[{"env": "HOOK"}, {"env": "OLD_HOOK"}])
    assert connection.receiver is not None
    return connection.receiver


def draft_of(body: Any) -> Any:
    return question_draft(body, "msg_1", "/connections/c-thainguyen", lambda id: f"question-{len(id)}")


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, OLD_WEBHOOK_SECRET])
def test_a_question_signed_with_either_key_is_genuine(receiver: Receiver, hub: FakeHub, secret: str) -> None:
    assert receiver.verify(request(b"anything", hub.moment, secret)).dedupe_key == "msg_1"


def test_a_forged_or_late_question_is_refused(receiver: Receiver, hub: FakeHub) -> None:
    genuine = request(b"{}", hub.moment)
    late = RawRequest(
        connection="c", headers=genuine.headers, body=b"{}", received_at=hub.moment + timedelta(minutes=11)
    )
    changed = RawRequest(connection="c", headers=genuine.headers, body=b"{ }", received_at=hub.moment)
    bare = RawRequest(connection="c", headers={}, body=b"{}", received_at=hub.moment)
    for each in (late, changed, bare):
        with pytest.raises(Unauthenticated):
            receiver.verify(each)


def test_a_question_becomes_one_event_about_an_opaque_subject(receiver: Receiver, hub: FakeHub) -> None:
    body = json.dumps(QUESTION).encode()
    asked = request(body, hub.moment)
    unit = receiver.understand(asked, receiver.verify(asked), QUESTION)

    (draft,) = unit.drafts
    assert draft.type == "vn.congdoan.question.asked.v1"
    assert draft.dedupe_key == "msg_1"
    assert draft.occurred_at == datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
    assert draft.subject is not None and draft.subject.startswith("question-")
    assert "q-1" not in draft.subject and "912555123" not in draft.subject
    assert draft.data["text"] == "Công ty chậm trả lương."
    assert draft.data["worker"] == {"name": "Nguyễn Thị Mẫu", "phone": "+84912555123"}


def test_the_subject_is_the_same_for_the_same_question_and_connection(receiver: Receiver, hub: FakeHub) -> None:
    asked = request(b"{}", hub.moment)
    verified = receiver.verify(asked)
    subjects = {
        receiver.understand(asked, verified, {**QUESTION, "id": id}).drafts[0].subject for id in ("q-1", "q-1", "q-2")
    }

    assert len(subjects) == 2


def test_what_is_not_asked_for_is_passed_over() -> None:
    assert "device" not in draft_of({**QUESTION, "device": {"os": "x"}}).data


def test_decomposed_letters_are_composed() -> None:
    assert draft_of({**QUESTION, "text": "lương".replace("ơ", "o\u031b")}).data["text"] == "lương"


BAD = {
    "another type": {"type": "complaint"},
    "no id": {"id": None},
    "an id with blanks": {"id": "q 1"},
    "an id of another script": {"id": "q١"},
    "no worker": {"worker": None},
    "a worker without a phone": {"worker": {"name": "x"}},
    "a foreign phone": {"worker": {"name": "x", "phone": "+85912555123"}},
    "a short phone": {"worker": {"name": "x", "phone": "091255512"}},
    "a phone in other digits": {"worker": {"name": "x", "phone": "0٩12555123"}},
    "a phone as a number": {"worker": {"name": "x", "phone": 912555123}},
    "no text": {"text": ""},
    "blank text": {"text": " \t "},
    "endless text": {"text": "x" * 4001},
    "a time without a zone": {"asked_at": "2026-11-23T14:05:09"},
    "no time": {"asked_at": "hôm qua"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_a_body_is_not_understood_that_has(change: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood) as caught:
        draft_of({**QUESTION, **change})
    assert "912555123" not in str(caught.value) and "lương" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, [QUESTION]])
def test_a_body_of_another_shape_is_not_understood(body: Any) -> None:
    with pytest.raises(NotUnderstood):
        draft_of(body)


def test_the_event_fits_its_schema_and_so_does_the_example() -> None:
    (kind,) = EVENT_TYPES
    jsonschema.Draft202012Validator.check_schema(kind.schema)
    jsonschema.validate(dict(kind.example), kind.schema)
    jsonschema.validate(draft_of({**QUESTION, "unit_id": "CDCS-01"}).data, kind.schema)
    assert kind.personal
    assert set(kind.thin) <= set(kind.schema["properties"])
    assert not {"text", "worker"} & set(kind.thin)


def test_without_a_key_nothing_is_received(open_app: Open) -> None:
    assert open_app("http://127.0.0.1:1").receiver is None


def test_a_malformed_key_is_refused_when_the_connection_opens(open_app: Open) -> None:
    with pytest.raises(ConfigError):
        open_app("http://127.0.0.1:1", webhook_secrets=[{"env": "SECRET"}])
