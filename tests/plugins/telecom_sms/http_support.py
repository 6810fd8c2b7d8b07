"""Accounts at the simulated HTTP carriers, opened inside the test's own loop."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hub.contract import Connection, ConnectionContext, RawRequest, SecretRef
from plugins.telecom_sms import accounts
from plugins.telecom_sms.carriers.esms import EsmsSettings
from plugins.telecom_sms.carriers.fpt import FptSettings
from plugins.telecom_sms.carriers.speedsms import SpeedSmsSettings
from plugins.telecom_sms.carriers.viettel import ViettelSettings
from plugins.telecom_sms.carriers.vnpt import VnptSettings
from plugins.telecom_sms.settings import HttpSettings
from plugins.telecom_sms.simulator.esms import Esms
from plugins.telecom_sms.simulator.fpt import Fpt
from plugins.telecom_sms.simulator.speedsms import SpeedSms
from plugins.telecom_sms.simulator.viettel import Viettel
from plugins.telecom_sms.simulator.vnpt import Vnpt
from plugins.telecom_sms.simulator.web import WebCarrier, serve

from .support import KEY, Context, MemoryHub

#: Long and random in life; here it only has to be of the right form.
SECRET_PATH = "x7Kd02mPq9LwZt4vB8nRs1Yc"
_SECRET = SecretRef(env="UNUSED")

OPENING: dict[str, tuple[type[HttpSettings], Callable[[ConnectionContext, Any], Connection], type[WebCarrier]]] = {
    "esms": (EsmsSettings, accounts.open_esms, Esms),
    "speedsms": (SpeedSmsSettings, accounts.open_speedsms, SpeedSms),
    "viettel": (ViettelSettings, accounts.open_viettel, Viettel),
    "fpt": (FptSettings, accounts.open_fpt, Fpt),
    "vnpt": (VnptSettings, accounts.open_vnpt, Vnpt),
}
FIELDS: dict[str, dict[str, Any]] = {
    "esms": {"api_key": _SECRET, "secret_key": _SECRET},
    "speedsms": {"token": _SECRET},
    "viettel": {"user": "ldld", "password": _SECRET, "cp_code": "LDLD"},
    "fpt": {"client_id": "ldld", "client_secret": _SECRET},
    "vnpt": {
        "label_id": "11", "contract_id": "22", "template_id": "33", "agent_id": "44", "api_user": "ldld",
        "api_password": _SECRET, "username": "canbo",
    },
}  # fmt: skip
NAMES = tuple(OPENING)


def http_settings(name: str, base_url: str, **changes: Any) -> HttpSettings:
    kind, _, _ = OPENING[name]
    base = {"base_url": base_url, "sender": "CONGDOAN", "timeout_s": 5.0, **FIELDS[name]}
    return kind(**(base | changes))


def account_of(settings: HttpSettings) -> dict[str, str]:
    """The fields as the hub writes them for the simulator, every secret "s3cret"."""
    return {
        name: "s3cret" if isinstance(value, SecretRef) else value
        for name, value in settings
        if isinstance(value, str | SecretRef)
    }


class OpenedHttp:
    """An opened account, its surroundings, and the carrier it talks to."""

    def __init__(self, name: str, port: int, simulator: WebCarrier, log: io.StringIO, **changes: Any) -> None:
        self.context = Context(MemoryHub(), "s3cret")
        self.hub = self.context.hub
        self.simulator = simulator
        self.settings = http_settings(name, f"http://127.0.0.1:{port}", **changes)
        if self.settings.receipt_path is not None:
            self.context.password = SECRET_PATH
            simulator.accounts = [{**account_of(self.settings), **dict.fromkeys(_secrets(self.settings), SECRET_PATH)}]
        else:
            simulator.accounts = [account_of(self.settings)]
        self.connection = OPENING[name][1](self.context.value(), self.settings)
        assert self.connection.sink is not None
        self.sink = self.connection.sink
        self._log = log

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def taken(self) -> list[str]:
        return [line["id"] for line in self.lines() if line["verdict"] == "taken"]

    def recorded(self) -> tuple[str, dict[str, str], bytes]:
        return self.simulator.last


def _secrets(settings: HttpSettings) -> list[str]:
    return [name for name, value in settings if isinstance(value, SecretRef)]


@asynccontextmanager
async def opened_http(name: str, behaviour: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[OpenedHttp]:
    log = io.StringIO()
    simulator = OPENING[name][2](log, KEY, [])
    simulator.change({"receipt_delay_ms": 0, **(behaviour or {})})
    runner, port = await serve(simulator.application(), 0)
    opened = OpenedHttp(name, port, simulator, log, **changes)
    try:
        yield opened
    finally:
        assert opened.connection.close is not None
        await opened.connection.close()
        await simulator.stop()
        await runner.cleanup()


def inbound(
    method: str = "GET", path: str = SECRET_PATH, query: dict[str, str] | None = None, body: bytes = b""
) -> RawRequest:
    hub = MemoryHub()
    headers = {"content-type": "application/json"} if body else {}
    return RawRequest("carrier", headers, body, hub.now(), method, path, query or {})
