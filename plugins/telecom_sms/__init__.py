"""SMS to phones over a carrier's SMPP 3.4 account, with delivery receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.contract import Connection, ConnectionContext, ConnectorType, Schema
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
