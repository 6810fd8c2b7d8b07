"""The province's citizen app: notices to those who use it, workers' questions from it."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import ConnectorType, EventType
from hub.hookspecs import hookimpl
from plugins.citizen_app.connector import open_connection
from plugins.citizen_app.schema import EVENT_TYPES
from plugins.citizen_app.settings import CitizenAppSettings
from plugins.citizen_app.simulated import SIMULATOR


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="citizen_app",
            settings=CitizenAppSettings,
            open=open_connection,
            channel="app",
            title_vi="Ứng dụng công dân",
            title_en="Citizen app",
            simulator=SIMULATOR,
        )
    ]


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    return EVENT_TYPES
