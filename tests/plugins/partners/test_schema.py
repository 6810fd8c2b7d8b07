"""The body on the wire, read by the CloudEvents library."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given
from hypothesis import strategies as st

from hub.model import Event
from plugins.partners.schema import CONTENT_TYPE, cloud_event

ID = UUID("0193563f-8a00-7000-8000-000000000001")
WHEN = datetime(2026, 11, 23, 7, 5, 9, 250_000, tzinfo=UTC)


def event(subject: str | None = "m-1", source: str = "members", data: object = None, when: datetime = WHEN) -> Event:
    return Event(
        id=ID,
        type="vn.congdoan.member.updated.v1",
        source=source,
        subject=subject,
        occurred_at=when,
        data={"unit": "CDCS-01", "changed": ["địa_chỉ"]} if data is None else data,  # type: ignore[arg-type]
        scope="CDCS-01",
        correlation_id=ID,
    )


def test_the_body_is_the_event_in_cloudevents_json() -> None:
    assert json.loads(cloud_event(event())) == {
        "specversion": "1.0",
        "id": str(ID),
        "source": "members",
        "type": "vn.congdoan.member.updated.v1",
        "time": "2026-11-23T07:05:09.250000Z",
        "datacontenttype": "application/json",
        "subject": "m-1",
        "data": {"unit": "CDCS-01", "changed": ["địa_chỉ"]},
    }


def test_the_cloudevents_library_reads_it_back() -> None:
    read = from_structured_event(HTTPMessage({"content-type": CONTENT_TYPE}, cloud_event(event())))
    assert (read.get_id(), read.get_source(), read.get_type()) == (str(ID), "members", "vn.congdoan.member.updated.v1")
    assert (read.get_subject(), read.get_time()) == ("m-1", WHEN)
    assert read.get_data() == {"unit": "CDCS-01", "changed": ["địa_chỉ"]}


def test_another_zone_is_written_with_its_offset() -> None:
    when = WHEN.astimezone(timezone(timedelta(hours=7)))
    assert json.loads(cloud_event(event(when=when)))["time"] == "2026-11-23T14:05:09.250000+07:00"


def test_no_subject_means_no_attribute() -> None:
    assert "subject" not in json.loads(cloud_event(event(subject=None)))
    assert "subject" not in json.loads(cloud_event(event(subject="")))


def test_the_source_becomes_a_uri_reference() -> None:
    assert json.loads(cloud_event(event(source="nguồn đọc")))["source"] == "ngu%E1%BB%93n%20%C4%91%E1%BB%8Dc"
    assert json.loads(cloud_event(event(source="urn:x:y/z")))["source"] == "urn:x:y/z"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(data=st.dictionaries(st.text(), JSON, max_size=5), subject=st.none() | st.text(max_size=20), when=st.datetimes())
def test_whatever_the_event_holds_it_reads_back_and_every_try_has_the_same_bytes(
    data: dict[str, object], subject: str | None, when: datetime
) -> None:
    one = event(subject=subject, data=data, when=when.replace(tzinfo=UTC))
    body = cloud_event(one)
    assert cloud_event(one) == body
    read = from_structured_event(HTTPMessage({"content-type": CONTENT_TYPE}, body))
    assert read.get_data() == data
    assert (read.get_subject() or None) == (subject or None)
    assert read.get_time() == one.occurred_at
