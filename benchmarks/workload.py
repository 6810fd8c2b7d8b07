"""The events of a run and, for the yardsticks, the very requests the hub makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from hub import __version__
from hub.model import Draft, Event, Json, new_id
from hub.signing import parse_secret, sign
from plugins.partners.schema import CONTENT_TYPE, cloud_event

EVENT_TYPE = "vn.congdoan.member.created.v1"
SOURCE = "benchmark"
#: What a subscription lets out that names no field.
THIN = ("member_id", "unit_id", "changed")
#: Invented, like everything here; signs requests to a sink that checks no signature.
SECRET = "whsec_YmVuY2htYXJrLWJlbmNobWFyay1iZW5jaG1hcms="
#: Different people in a run: each has a data key of its own that is made at the first event.
MEMBERS = 5_000
_PEOPLE = UUID("6f1c5a52-98a5-4b0e-8f0b-2c8f0a1f4c11")


def member_data(number: int) -> Json:
    """The content of one event: about 400 bytes of JSON about an invented member."""
    person = number % MEMBERS
    return {
        "member_id": str(uuid5(_PEOPLE, str(person))),
        "unit_id": f"CDCS-{person % 12 + 1:02}",
        "changed": ["unit_id", "full_name", "birth_date", "sex", "phone", "position", "joined_on", "has_app", "status"],
        "values": {
            "unit_id": f"CDCS-{person % 12 + 1:02}",
            "full_name": f"Nguyễn Thị Mẫu {number}",
            "birth_date": "1985-03-05",
            "sex": "female",
            "phone": f"+849125{55_0000 + number % 10_000:06}",
            "position": "Công nhân may",
            "joined_on": "2010-09",
            "has_app": False,
            "status": "active",
        },
    }


def drafts(numbers: range) -> list[Draft]:
    made = []
    for number in numbers:
        data = member_data(number)
        made.append(Draft(type=EVENT_TYPE, source=SOURCE, dedupe_key=str(number), data=data, subject=data["member_id"]))
    return made


def signed_requests(count: int) -> list[tuple[dict[str, str], bytes]]:
    """Headers and body of what the partners sink would post for each event, signed beforehand."""
    key, now = parse_secret(SECRET), datetime.now(UTC)
    requests = []
    for number in range(count):
        data = member_data(number)
        event = Event(
            id=new_id(), type=EVENT_TYPE, source=SOURCE, subject=data["member_id"], occurred_at=now,
            data={name: data[name] for name in THIN}, scope="", correlation_id=new_id(),
        )  # fmt: skip
        body, message_id, timestamp = cloud_event(event), str(event.id), int(now.timestamp())
        headers = {
            "Content-Type": CONTENT_TYPE,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(key, message_id, timestamp, body),
        }
        requests.append((headers, body))
    return requests


#: The session headers of ``hub.http``, so that a bare client puts the same bytes on the wire.
SESSION_HEADERS = {"User-Agent": f"UnionHub/{__version__}", "Accept-Encoding": "identity"}


def raw_requests(url: str, count: int) -> list[bytes]:
    """The same requests as they stand on the wire, ready to be written to a socket."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    made = []
    for headers, body in signed_requests(count):
        lines = {"Host": parts.netloc, **SESSION_HEADERS, "Accept": "*/*", **headers, "Content-Length": str(len(body))}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        made.append(f"{head}\r\n".encode() + body)
    return made
