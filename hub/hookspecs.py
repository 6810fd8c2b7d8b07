"""The table of contents of the product: what a plugin can contribute.

pluggy registers and nothing more. Every hook answers values; none does I/O. A hook exists only when a
shipped plugin uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from hub.contract import (
    Command,
    ConnectorType,
    Directory,
    EventType,
    FeedView,
    Handler,
    Hub,
    LogEvent,
    PageRoute,
    Schema,
)

PROJECT = "unionhub"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def hub_connector_types() -> Sequence[ConnectorType]:  # type: ignore[empty-body]
    """Kinds of systems this plugin can connect to."""


@hookspec
def hub_event_types() -> Sequence[EventType]:  # type: ignore[empty-body]
    """Event types this plugin emits, with schema and example."""


@hookspec
def hub_handlers() -> Sequence[Handler]:  # type: ignore[empty-body]
    """Durable consumers of events; a subscription names one as ``handler:<name>``."""


@hookspec
def hub_schemas() -> Sequence[Schema]:  # type: ignore[empty-body]
    """The plugin's own tables and migrations."""


@hookspec
def hub_log_events() -> Sequence[LogEvent]:  # type: ignore[empty-body]
    """The log lines of this plugin's connections, for the catalogue and the docs."""


@hookspec
def hub_commands() -> Sequence[Command]:  # type: ignore[empty-body]
    """Operator commands, shown as a group of the command line."""


@hookspec
def hub_pages() -> Sequence[PageRoute]:  # type: ignore[empty-body]
    """Pages of this plugin's own, below a first path segment that nobody else uses."""


@hookspec
def hub_directory(hub: Hub) -> Directory | None:
    """The Directory, from the one plugin that keeps the people."""


@hookspec
def hub_feed_view(hub: Hub) -> FeedView | None:
    """What keys with an owner read of the feed, from the one plugin that gives them grants."""
