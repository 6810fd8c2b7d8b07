"""SMS to phones over a carrier's SMPP 3.4 account, with delivery receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.contract import Connection, ConnectionContext, ConnectorType, LogEvent, Schema
from hub.hookspecs import hookimpl

from .settings import SmsSettings
from .simulated import SIMULATOR


def _open(ctx: ConnectionContext, settings: Any) -> Connection:
    from .connector import open_connection

    return open_connection(ctx, settings)


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="telecom_sms",
            settings=SmsSettings,
            open=_open,
            channel="phone",
            title_vi="Tin nhắn SMS qua nhà mạng",
            title_en="SMS through a carrier",
            simulator=SIMULATOR,
        )
    ]


@hookimpl
def hub_schemas() -> Sequence[Schema]:
    from .tables import METADATA, VERSIONS

    return [Schema(owner="telecom_sms", metadata=METADATA, versions=VERSIONS)]


@hookimpl
def hub_log_events() -> Sequence[LogEvent]:
    return [
        LogEvent("session.bound", "A bind to the carrier is up.", ("connection", "mode", "window")),
        LogEvent("session.lost", "A bind to the carrier has ended.", ("connection", "mode", "reason"), "warning"),
        LogEvent("message.received", "A message from a phone came; it is counted.", ("connection", "count", "octets")),
        LogEvent("receipt.unreadable", "A receipt could not be read.", ("connection", "state"), "warning"),
    ]
