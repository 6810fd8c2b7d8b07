"""SMS to phones over carriers' accounts, by SMPP 3.4, HTTP or SOAP, with delivery receipts where they give them."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, ConnectorType, EventType, LogEvent, Schema
from hub.hookspecs import hookimpl

from .connector_types import connector_types


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return connector_types()


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    from .events import ANNOUNCED, RECEIVED, REQUESTED

    return (REQUESTED, ANNOUNCED, RECEIVED)


@hookimpl
def hub_schemas() -> Sequence[Schema]:
    from .tables import METADATA, VERSIONS

    return [Schema(owner="telecom_sms", metadata=METADATA, versions=VERSIONS)]


@hookimpl
def hub_commands() -> Sequence[Command]:
    from .commands import COMMANDS

    return COMMANDS


@hookimpl
def hub_log_events() -> Sequence[LogEvent]:
    return [
        LogEvent("session.bound", "A bind to the carrier is up.", ("connection", "mode", "window")),
        LogEvent("session.lost", "A bind to the carrier has ended.", ("connection", "mode", "reason"), "warning"),
        LogEvent("message.received", "A message from a phone is kept.", ("connection", "parts", "meaning", "octets")),
        LogEvent("query.refused", "The carrier would not say what became of a segment.", ("connection", "status")),
        LogEvent(
            "carrier.stalled",
            "Messages wait, and the carrier answers none.",
            ("connection", "bound", "waiting", "idle_s"),
            "warning",
        ),
        LogEvent(
            "carrier.unfit",
            "Messages go to other carriers from now on.",
            ("connection", "carrier", "reason"),
            "warning",
        ),
        LogEvent("carrier.fit", "A carrier is used again.", ("connection", "carrier")),
        LogEvent("sms.pruned", "What was kept long enough is gone.", ("connection", "rows")),
        LogEvent("carrier.moving", "The carrier answers again.", ("connection",)),
        LogEvent(
            "receipt.foreign", "A report names a message we never sent; it moved nothing.", ("connection",), "warning"
        ),
        LogEvent("receipt.unreadable", "A receipt could not be read.", ("connection", "state"), "warning"),
    ]
