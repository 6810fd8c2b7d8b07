"""Campaigns (đợt gửi tin): one announcement to many people, on the first channel that reaches each."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, EventType
from hub.hookspecs import hookimpl


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    from plugins.campaigns.schema import ANNOUNCED

    return [ANNOUNCED]


@hookimpl
def hub_commands() -> Sequence[Command]:
    from plugins.campaigns.commands import COMMANDS

    return COMMANDS
