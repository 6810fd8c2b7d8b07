"""Event to the request a partner gets: CloudEvents 1.0, structured or binary, or a plain Standard Webhooks body.

Source: CloudEvents 1.0.2, JSON event format section 3; HTTP binding sections 3.1 (binary) and 3.2 (structured);
Standard Webhooks 1.0, "Payload structure".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

import orjson

from hub.model import Event, Json

CONTENT_TYPE = "application/cloudevents+json"
ContentMode = Literal["structured", "binary", "webhook"]


def cloud_event(event: Event) -> bytes:
    """The whole event as one JSON object. ``event.data`` was cut before: nothing is filtered here."""
    return orjson.dumps({**_attributes(event), "data": event.data}, option=orjson.OPT_UTC_Z)


def request(event: Event, mode: ContentMode, *, test: bool = False, dataref: str = "") -> tuple[dict[str, str], bytes]:
    """Headers (of the content alone) and body, a pure function: the same bytes at every try.

    Args:
        test: marks it ``test: true``, a CloudEvents extension; no live event carries that.
        dataref: where the whole data is read. Source: CloudEvents, extension "dataref".
    """
    mark: Json = {"dataref": dataref} if dataref else {}
    if test:
        mark["test"] = True
    if mode == "structured":
        whole = {**_attributes(event), **mark, "data": event.data}
        return {"Content-Type": CONTENT_TYPE}, orjson.dumps(whole, option=orjson.OPT_UTC_Z)
    if mode == "webhook":
        plain: Json = {"type": event.type, "timestamp": event.occurred_at, **mark, "data": event.data}
        return {"Content-Type": "application/json"}, orjson.dumps(plain, option=orjson.OPT_UTC_Z)
    headers = {"Content-Type": "application/json"}
    for name, value in orjson.loads(orjson.dumps(_attributes(event), option=orjson.OPT_UTC_Z)).items():
        if name != "datacontenttype":
            headers[f"ce-{name}"] = _header_value(value)
    for name, value in mark.items():
        headers[f"ce-{name}"] = _header_value(value) if isinstance(value, str) else "true"
    return headers, orjson.dumps(event.data, option=orjson.OPT_UTC_Z)


def _attributes(event: Event) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": _source_uri(event.source),
        "type": event.type,
        # orjson writes UUIDs and datetimes itself; Z, since the time zone is the reader's business.
        "time": event.occurred_at,
        "datacontenttype": "application/json",
    }
    # An empty subject is not allowed; leaving the attribute out is.
    if event.subject:
        attributes["subject"] = event.subject
    return attributes


def _header_value(value: str) -> str:
    """Space, quote, percent and all that is not printable ASCII, percent-encoded (HTTP binding, 3.1.3.2)."""
    return quote(value, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


@lru_cache(maxsize=1024)
def _source_uri(source: str) -> str:
    """``source`` must be a URI reference: other characters are percent-encoded."""
    return quote(source, safe="/:?#@!$&'()*+,;=-._~%")
