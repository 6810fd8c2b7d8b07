"""An SMSC: takes binds and messages, answers as it is told to, and reports what became of them.

Every fault it can play is a field of ``Behaviour`` and can be changed while it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import ssl
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

from . import wire
from .behaviour import Behaviour
from .journal import Journal, Taken

_RECEIPT_WINDOW = 50
_RECEIPT_ANSWER_S = 10.0
#: Messages whose end can still be asked for.
_STATES_MOST = 50_000


@dataclass(eq=False)
class Receipt:
    system_id: bytes
    submit: wire.Submit
    message_id: str
    state: str
    stamp: str
    style: str
    #: As the answer wrote it, and as the optional parameter repeats it.
    answered_id: str

    def body(self) -> bytes:
        message_id = self.answered_id if self.style == "parameters" else self.message_id
        return wire.receipt_body(self.submit, message_id, self.state, self.stamp, self.style)


class Peer(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, smsc: Smsc) -> None:
        self.smsc = smsc
        self.mode = ""
        self.system_id = b""
        self.transport: asyncio.Transport | None = None
        self.sequence = 0
        #: Receipts sent and not yet answered, with what gives them up.
        self.unanswered: dict[int, tuple[Receipt | None, asyncio.TimerHandle]] = {}
        self._buffer = bytearray()

    @property
    def receives(self) -> bool:
        return self.mode in ("receiver", "transceiver") and len(self.unanswered) < _RECEIPT_WINDOW

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.smsc.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.mode = ""
        self.smsc.left(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for command, status, sequence, body in wire.read_frames(self._buffer):
                self._take(command, status, sequence, body)
        except wire.Garbage:
            self.smsc.counts["unreadable"] += 1
            self.send(wire.NACK, wire.BAD_LENGTH, 0)
            if self.transport is not None:
                self.transport.close()

    def send(self, command: int, status: int, sequence: int, body: bytes = b"") -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(wire.frame(command, status, sequence, body))

    def deliver(self, body: bytes, receipt: Receipt | None = None) -> None:
        """Sends a deliver_sm; a receipt among them comes back to the queue if it is not answered well."""
        self.sequence += 1
        late = asyncio.get_running_loop().call_later(_RECEIPT_ANSWER_S, self._settle, self.sequence, False)
        self.unanswered[self.sequence] = receipt, late
        self.send(wire.DELIVER, wire.OK, self.sequence, body)

    def _settle(self, sequence: int, well: bool) -> None:
        receipt, late = self.unanswered.pop(sequence, (None, None))
        if late is not None:
            late.cancel()
        if receipt is not None:
            self.smsc.receipt_settled(receipt, well)

    def _take(self, command: int, status: int, sequence: int, body: bytes) -> None:
        if self.smsc.behaviour.silent:
            return
        answer = command | 0x80000000
        if command in wire.BIND_NAMES:
            status = self.smsc.bind_status(self, body)
            self.send(answer, status, sequence, b"" if status else b"simulator\0")
            if status == wire.OK:
                self.mode = wire.BIND_NAMES[command]
                self.smsc.pump()
        elif command == wire.SUBMIT:
            if self.mode in ("transmitter", "transceiver"):
                self.smsc.submit(self, sequence, wire.read_submit(body))
            else:
                self.send(answer, wire.NOT_BOUND, sequence)
        elif command == wire.QUERY and self.smsc.behaviour.queries:
            state = self.smsc.final_state(wire.read_query(body).decode("ascii", "replace"))
            found = wire.query_answer(wire.read_query(body), *state) if state else b""
            self.send(answer, wire.OK if state else wire.QUERY_FAILED, sequence, found)
        elif command == wire.ENQUIRE:
            self.smsc.counts["enquire_links"] += 1
            self.send(answer, wire.OK, sequence)
        elif command == wire.UNBIND:
            self.smsc.counts["unbinds"] += 1
            self.send(answer, wire.OK, sequence)
            if self.transport is not None:
                self.transport.close()
        elif command == wire.DELIVER | 0x80000000:
            self._settle(sequence, status == wire.OK)
        elif not command & 0x80000000:
            self.send(wire.NACK, wire.BAD_COMMAND, sequence)


class Smsc:
    """One carrier with its accounts: system_id and password."""

    def __init__(self, journal: Journal, key: bytes, accounts: Mapping[str, str], seed: int = 1) -> None:
        self.behaviour = Behaviour()
        self.counts: Counter[str] = Counter()
        self.peers: set[Peer] = set()
        self._states: dict[str, str] = {}
        self._journal = journal
        self._key = key
        self._accounts = {name.encode(): password.encode() for name, password in accounts.items()}
        self._dice = random.Random(seed)
        #: Ids go on growing over restarts, so that a receipt never names a message of an earlier life.
        self._last_number = int(datetime.now(UTC).timestamp() * 1000) << 16
        self._held: list[tuple[Peer, int, str, Taken]] = []
        self._due: dict[bytes, deque[Receipt]] = {name: deque() for name in self._accounts}
        self._recent: deque[float] = deque()
        self._servers: list[asyncio.Server] = []

    # -- life ------------------------------------------------------------------------------------

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        """Listens on one more port; answers which."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Peer(self), "127.0.0.1", port, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._journal.give_up_incomplete()
        self.drop()
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def drop(self) -> None:
        """Cuts every connection without a word."""
        for peer in list(self.peers):
            if peer.transport is not None:
                peer.transport.abort()

    def unbind_all(self) -> None:
        """Asks every client to leave, as a carrier does before maintenance."""
        for peer in self.peers:
            peer.sequence += 1
            peer.send(wire.UNBIND, wire.OK, peer.sequence)

    def joined(self, peer: Peer) -> None:
        self.counts["connections"] += 1
        self.peers.add(peer)
        if self.behaviour.down and peer.transport is not None:
            peer.transport.abort()

    def left(self, peer: Peer) -> None:
        self.peers.discard(peer)
        for sequence in list(peer.unanswered):
            peer._settle(sequence, False)

    # -- control ---------------------------------------------------------------------------------

    def change(self, wanted: dict[str, object]) -> None:
        """Raises ``ValueError`` on a field or value there is not; then nothing was changed."""
        known = asdict(self.behaviour)
        for name, value in wanted.items():
            if name not in known:
                raise ValueError(f"no such field: {name}")
            kind = type(known[name])
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"{name} must be {kind.__name__}")
        for name, value in wanted.items():
            setattr(self.behaviour, name, value)
        if self.behaviour.down:
            self.drop()
        if not self.behaviour.withhold:
            self._release()
        self.pump()

    def state(self) -> dict[str, object]:
        sent_unanswered = sum(len(peer.unanswered) for peer in self.peers)
        names = (
            "connections", "binds", "unbinds", "submitted", "taken", "refused", "lost", "receipts_sent",
            "receipts_acked", "receipts_refused", "receipts_lost", "binds_refused", "queries", "enquire_links",
            "unreadable",
        )  # fmt: skip
        return {
            **asdict(self.behaviour),
            **{name: self.counts[name] for name in names},
            "bound": sum(1 for peer in self.peers if peer.mode),
            "withheld": len(self._held),
            "in_flight": len(self._held) + self.counts["delayed"],
            "receipts_pending": self.counts["receipts_owed"] - self.counts["receipts_acked"],
            "receipts_in_flight": sent_unanswered,
            "incomplete": self._journal.incomplete_count,
        }

    def _release(self) -> None:
        held, self._held = self._held, []
        for peer, sequence, message_id, taken in held:
            taken.answered = True
            self._answer(peer, sequence, message_id)

    # -- binds and messages ----------------------------------------------------------------------

    def bind_status(self, peer: Peer, body: bytes) -> int:
        system_id, password = wire.strings(body, 2)
        if peer.mode:
            return wire.BOUND_ALREADY
        if system_id not in self._accounts:
            return wire.BAD_SYSTEM_ID
        if not hmac.compare_digest(password, self._accounts[system_id]):
            return wire.BAD_PASSWORD
        sending = sum(1 for other in self.peers if other.system_id == system_id and other.mode.startswith("trans"))
        if self.behaviour.bind_limit and sending >= self.behaviour.bind_limit:
            self.counts["binds_refused"] += 1
            return wire.BIND_FAILED
        peer.system_id = system_id
        self.counts["binds"] += 1
        return wire.OK

    def submit(self, peer: Peer, sequence: int, submit: wire.Submit) -> None:
        self.counts["submitted"] += 1
        status = self._refusal(submit)
        if status:
            self.counts["refused"] += 1
            self._journal.refuse(submit, status)
            peer.send(wire.SUBMIT | 0x80000000, status, sequence)
            return
        self.counts["taken"] += 1
        behaviour = self.behaviour
        lost = self._dice.random() < behaviour.lose_share
        answered_id, receipt_id = self._new_ids()
        taken = self._journal.take(submit, answered_id, not (lost or behaviour.withhold))
        if submit.wants_receipt:
            self.owe_receipt(peer.system_id, submit, receipt_id, answered_id)
        if lost:
            self.counts["lost"] += 1
        elif behaviour.withhold:
            self._held.append((peer, sequence, answered_id, taken))
        elif behaviour.slow_ms:
            self.counts["delayed"] += 1
            loop = asyncio.get_running_loop()
            loop.call_later(behaviour.slow_ms / 1000, self._answer_delayed, peer, sequence, answered_id)
        else:
            self._answer(peer, sequence, answered_id)

    def _refusal(self, submit: wire.Submit) -> int:
        behaviour = self.behaviour
        if not submit.phone.isdigit():
            return wire.BAD_NUMBER
        if behaviour.throttle_share and self._dice.random() < behaviour.throttle_share:
            return wire.THROTTLED
        if behaviour.rate_per_s:
            now = asyncio.get_running_loop().time()
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= behaviour.rate_per_s:
                return wire.THROTTLED
            self._recent.append(now)
        if behaviour.error_share and self._dice.random() < behaviour.error_share:
            return behaviour.error_status
        return wire.OK

    def _new_ids(self) -> tuple[str, str]:
        """The id for the answer and the same one as the receipt will write it."""
        self._last_number += 1
        decimal, hexadecimal = str(self._last_number), f"{self._last_number:X}"
        return {
            "hex_then_dec": (hexadecimal, decimal.zfill(20)),
            "dec_then_hex": (decimal, hexadecimal),
        }.get(self.behaviour.id_style, (decimal, decimal))

    def _answer(self, peer: Peer, sequence: int, message_id: str) -> None:
        peer.send(wire.SUBMIT | 0x80000000, wire.OK, sequence, message_id.encode() + b"\0")

    def _answer_delayed(self, peer: Peer, sequence: int, message_id: str) -> None:
        self.counts["delayed"] -= 1
        self._answer(peer, sequence, message_id)

    # -- receipts --------------------------------------------------------------------------------

    def final_state(self, message_id: str) -> tuple[int, int] | None:
        """(message_state, error code) of a message by the id its submit was answered with."""
        self.counts["queries"] += 1
        state = self._states.get(message_id)
        return None if state is None else (wire.STATE_NUMBERS[state], 0 if state == "DELIVRD" else 69)

    def owe_receipt(self, system_id: bytes, submit: wire.Submit, message_id: str, answered_id: str = "") -> None:
        behaviour = self.behaviour
        digest = hmac.new(self._key, b"reach:" + submit.phone, hashlib.sha256).digest()
        state = "UNDELIV" if int.from_bytes(digest[:4], "big") < behaviour.undeliv_share * 2**32 else "DELIVRD"
        self._states[answered_id or message_id] = state
        if len(self._states) > _STATES_MOST:
            del self._states[next(iter(self._states))]
        if behaviour.receipt_lose_share and self._dice.random() < behaviour.receipt_lose_share:
            self.counts["receipts_lost"] += 1
            return
        self.counts["receipts_owed"] += 1
        style = behaviour.receipt_style
        if style == "mixed":
            style = wire.RECEIPT_STYLES[self.counts["receipts_owed"] % len(wire.RECEIPT_STYLES)]
        receipt = Receipt(
            system_id,
            submit,
            message_id,
            state,
            datetime.now(UTC).strftime("%y%m%d%H%M%S"),
            style,
            answered_id or message_id,
        )
        if self._dice.random() < behaviour.early_receipt_share:
            self._receipt_due(receipt)
        else:
            self._receipt_later(receipt, behaviour.receipt_delay_ms)
        if behaviour.receipt_repeat_share and self._dice.random() < behaviour.receipt_repeat_share:
            self.counts["receipts_owed"] += 1
            self._receipt_later(receipt, behaviour.receipt_delay_ms)

    def _receipt_later(self, receipt: Receipt, delay_ms: int) -> None:
        asyncio.get_running_loop().call_later(delay_ms / 1000, partial(self._receipt_due, receipt))

    def _receipt_due(self, receipt: Receipt) -> None:
        self._due[receipt.system_id].append(receipt)
        self.pump()

    def pump(self) -> None:
        """Sends due receipts to whoever is bound to receive; the others wait."""
        for system_id, due in self._due.items():
            while due:
                peer = next((peer for peer in self.peers if peer.receives and peer.system_id == system_id), None)
                if peer is None:
                    break
                if self.behaviour.receipt_shuffle:
                    due.rotate(self._dice.randrange(len(due)))
                receipt = due.popleft()
                self.counts["receipts_sent"] += 1
                peer.deliver(receipt.body(), receipt)

    def receipt_settled(self, receipt: Receipt, well: bool) -> None:
        if well:
            self.counts["receipts_acked"] += 1
            self.pump()
        else:
            self.counts["receipts_refused"] += 1
            self._receipt_later(receipt, self.behaviour.receipt_retry_ms)
