"""Official documents: receives them from the national document axis, registers them, reports their status."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, ConnectorType, EventType, Handler, LogEvent, Schema
from hub.hookspecs import hookimpl

from .commands import COMMANDS
from .connector import CONNECTOR_TYPE
from .register import register
from .schema import EVENT_TYPES
from .tables import SCHEMA


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return (CONNECTOR_TYPE,)


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    return EVENT_TYPES


@hookimpl
def hub_handlers() -> Sequence[Handler]:
    return (Handler("doc_mgmt.register", register),)


@hookimpl
def hub_schemas() -> Sequence[Schema]:
    return (SCHEMA,)


@hookimpl
def hub_commands() -> Sequence[Command]:
    return COMMANDS


@hookimpl
def hub_log_events() -> Sequence[LogEvent]:
    at = "connection"
    return (
        LogEvent("axis.refused", "The axis refused a call.", (at, "reason", "status", "error_code"), "warning"),
        LogEvent("documents.read", "A page of packets was fetched.", (at, "listed", "taken", "failed")),
        LogEvent("documents.acknowledged", "What is kept was marked on the axis.", (at, "marked", "failed")),
        LogEvent("documents.skipped", "Entries with unusable ids were passed over.", (at, "unusable_ids"), "warning"),
        LogEvent("document.fetch_failed", "One packet was not fetched.", (at, "doc_id", "reason", "status"), "warning"),
    )
