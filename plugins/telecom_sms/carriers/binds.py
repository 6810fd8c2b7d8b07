"""One SMPP account: its binds, the receipts and messages that come in over them, and its check."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from hub.contract import CheckStep, ConnectionContext, UnitOfWork
from hub.errors import ConfigError, HubError
from hub.model import Receipt

from ..codes import RECEIPT_STATES, meaning_of
from ..inbound import Inbox
from ..settings import SmsSettings
from ..smpp import pdu, receipt
from ..smpp.link import Endpoint, Link, LoginRefused, open_bound
from ..smpp.session import Answer, Session, Timing
from .overdue import Overdue

#: The carrier is asked about one segment after the other, and this often whether one is due.
_LOOK_SHARE: Final = 1 / 4


def tls_context(settings: SmsSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:
        raise ConfigError(f"tls_ca_file: cannot be read as PEM certificates ({type(error).__name__})") from None


class Account:
    """The binds of one account, and what comes in over them."""

    def __init__(self, ctx: ConnectionContext, settings: SmsSettings) -> None:
        self._ctx = ctx
        self._settings = settings
        self.policy = receipt.ID_POLICIES[settings.receipt_ids]
        self.overdue = None if settings.query_after_s is None else Overdue(settings.query_after_s)
        self._inbox = Inbox(ctx, settings)
        self._turn = 0
        mode = "transceiver" if settings.bind == "transceiver" else "transmitter"
        self.sending = [Link(self._endpoint(mode), self._on_deliver) for _ in range(settings.binds)]
        receiver = [] if mode == "transceiver" else [Link(self._endpoint("receiver"), self._on_deliver)]
        self._links = [*self.sending, *receiver]

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

    # -- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(self._keep_up(link))
            if self.overdue is not None:
                group.create_task(self._ask_about(self.overdue))

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

    @property
    def login_refused(self) -> bool:
        return any(link.login_refused for link in self.sending)

    def usable(self) -> list[Session]:
        """Sessions on which a submit may be started now."""
        return [link.session for link in self.sending if link.session is not None and link.session.usable]

    async def bound(self, timeout_s: float, preferred: Session | None = None) -> Session | None:
        """``preferred`` while it lives, else the least busy one; waits for one at most ``timeout_s``."""
        if preferred is not None and preferred.usable:
            return preferred
        ready = self.usable()
        if ready:
            # In turn among the equally busy: messages that start together have not begun to be busy.
            self._turn = (self._turn + 1) % len(ready)
            ready = ready[self._turn :] + ready[: self._turn]
            return min(ready, key=lambda session: session.unanswered)
        if timeout_s <= 0:
            return None
        waiting = [asyncio.create_task(link.bound(timeout_s)) for link in self.sending]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return next((task.result() for task in done), None)
        finally:
            for task in waiting:
                task.cancel()

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links))

    # -- what comes in ---------------------------------------------------------------------------

    async def _on_deliver(self, message: pdu.Message) -> None:
        """The peer gets its answer when this returns; what raises here makes the carrier keep it and send it again."""
        if not receipt.is_receipt(message):
            await self._inbox.take(message)
            return
        report = receipt.parse(message)
        ref = self.policy.reference_of(report)
        if not ref:
            self._ctx.log("receipt.unreadable", state=report.state)
            return
        await self._report(ref, report.state, report.error, report.done)

    async def _report(self, ref: str, said: str, error: str, done: str) -> None:
        state, reason = RECEIPT_STATES[said]
        if state == "failed" and re.fullmatch(r"0*[1-9A-Za-z][0-9A-Za-z]{0,7}", error):
            reason = f"{reason}_err_{error.lower()}"
        key = f"{ref}:{said}:{done}"
        await self._ctx.hub.commit(UnitOfWork(receipts=[Receipt(ref=ref, state=state, reason=reason, dedupe_key=key)]))
        if self.overdue is not None and state != "interim":
            self.overdue.reported(ref)

    # -- receipts that do not come -----------------------------------------------------------------

    async def _ask_about(self, overdue: Overdue) -> None:
        """Asks the carrier by query_sm what became of segments whose receipt is overdue, one after the other."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(overdue.after_s * _LOOK_SHARE)
            for ref, message_id in list(overdue.due(clock())):
                said = await self._ask(ref, message_id)
                if said is None:
                    # Not answered, or not known yet: it is asked again as much later.
                    overdue.await_receipt(ref, message_id, clock())

    async def _ask(self, ref: str, message_id: str) -> str | None:
        """The final state the carrier told, or "" when it does not know the message; None: ask again."""
        session, settings = await self.bound(0), self._settings
        if session is None:
            return None
        body = pdu.query_body(message_id, source=settings.sender, source_ton=settings.ton, source_npi=settings.npi)
        reply = await session.query(body)
        if not isinstance(reply, Answer):
            return None
        if reply.status != pdu.ESME_ROK:
            self._ctx.log("query.refused", status=reply.status)
            return ""
        try:
            found = pdu.QueryAnswer.decode(reply.body)
        except pdu.PduError:
            self._ctx.log("query.refused", status=reply.status)
            return ""
        said = receipt.STATE_BY_NUMBER.get(found.state, "UNKNOWN")
        if RECEIPT_STATES[said][0] == "interim":
            return None
        try:
            await self._report(ref, said, f"{found.error:03}" if found.error else "", found.final_date)
        except HubError:
            return None  # the ledger is busy: nothing is lost by asking once more
        return said

    # -- check -------------------------------------------------------------------------------------

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
        if self.usable():
            # A second bind beside the living one would be refused by carriers that allow one only.
            return CheckStep("login", True, "đang đăng nhập / bound")
        try:
            session = await open_bound(self.sending[0].endpoint, self._on_deliver)
        except LoginRefused as refused:
            meaning = meaning_of(refused.status)
            return CheckStep("login", False, f"bị từ chối / refused: {meaning.reason} (0x{refused.status:02X})")
        except (OSError, TimeoutError) as error:
            return CheckStep("login", False, f"không có trả lời / no answer ({type(error).__name__})")
        await session.close()
        return CheckStep("login", True, "đăng nhập được / logged in")
