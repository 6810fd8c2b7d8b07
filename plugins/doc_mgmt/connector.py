"""Connector type ``doc_axis``: pulls documents from the axis and sends it status packets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hub.contract import (
    Admission,
    Admit,
    Cancel,
    CheckStep,
    Connection,
    ConnectionContext,
    ConnectorType,
    Delivered,
    DestinationSpec,
    Exchange,
    Outcome,
    Page,
    SecretRef,
    Shipment,
    Simulator,
)
from hub.errors import ConfigError
from hub.model import Event

from . import codes, schema, tables
from .archive import Limits
from .client import AxisClient, AxisError, Listed, Mark, header_safe
from .intake import Intake, Origin
from .settings import DocAxisSettings, is_loopback

#: A page is committed as one transaction; several large scans would hold the writer too long.
_PAGE_BYTES = 32 << 20

_QUARANTINED = "packets_quarantined"
_SECRET = "secret_document_refused"
_LOGIN = "login_refused"
_TOO_LARGE = "packet_too_large"
_REPAIR_TEXTS = {
    _QUARANTINED: (
        "Có gói văn bản không đọc được; đã giữ nguyên gói và báo lỗi về trục, các văn bản khác vẫn nhận bình thường. "
        "Xem: unionhub documents quarantine; đọc lại: unionhub documents reparse ID."
    ),
    _SECRET: (
        "Trục chuyển đến văn bản có dấu mật; hệ thống từ chối và không lưu nội dung. "
        "Báo nơi gửi chuyển theo đường văn bản mật, rồi: unionhub documents resolve ID."
    ),
    _LOGIN: (
        "Trục từ chối mã hệ thống hoặc khóa bí mật; chưa văn bản nào mất, văn bản mới vẫn ở trên trục. "
        "Kiểm tra khóa rồi chạy: unionhub connections check."
    ),
    _TOO_LARGE: (
        "Có gói văn bản lớn hơn max_packet_mb nên chưa tải về; gói vẫn ở trên trục. "
        "Tăng max_packet_mb của kết nối này, lượt đọc sau sẽ nhận."
    ),
}


@dataclass(frozen=True, slots=True)
class Taken:
    """One item of a committed page and the mark it gets on the axis."""

    doc_id: str
    verdict: str

    @property
    def mark(self) -> Mark:
        return "fail" if self.verdict in ("quarantined", "refused") else "done"


class AxisSource:
    """Reads the axis's list of unmarked packets.

    The list is not paged and repeats what is not marked yet, so it is walked in a fixed order of our own and
    every step is idempotent; the cursor only keeps one run from walking in circles.
    """

    def __init__(self, context: ConnectionContext, settings: DocAxisSettings, client: AxisClient) -> None:
        self._context = context
        self._settings = settings
        self._client = client
        self._limits = Limits(packet_bytes=settings.max_packet_mb << 20)
        #: Repairs that may stand from now or from before a restart.
        self._perhaps_open = {_QUARANTINED, _SECRET, _LOGIN, _TOO_LARGE}
        #: Whether the walk through the list that is under way has met a packet too large to fetch.
        self._met_too_large = False

    async def page(self, cursor: str | None) -> Page:
        """The next packets in order of their key; raises ``AxisError`` when the axis cannot be reached."""
        left = [item for item in await self._listed() if _key(item) > (cursor or "")]
        batch = left[: self._settings.page_size]
        intake = Intake(
            self._context.hub,
            Origin(
                connection=self._context.name,
                own_organ_id=self._settings.organ_id,
                own_organ_name=self._settings.organ_name,
            ),
            self._limits,
        )
        taken: list[Taken] = []
        page_bytes = failed = reached = 0
        for item in batch:
            verdict = await self._verdict_of(item.doc_id)
            if verdict is None and page_bytes < _PAGE_BYTES:
                raw = await self._fetch(item.doc_id)
                if raw is not None:
                    page_bytes += len(raw)
                    verdict = await intake.take(item.doc_id, raw)
            elif verdict is None:
                break
            reached += 1
            if verdict is None:
                failed += 1  # stays in the list, and the next run tries it again
            else:
                taken.append(Taken(item.doc_id, verdict))
        done = reached == len(left)
        if done:
            await self._settle_too_large()
        self._context.log("documents.read", listed=len(left), taken=len(taken), failed=failed, **intake.counts)
        return Page(
            unit=intake.unit(), cursor=None if done else _key(batch[reached - 1]), done=done, token=tuple(taken)
        )

    async def acknowledge(self, page: Page) -> None:
        """Marks every item of the page; one that fails is listed again and marked then."""
        taken: Sequence[Taken] = page.token or ()
        for verdict, kind in (("quarantined", _QUARANTINED), ("refused", _SECRET)):
            if any(item.verdict == verdict for item in taken):
                await self._open(kind)
        failed = 0
        for item in taken:
            try:
                await self._client.mark(item.doc_id, item.mark)
            except AxisError as error:
                if error.http_status is None:
                    raise
                failed += 1
        if taken:
            self._context.log("documents.acknowledged", marked=len(taken) - failed, failed=failed)
        await self._clear_settled()

    async def _listed(self) -> list[Listed]:
        try:
            listed = await self._client.received()
        except AxisError as error:
            if codes.login_was_refused(error.http_status, error.error_code):
                await self._open(_LOGIN)
            self._context.log("axis.refused", reason=error.code, status=error.http_status, error_code=error.error_code)
            raise
        await self._clear(_LOGIN)
        usable = {item.doc_id: item for item in listed if header_safe(item.doc_id)}
        if len(usable) < len(listed):
            self._context.log("documents.skipped", unusable_ids=len(listed) - len(usable))
        return sorted(usable.values(), key=_key)

    async def _verdict_of(self, doc_id: str) -> str | None:
        rows = await self._context.hub.fetch(
            tables.PACKET_BY_DOC_ID(connection=self._context.name, doc_id=doc_id),
        )
        return str(rows[0][0]) if rows else None

    async def _fetch(self, doc_id: str) -> bytes | None:
        """The packet, or None if this one cannot be had now: one bad item must not hold up the others."""
        try:
            return await self._client.fetch(doc_id)
        except AxisError as error:
            if not error.bytes_left or codes.login_was_refused(error.http_status, error.error_code):
                raise
            self._met_too_large |= error.code == "answer_too_large"
            self._context.log("document.fetch_failed", doc_id=doc_id, reason=error.code, status=error.http_status)
            return None

    async def _settle_too_large(self) -> None:
        if self._met_too_large:
            await self._open(_TOO_LARGE)
        else:
            await self._clear(_TOO_LARGE)
        self._met_too_large = False

    async def _clear_settled(self) -> None:
        if not self._perhaps_open & {_QUARANTINED, _SECRET}:
            return
        rows = await self._context.hub.fetch(
            tables.OPEN_QUARANTINES(connection=self._context.name, state="kept"),
        )
        if rows[0][0] == 0:
            await self._clear(_QUARANTINED)
            await self._clear(_SECRET)

    async def _open(self, kind: str) -> None:
        self._perhaps_open.add(kind)
        await self._context.open_repair(kind, _REPAIR_TEXTS[kind])

    async def _clear(self, kind: str) -> None:
        if kind in self._perhaps_open:
            await self._context.clear_repair(kind)
            self._perhaps_open.discard(kind)


def _key(item: Listed) -> str:
    return f"{item.created_at}|{item.doc_id}"


class AxisSink:
    """Sends status packets."""

    #: The same status of the same document again has no further effect at the receiver.
    resend_is_safe = True

    def __init__(self, name: str, settings: DocAxisSettings, client: AxisClient) -> None:
        self._source = f"/connections/{name}"
        self._settings = settings
        self._client = client

    def destinations(self) -> Sequence[DestinationSpec]:
        return (DestinationSpec(concurrency=self._settings.connections),)

    def render(self, event: Event) -> bytes:
        return schema.status_packet(event.data) if event.type == schema.STATUS_ISSUED else b""

    async def admit(self, shipment: Shipment) -> Admission:
        if shipment.event.type != schema.STATUS_ISSUED:
            return Cancel("event_type_not_sendable")
        # Another axis does not know the document this one speaks about.
        return Admit() if shipment.event.source.endswith(self._source) else Cancel("other_axis")

    async def send(self, shipment: Shipment) -> Outcome:
        try:
            reply = await self._client.send_status(
                shipment.body, shipment.event.data["sender"]["organ_id"], shipment.deadline_s
            )
        except AxisError as error:
            return codes.outcome(
                code=error.code,
                http_status=error.http_status,
                error_code=error.error_code,
                bytes_left=error.bytes_left,
                retry_after_s=error.retry_after_s,
            )
        return Delivered(
            exchange=Exchange(
                status=reply.http_status,
                connect_ms=reply.connect_ms,
                first_byte_ms=reply.first_byte_ms,
                total_ms=reply.total_ms,
                answer=b"0",
            )
        )


async def _check(settings: DocAxisSettings, client: AxisClient) -> AsyncIterator[CheckStep]:
    """dns, tcp, tls, login; stops at the first that fails. ``detail`` is a code, never an answer's text."""
    parts = urlsplit(settings.endpoint)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(settings.timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
            yield CheckStep("dns", True, f"addresses={len({item[4][0] for item in found})}")
    except (OSError, TimeoutError):
        yield CheckStep("dns", False, "name_not_found")
        return
    try:
        await _dial(host, port, None, settings.timeout_s)
        yield CheckStep("tcp", True, f"port={port}")
    except (OSError, TimeoutError):
        yield CheckStep("tcp", False, "connect_failed")
        return
    if parts.scheme == "https":
        try:
            await _dial(host, port, ssl.create_default_context(), settings.timeout_s)
            yield CheckStep("tls", True, "certificate_valid")
        except (OSError, TimeoutError) as error:
            refused = isinstance(error, ssl.SSLCertVerificationError)
            yield CheckStep("tls", False, "certificate_refused" if refused else "handshake_failed")
            return
    else:
        yield CheckStep("tls", True, "not_used")
    try:
        waiting = await client.received()
        yield CheckStep("login", True, f"waiting={len(waiting)}")
    except AxisError as error:
        refused = codes.login_was_refused(error.http_status, error.error_code)
        yield CheckStep("login", False, "login_refused" if refused else error.code)


async def _dial(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
        await writer.wait_closed()


def _open_connection(context: ConnectionContext, settings: DocAxisSettings) -> Connection:
    client = AxisClient(
        settings.endpoint,
        system_id=settings.system_id,
        secret=lambda: context.secret(settings.secret),
        timeout_s=settings.timeout_s,
        connections=settings.connections,
        packet_bytes=settings.max_packet_mb << 20,
        now=context.hub.now,
    )
    return Connection(
        source=AxisSource(context, settings, client),
        sink=AxisSink(context.name, settings, client),
        check=lambda: _check(settings, client),
        close=client.close,
    )


def _simulator_arguments(
    settings: Mapping[str, DocAxisSettings], secret: Callable[[SecretRef], str], folder: Path
) -> Sequence[str]:
    """One axis plays all connections, so they must name the same one; its key goes by file, not by argument."""
    first, *others = settings.values()
    if any((other.endpoint, other.system_id) != (first.endpoint, first.system_id) for other in others):
        raise ConfigError("the simulator plays one axis: give all doc_axis connections one endpoint and system_id")
    parts = urlsplit(first.endpoint)
    if not is_loopback(parts.hostname or ""):
        raise ConfigError("the simulator listens on this machine only: endpoint must be http://127.0.0.1:PORT")
    key = folder / "doc_axis.key"
    key.touch(mode=0o600)
    key.write_text(secret(first.secret))
    return ["--port", str(parts.port or 0), "--system-id", first.system_id, "--secret-file", str(key)]


CONNECTOR_TYPE = ConnectorType(
    name="doc_axis",
    settings=DocAxisSettings,
    open=_open_connection,
    title_vi="Trục liên thông văn bản",
    title_en="Document axis",
    simulator=Simulator("plugins.doc_mgmt.simulator", _simulator_arguments),
)
