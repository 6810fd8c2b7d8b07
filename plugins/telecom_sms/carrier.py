"""One account at a carrier: its sessions, the receipts and messages that come in over them, and its check."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

from hub.contract import CheckStep, ConnectionContext, UnitOfWork
from hub.errors import ConfigError
from hub.model import Receipt

from .codes import RECEIPT_STATES, meaning_of
from .settings import SmsSettings
from .smpp import pdu, receipt
from .smpp.link import Endpoint, Link, LoginRefused, open_bound
from .smpp.session import Timing


def tls_context(settings: SmsSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:
        raise ConfigError(f"tls_ca_file: cannot be read as PEM certificates ({type(error).__name__})") from None


class Carrier:
    """The binds of one account, and what comes in over them."""

    def __init__(self, ctx: ConnectionContext, settings: SmsSettings) -> None:
        self._ctx = ctx
        self._settings = settings
        self._policy = receipt.ID_POLICIES[settings.receipt_ids]
        self._inbound_count = 0
        modes = ("transceiver",) if settings.bind == "transceiver" else ("transmitter", "receiver")
        self._links = [Link(self._endpoint(mode), self._on_deliver) for mode in modes]
        self.sending = self._links[0]

    def _endpoint(self, mode: str) -> Endpoint:
        settings = self._settings
        return Endpoint(
            host=settings.host,
            port=settings.port,
            system_id=settings.system_id,
            password=lambda: self._ctx.secret(settings.password),
            system_type=settings.system_type,
            mode=mode,
            tls=(lambda: tls_context(settings)) if settings.tls else None,
            server_name=settings.tls_server_name,
            timing=Timing(
                window=settings.window,
                response_timeout_s=settings.response_timeout_s,
                enquire_link_s=settings.enquire_link_s,
                connect_timeout_s=settings.connect_timeout_s,
            ),
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(self._keep_up(link))

    async def _keep_up(self, link: Link) -> None:
        mode = link.endpoint.mode

        async def on_up() -> None:
            self._ctx.log("session.bound", mode=mode, window=self._settings.window)
            await self._ctx.clear_repair("login_refused")

        async def on_down(reason: str) -> None:
            self._ctx.log("session.lost", mode=mode, reason=reason)
            if link.login_refused:
                await self._ctx.open_repair(
                    "login_refused",
                    f"Nhà mạng từ chối đăng nhập ({reason}). Tin được giữ lại, chưa tin nào mất. Kiểm tra system_id và "
                    f"mật khẩu của kết nối. / The carrier refused the login ({reason}). Messages are kept, none is "
                    "lost. Check system_id and password of the connection.",
                )

        await link.run(on_up, on_down)

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links))

    async def _on_deliver(self, message: pdu.Message) -> None:
        """The peer gets its answer when this returns; what raises here makes the carrier keep it and send it again."""
        if not receipt.is_receipt(message):
            # Inbound messages are taken and counted, so that the carrier does not repeat them for ever.
            self._inbound_count += 1
            self._ctx.log("message.received", count=self._inbound_count, octets=len(message.octets))
            return
        report = receipt.parse(message)
        ref = self._policy.reference_of(report)
        if not ref:
            self._ctx.log("receipt.unreadable", state=report.state)
            return
        state, reason = RECEIPT_STATES[report.state]
        if state == "failed" and re.fullmatch(r"0*[1-9A-Za-z][0-9A-Za-z]{0,7}", report.error):
            reason = f"{reason}_err_{report.error.lower()}"
        key = f"{ref}:{report.state}:{report.done}"
        await self._ctx.hub.commit(UnitOfWork(receipts=[Receipt(ref=ref, state=state, reason=reason, dedupe_key=key)]))

    async def check(self) -> AsyncIterator[CheckStep]:
        """dns, tcp, tls (when set) and login, each only after the one before it."""
        host, port = self._settings.host, self._settings.port
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
        except OSError as error:
            yield CheckStep("dns", False, f"không tìm thấy máy chủ / host not found ({type(error).__name__})")
            return
        yield CheckStep("dns", True, str(found[0][4][0]))
        for step in ("tcp", "tls") if self._settings.tls else ("tcp",):
            problem = await self._try_to_connect(tls_context(self._settings) if step == "tls" else None)
            yield CheckStep(step, not problem, problem or "kết nối được / connected")
            if problem:
                return
        yield await self._check_login()

    async def _try_to_connect(self, tls: ssl.SSLContext | None) -> str:
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                _, writer = await asyncio.open_connection(
                    settings.host,
                    settings.port,
                    ssl=tls,
                    server_hostname=(settings.tls_server_name or settings.host) if tls else None,
                )
        except (OSError, TimeoutError) as error:
            return f"không kết nối được / cannot connect ({type(error).__name__})"
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return ""

    async def _check_login(self) -> CheckStep:
        if await self.sending.bound(0) is not None:
            # A second bind beside the living one would be refused by carriers that allow one only.
            return CheckStep("login", True, "đang đăng nhập / bound")
        try:
            session = await open_bound(self.sending.endpoint, self._on_deliver)
        except LoginRefused as refused:
            meaning = meaning_of(refused.status)
            return CheckStep("login", False, f"bị từ chối / refused: {meaning.reason} (0x{refused.status:02X})")
        except (OSError, TimeoutError) as error:
            return CheckStep("login", False, f"không có trả lời / no answer ({type(error).__name__})")
        await session.close()
        return CheckStep("login", True, "đăng nhập được / logged in")
