"""Sources that post to us and have no plugin of their own: verified, mapped by configuration, one event each."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import ConnectorType, EventType
from hub.hookspecs import hookimpl
from plugins.inbound.connector import open_connection
from plugins.inbound.schema import EVENT_TYPES
from plugins.inbound.settings import InboundSourceSettings


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="inbound",
            settings=InboundSourceSettings,
            open=open_connection,
            title_vi="Nguồn gửi đến",
            title_en="Source that posts to us",
        )
    ]


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    return EVENT_TYPES
