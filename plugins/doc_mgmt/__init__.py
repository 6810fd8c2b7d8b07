"""Official documents: receives them from the national document axis, registers them, reports their status."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, ConnectorType, EventType, Handler, Schema
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
