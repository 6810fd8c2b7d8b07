"""The kinds of carrier accounts this plugin offers, each with its settings and its simulated carrier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hub.contract import Connection, ConnectionContext, ConnectionSettings, ConnectorType, Simulator

from .carriers.esms import EsmsSettings
from .carriers.fpt import FptSettings
from .carriers.speedsms import SpeedSmsSettings
from .carriers.viettel import ViettelSettings
from .carriers.vnpt import VnptSettings
from .routes import RoutesSettings
from .settings import SmsSettings
from .simulated import SIMULATOR, http_simulator


def _open_smpp(ctx: ConnectionContext, settings: Any) -> Connection:
    from .connector import open_connection

    return open_connection(ctx, settings)


def _http(name: str, settings: type[ConnectionSettings], simulator: Simulator, vi: str, en: str) -> ConnectorType:
    def open_account(ctx: ConnectionContext, given: Any) -> Connection:
        from . import accounts

        opening: Callable[[ConnectionContext, Any], Connection] = getattr(accounts, f"open_{name}")
        return opening(ctx, given)

    return ConnectorType(
        name=f"sms_{name}",
        settings=settings,
        open=open_account,
        channel="phone",
        title_vi=vi,
        title_en=en,
        simulator=simulator,
    )


def _open_routes(ctx: ConnectionContext, settings: Any) -> Connection:
    from .router import open_routes

    return open_routes(ctx, settings)


def connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="telecom_sms",
            settings=SmsSettings,
            open=_open_smpp,
            channel="phone",
            title_vi="Tin nhắn SMS qua nhà mạng",
            title_en="SMS through a carrier",
            simulator=SIMULATOR,
        ),
        _http("esms", EsmsSettings, http_simulator("esms"), "Tin nhắn SMS qua eSMS", "SMS through eSMS"),
        _http(
            "speedsms",
            SpeedSmsSettings,
            http_simulator("speedsms"),
            "Tin nhắn SMS qua SpeedSMS",
            "SMS through SpeedSMS",
        ),
        _http(
            "viettel",
            ViettelSettings,
            http_simulator("viettel"),
            "Tin nhắn SMS qua Viettel (SOAP)",
            "SMS through Viettel (SOAP)",
        ),
        _http("fpt", FptSettings, http_simulator("fpt"), "Tin nhắn SMS qua FPT", "SMS through FPT"),
        _http(
            "vnpt", VnptSettings, http_simulator("vnpt"), "Tin nhắn SMS qua VNPT (mẫu)", "SMS through VNPT (template)"
        ),
        ConnectorType(
            name="sms_routes",
            settings=RoutesSettings,
            open=_open_routes,
            channel="phone",
            title_vi="Chọn nhà mạng cho tin nhắn SMS",
            title_en="A choice between SMS carriers",
        ),
    ]
