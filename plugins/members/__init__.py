"""Union units and members: the Excel lists, the Directory, and the events about people."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, Directory, EventType, Hub, Schema
from hub.hookspecs import hookimpl


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    from plugins.members.events import EVENT_TYPES

    return EVENT_TYPES


@hookimpl
def hub_schemas() -> Sequence[Schema]:
    from plugins.members.tables import SCHEMA

    return (SCHEMA,)


@hookimpl
def hub_commands() -> Sequence[Command]:
    from plugins.members.commands import COMMANDS

    return COMMANDS


@hookimpl
def hub_directory(hub: Hub) -> Directory:
    from plugins.members.directory import MemberDirectory

    return MemberDirectory(hub)
