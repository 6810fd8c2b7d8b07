"""One bound SMPP session over one connection: requests with answers, a window, link checks and a polite end.

Source: SMPP 3.4 sections 2.2 (states), 2.7 (windowing), 2.9 and 7.2 (timers), 4.1-4.11 (operations).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

from . import pdu

#: Called for every deliver_sm; the peer is answered when it is done, with ESME_RX_T_APPN when it raises.
OnDeliver = Callable[[pdu.Message], Awaitable[None]]

#: Called with an answer that came after its time was up.
OnLate = Callable[["Answer"], None]

_BIND_COMMANDS: Final = {
    "transceiver": pdu.BIND_TRANSCEIVER, "transmitter": pdu.BIND_TRANSMITTER, "receiver": pdu.BIND_RECEIVER,
}  # fmt: skip
#: deliver_sm being handled before reading stops, and before it starts again: a flood stays in the peer's memory.
_DELIVERS_MOST: Final = 200
_DELIVERS_RESUME: Final = 100
#: Politeness has an end: a hub that stops gives a connection little more than a second.
_UNBIND_WAIT_S: Final = 0.5
#: After the peer's unbind: for answers that are already on their way.
_LAST_ANSWERS_S: Final = 2.0
#: After close(): for what is still in the buffer.
_FLUSH_S: Final = 0.5
#: Silence after a link check that counts as a miss, as a share of the interval: two misses end well within the next.
_MISS_SHARE: Final = 1 / 3
#: Submits given up whose answer may still come; older ones are forgotten.
_LATE_MOST: Final = 1000
#: Unread answers of ours a peer may pile up before it counts as gone.
_UNREAD_MOST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """The peer answered: its command_status and the body of the answer."""

    status: int
    body: bytes = b""

    @property
    def message_id(self) -> str:
        return pdu.bare_string(self.body)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Bytes may have left and no answer came: the peer may or may not have done it."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte left: it can safely be asked again."""

    reason: str


Reply = Answer | NoAnswer | NotSent


@dataclass(slots=True)
class _Pending:
    """A request that is not answered yet; ``end`` on the loop's clock."""

    command: int
    future: asyncio.Future[Answer | NoAnswer]
    end: float
    on_late: OnLate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds, and the number of submits that may be unanswered at once."""

    window: int = 10
    response_timeout_s: float = 30.0
    enquire_link_s: float = 30.0
    connect_timeout_s: float = 10.0


class Session(asyncio.Protocol):
    """Made by ``connect``, then bound once; ``closed`` is set when the connection is gone, for whatever reason."""

    def __init__(self, timing: Timing, on_deliver: OnDeliver) -> None:
        self.closed = asyncio.Event()
        self.close_reason = ""
        #: Odd things peers do, counted: late answers, unreadable PDUs, failed handlers.
        self.oddities: Counter[str] = Counter()
        self._timing = timing
        self._on_deliver = on_deliver
        self._window = asyncio.Semaphore(timing.window)
        self._framer = pdu.Framer()
        self._pending: dict[int, _Pending] = {}
        self._timer: asyncio.TimerHandle | None = None  # one for all that is pending: timers are dear
        self._out: list[bytes] = []  # PDUs of this turn of the loop, which leave in one write
        self._late: dict[int, OnLate] = {}
        self._delivering: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._sequence = 0
        self._heard = False
        self._ending = False
        self._watching: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    # -- life ------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a submit may still be started."""
        return not self._ending and self._transport is not None and not self._transport.is_closing()

    @property
    def unanswered(self) -> int:
        return len(self._pending)

    async def bind(self, mode: str, system_id: str, password: str, system_type: str = "") -> Reply:
        """Logs in; the link is watched from then on when the peer says yes."""
        body = pdu.bind_body(system_id, password, system_type=system_type)
        reply = await self._request(_BIND_COMMANDS[mode], body, self._timing.response_timeout_s)
        if isinstance(reply, Answer) and reply.status == pdu.ESME_ROK:
            self._watching = asyncio.create_task(self._watch())
        return reply

    async def submit(
        self,
        message: pdu.Message,
        *,
        start_within_s: float | None = None,
        answer_within_s: float | None = None,
        on_late: OnLate | None = None,
    ) -> Reply:
        """Sends one short message; both times are the response time-out where none is given.

        Args:
            start_within_s: how long to wait for a free place in the window.
            answer_within_s: how long to wait for the answer once the bytes are written.
            on_late: is told the answer if it comes after that, while the session lives.

        Raises: ValueError when the message cannot be written as a PDU.
        """
        body = message.encode()
        if self._window.locked():
            try:
                async with asyncio.timeout(self._or_default(start_within_s)):
                    await self._window.acquire()
            except TimeoutError:
                return NotSent("window_full")
        else:
            await self._window.acquire()
        try:
            if not self._writable.is_set():
                try:
                    async with asyncio.timeout(self._or_default(start_within_s)):
                        await self._writable.wait()
                except TimeoutError:
                    return NotSent("link_busy")
            return await self._request(pdu.SUBMIT_SM, body, self._or_default(answer_within_s), on_late)
        finally:
            self._window.release()

    async def query(self, body: bytes) -> Reply:
        """One query_sm (``pdu.query_body``), outside the window: there is never more than a few of them."""
        return await self._request(pdu.QUERY_SM, body, self._timing.response_timeout_s)

    def _or_default(self, seconds: float | None) -> float:
        return self._timing.response_timeout_s if seconds is None else seconds

    async def close(self, grace_s: float = 0.3) -> None:
        """Lets answers and receipts under way finish for ``grace_s``, unbinds and closes."""
        self._ending = True
        under_way: set[asyncio.Future[Answer | NoAnswer] | asyncio.Task[None]] = set(self._delivering)
        under_way.update(pending.future for pending in self._pending.values())
        if under_way:
            await asyncio.wait(under_way, timeout=grace_s)
        if self._watching is not None:
            await self._request(pdu.UNBIND, b"", _UNBIND_WAIT_S)
        self._end("closed")
        if self._transport is not None:
            await self.closed.wait()

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self.close_reason = self.close_reason or "connection_lost"
        if self._watching is not None:
            self._watching.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_result(NoAnswer())
        self._writable.set()
        self.closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for received in self._framer.feed(data):
                self._take(received)
        except pdu.PduError as error:
            # Where one length is wrong, no later boundary can be trusted.
            self.oddities["unreadable_stream"] += 1
            self._write(pdu.encode(pdu.GENERIC_NACK, 0, status=error.status))
            self._end("unreadable_stream")

    # -- one PDU ---------------------------------------------------------------------------------

    def _take(self, received: pdu.Pdu) -> None:
        command, sequence = received.command, received.sequence
        if command & pdu.RESPONSE:
            self._take_answer(received)
        elif command == pdu.DELIVER_SM:
            self._take_deliver(received)
        elif command == pdu.ENQUIRE_LINK:
            self._write(pdu.encode(pdu.ENQUIRE_LINK | pdu.RESPONSE, sequence))
        elif command == pdu.UNBIND:
            self._unbound_by_peer(sequence)
        elif command != pdu.ALERT_NOTIFICATION:
            self.oddities["unknown_command"] += 1
            self._write(pdu.encode(pdu.GENERIC_NACK, sequence, status=pdu.ESME_RINVCMDID))

    def _unbound_by_peer(self, sequence: int) -> None:
        """Nothing new is started; answers that are already on their way are still waited for, shortly."""
        self._ending = True
        self.close_reason = self.close_reason or "unbound_by_peer"
        self._write(pdu.encode(pdu.UNBIND | pdu.RESPONSE, sequence))
        wait_s = 0.0 if all(pending.future.done() for pending in self._pending.values()) else _LAST_ANSWERS_S
        asyncio.get_running_loop().call_later(wait_s, self._end, "unbound_by_peer")

    def _take_answer(self, received: pdu.Pdu) -> None:
        pending = self._pending.get(received.sequence)
        if pending is None:
            self.oddities["late_answer"] += 1
            late = self._late.pop(received.sequence, None)
            if late is not None and received.command == pdu.SUBMIT_SM | pdu.RESPONSE:
                late(Answer(received.status, received.body))
        elif received.command not in (pending.command | pdu.RESPONSE, pdu.GENERIC_NACK):
            self.oddities["answer_to_another_command"] += 1
        elif not pending.future.done():
            status = received.status
            if received.command == pdu.GENERIC_NACK and status == pdu.ESME_ROK:
                status = pdu.ESME_RINVCMDID
            pending.future.set_result(Answer(status, received.body))

    def _take_deliver(self, received: pdu.Pdu) -> None:
        try:
            message = pdu.Message.decode(received.body)
        except pdu.PduError as error:
            self.oddities["unreadable_deliver"] += 1
            self._write(pdu.encode(pdu.GENERIC_NACK, received.sequence, status=error.status))
            return
        task = asyncio.create_task(self._deliver(message, received.sequence))
        self._delivering.add(task)
        task.add_done_callback(self._delivered)
        if len(self._delivering) >= _DELIVERS_MOST and self._transport is not None:
            self._transport.pause_reading()

    async def _deliver(self, message: pdu.Message, sequence: int) -> None:
        status = pdu.ESME_ROK
        try:
            await self._on_deliver(message)
        except Exception:
            # The edge to the owner's code: its failure is told to the peer, who keeps the message and sends it again.
            self.oddities["failed_deliver"] += 1
            status = pdu.ESME_RX_T_APPN
        self._write(pdu.encode(pdu.DELIVER_SM | pdu.RESPONSE, sequence, b"\0", status))

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._delivering.discard(task)
        if len(self._delivering) == _DELIVERS_RESUME and self._transport is not None:
            self._transport.resume_reading()

    # -- requests --------------------------------------------------------------------------------

    async def _request(self, command: int, body: bytes, timeout_s: float, on_late: OnLate | None = None) -> Reply:
        closing_call = command == pdu.UNBIND
        if self._transport is None or self._transport.is_closing() or (self._ending and not closing_call):
            return NotSent("not_bound")
        if timeout_s <= 0:
            return NotSent("no_time")
        loop = asyncio.get_running_loop()
        sequence = self._next_sequence()
        pending = _Pending(command, loop.create_future(), loop.time() + timeout_s, on_late)
        self._pending[sequence] = pending
        self._write(pdu.encode(command, sequence, body))
        if self._timer is None or pending.end < self._timer.when():
            self._look_at(pending.end)
        try:
            return await pending.future
        finally:
            self._pending.pop(sequence, None)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._give_up)

    def _give_up(self) -> None:
        """Ends what has waited long enough, and looks again when the next one has."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for sequence, pending in list(self._pending.items()):
            if pending.end <= now and not pending.future.done():
                del self._pending[sequence]
                self._expect_late(sequence, pending.on_late)
                pending.future.set_result(NoAnswer())
        waiting = [pending.end for pending in self._pending.values() if not pending.future.done()]
        if waiting:
            self._look_at(min(waiting))

    def _expect_late(self, sequence: int, on_late: OnLate | None) -> None:
        if on_late is not None:
            self._late[sequence] = on_late
            if len(self._late) > _LATE_MOST:
                del self._late[next(iter(self._late))]

    def _next_sequence(self) -> int:
        while True:
            self._sequence = self._sequence % 0x7FFFFFFF + 1
            if self._sequence not in self._pending:
                return self._sequence

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if not self._out:
                asyncio.get_running_loop().call_soon(self._flush)
            self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            if self._transport.get_write_buffer_size() > _UNREAD_MOST_BYTES:
                self.close_reason = self.close_reason or "peer_does_not_read"
                self._transport.abort()

    def _end(self, reason: str) -> None:
        self._ending = True
        self.close_reason = self.close_reason or reason
        self._flush()
        if self._transport is not None:
            self._transport.close()
            # A peer that does not read would keep close() waiting for its buffer for ever.
            asyncio.get_running_loop().call_later(_FLUSH_S, self._transport.abort)

    async def _watch(self) -> None:
        """Asks whether the peer is there each ``enquire_link_s``; any byte counts as yes, two silences as no."""
        interval = self._timing.enquire_link_s
        patience = interval * _MISS_SHARE
        while True:
            await asyncio.sleep(interval)
            for _ in range(2):
                self._heard = False
                reply = await self._request(pdu.ENQUIRE_LINK, b"", patience)
                if isinstance(reply, Answer) or self._heard:
                    break
            else:
                self.close_reason = self.close_reason or "link_silent"
                if self._transport is not None:
                    # Not close(): what is still in the buffer can never be flushed to a silent peer.
                    self._transport.abort()
                return


async def connect(
    host: str, port: int, timing: Timing, on_deliver: OnDeliver, *, tls: ssl.SSLContext | None, server_name: str | None
) -> Session:
    """An unbound session. Raises ``OSError`` (``ssl.SSLError`` is one) or ``TimeoutError``."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timing.connect_timeout_s):
        _, session = await loop.create_connection(
            lambda: Session(timing, on_deliver),
            host,
            port,
            ssl=tls,
            server_hostname=(server_name or host) if tls else None,
        )
    return session
