"""Partner agencies: events leave as Standard Webhooks requests with a CloudEvents body."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import Command, ConnectorType, EventType, FeedView, Hub, LogEvent, PageRoute, Schema
from hub.hookspecs import hookimpl
from plugins.partners.commands import COMMANDS
from plugins.partners.feed import PartnerFeed
from plugins.partners.health import EVENT_TYPES
from plugins.partners.mail import open_mail
from plugins.partners.managed import open_managed, open_partner
from plugins.partners.portal import LINK, PAGES
from plugins.partners.settings import MailSettings, PartnerSettings, PartnersSettings
from plugins.partners.simulated import SIMULATOR
from plugins.partners.tables import SCHEMA


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="partner",
            settings=PartnerSettings,
            open=open_partner,
            title_vi="Đơn vị đối tác",
            title_en="Partner agency",
            simulator=SIMULATOR,
        ),
        ConnectorType(
            name="partners",
            settings=PartnersSettings,
            open=open_managed,
            title_vi="Các đơn vị đối tác quản lý qua lệnh và API",
            title_en="Partner agencies managed by commands and API",
        ),
        ConnectorType(
            name="mail",
            settings=MailSettings,
            open=open_mail,
            title_vi="Thư điện tử báo cho đơn vị đối tác",
            title_en="Mail to partner agencies",
        ),
    ]


@hookimpl
def hub_commands() -> Sequence[Command]:
    return [*COMMANDS, LINK]


@hookimpl
def hub_pages() -> Sequence[PageRoute]:
    return PAGES


@hookimpl
def hub_feed_view(hub: Hub) -> FeedView:
    return PartnerFeed(hub)


@hookimpl
def hub_event_types() -> Sequence[EventType]:
    return EVENT_TYPES


@hookimpl
def hub_schemas() -> Sequence[Schema]:
    return [SCHEMA]


@hookimpl
def hub_log_events() -> Sequence[LogEvent]:
    return [
        LogEvent(
            "endpoint.not_told",
            "An outage or its end could not be written down now.",
            ("connection", "reason"),
            "warning",
        ),
    ]
