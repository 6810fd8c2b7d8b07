"""Event to CloudEvents 1.0 JSON, a pure mapping.

Source: CloudEvents 1.0.2, JSON event format section 3; HTTP binding section 3.2 (structured mode).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from hub.model import Event

CONTENT_TYPE = "application/cloudevents+json"


def cloud_event(event: Event) -> bytes:
    """The body a partner gets. The core has projected ``event.data`` already: nothing is filtered here."""
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": _source_uri(event.source),
        "type": event.type,
        "time": event.occurred_at,
        "datacontenttype": "application/json",
    }
    # An empty subject is not allowed; leaving the attribute out is.
    if event.subject:
        body["subject"] = event.subject
    body["data"] = event.data
    # orjson writes UUIDs and datetimes itself; Z, since the time zone is the reader's business.
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


@lru_cache(maxsize=1024)
def _source_uri(source: str) -> str:
    """``source`` must be a URI reference: other characters are percent-encoded."""
    return quote(source, safe="/:?#@!$&'()*+,;=-._~%")
