"""Receipts that carriers bring by HTTP. They sign nothing: the path is the secret, and the id must be one of ours."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from hub.contract import ConnectionContext, Inbound, RawRequest, Statement, UnitOfWork, Verified
from hub.errors import ConfigError, NotUnderstood, Unauthenticated
from hub.model import Receipt, to_us

from .. import tables
from ..numbers import Number, read_number
from ..settings import HttpSettings
from .dialect import Dialect, Report
from .http import is_ours

#: Carriers send again unless they read a plain 200.
INBOUND: Final = Inbound(
    methods=("GET", "POST"),
    media=("application/json", "application/x-www-form-urlencoded"),
    status=200,
    answer=b'{"status":"ok"}',
)
_PATH: Final = re.compile(r"[A-Za-z0-9_-]{24,200}")


def receipt_path(ctx: ConnectionContext, settings: HttpSettings) -> str:
    """The secret end of the path; "" when reports are not taken. Raises ``ConfigError``."""
    if settings.receipt_path is None:
        return ""
    path = ctx.secret(settings.receipt_path).strip()
    if not _PATH.fullmatch(path):
        raise ConfigError("receipt_path: at least 24 letters, digits, - or _ that nobody can guess")
    return path


class Reports:
    """The receiver of one HTTP carrier."""

    def __init__(self, ctx: ConnectionContext, dialect: Dialect, path: str) -> None:
        self._ctx = ctx
        self._dialect = dialect
        self._path = path.encode()

    def verify(self, request: RawRequest) -> Verified:
        if not hmac.compare_digest(request.path.encode("utf-8", "replace"), self._path):
            raise Unauthenticated
        query = "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
        seen = f"{request.method}\n{query}\n".encode("utf-8", "replace") + request.body
        return Verified(hashlib.sha256(seen).hexdigest())

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        report = self._dialect.report(_fields(request, body))
        if report is None:
            raise NotUnderstood
        if self._dialect.reports_by_request_id and not is_ours(self._ctx.hub, report.ref):
            self._ctx.log("receipt.foreign")
            return UnitOfWork()
        key = f"{report.ref}:{report.state}:{report.reason}"
        receipt = Receipt(ref=report.ref, state=report.state, reason=report.reason, dedupe_key=key)
        return UnitOfWork(receipts=[receipt], statements=self._network_now(report, request.received_at))

    def _network_now(self, report: Report, at: datetime) -> Sequence[Statement]:
        """A number that moved to another network keeps its prefix; the carrier knows better."""
        number = read_number(report.phone) if report.network else ""
        if not isinstance(number, Number):
            return ()
        phone_hash = self._ctx.hub.keyed_hash("phone", number.msisdn)
        touch = tables.TOUCH_PHONE(phone_hash=phone_hash, now=to_us(at))
        return touch, tables.MOVED(phone_hash=phone_hash, network=report.network)


def _fields(request: RawRequest, body: Any) -> Mapping[str, Any]:
    if isinstance(body, Mapping):
        return body
    if request.body and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    return request.query
