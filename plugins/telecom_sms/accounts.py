"""Opens the connections whose carrier is reached by HTTP."""

from __future__ import annotations

from hub.contract import Connection, ConnectionContext
from hub.errors import ConfigError

from .carriers.dialect import Dialect
from .carriers.esms import Esms, EsmsSettings
from .carriers.fpt import Fpt, FptSettings
from .carriers.http import HttpCarrier
from .carriers.reports import INBOUND, Reports, receipt_path
from .carriers.speedsms import SpeedSms, SpeedSmsSettings
from .carriers.viettel import Viettel, ViettelSettings
from .carriers.vnpt import Vnpt, VnptSettings
from .connector import SmsSink
from .settings import HttpSettings
from .upkeep import kept_up


def open_esms(ctx: ConnectionContext, settings: EsmsSettings) -> Connection:
    """Raises ``ConfigError``, as all of these, for a secret that is missing."""
    path = receipt_path(ctx, settings)
    if path and not settings.public_url:
        raise ConfigError("receipt_path: public_url is needed too, eSMS is told with each message where to report")
    callback = f"{settings.public_url.rstrip('/')}/in/{ctx.name}/{path}" if path else ""
    dialect = Esms(settings, ctx.secret(settings.api_key), ctx.secret(settings.secret_key), callback)
    return _connection(ctx, settings, dialect, path)


def open_speedsms(ctx: ConnectionContext, settings: SpeedSmsSettings) -> Connection:
    return _connection(ctx, settings, SpeedSms(settings, ctx.secret(settings.token)), receipt_path(ctx, settings))


def open_viettel(ctx: ConnectionContext, settings: ViettelSettings) -> Connection:
    return _connection(ctx, settings, Viettel(settings, ctx.secret(settings.password)), "")


def open_fpt(ctx: ConnectionContext, settings: FptSettings) -> Connection:
    return _connection(ctx, settings, Fpt(settings, ctx.secret(settings.client_secret)), "")


def open_vnpt(ctx: ConnectionContext, settings: VnptSettings) -> Connection:
    return _connection(ctx, settings, Vnpt(settings, ctx.secret(settings.api_password)), "")


def _connection(ctx: ConnectionContext, settings: HttpSettings, dialect: Dialect, path: str) -> Connection:
    carrier = HttpCarrier(ctx, settings, dialect)
    return Connection(
        receiver=Reports(ctx, dialect, path) if path else None,
        inbound=INBOUND,
        sink=SmsSink(ctx, settings, carrier),
        run=kept_up(ctx, carrier.run),
        check=carrier.check,
        close=carrier.close,
    )
