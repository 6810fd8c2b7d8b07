"""The connection as the hub sees it, against the simulator and against scripted peers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from hub.contract import (
    Accepted,
    Admit,
    Cancel,
    Connection,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
    Sink,
    UnitOfWork,
    Unknown,
)
from hub.errors import Busy, ConfigError, Conflict
from hub.model import new_id
from plugins.telecom_sms import tables
from plugins.telecom_sms.carriers.references import References
from plugins.telecom_sms.carriers.smpp import _validity
from plugins.telecom_sms.connector import open_connection
from plugins.telecom_sms.simulator import wire
from plugins.telecom_sms.simulator.journal import taken_id

from .conftest import Carrier
from .support import KEY, MSISDN, PHONE, Context, MemoryHub, ScriptedPeer, event, scripted, settings, shipment, until

EIGHT_PARTS = "Công đoàn tỉnh mời anh chị đoàn viên dự hội nghị. " * 10 + "Số cuối: 8."


class Opened:
    """An opened connection with its surroundings."""

    def __init__(self, connection: Connection, context: Context) -> None:
        assert connection.sink is not None and connection.run is not None
        self.connection = connection
        self.context = context
        self.hub = context.hub
        self.sink: Sink = connection.sink
        self.running: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Runs the session until it is bound or refused."""
        assert self.connection.run is not None
        self.context.logged.clear()
        self.running = asyncio.ensure_future(self.connection.run())
        await until(lambda: self.context.logged)

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)


@asynccontextmanager
async def opened(port: int, password: str = "demo", **changes: Any) -> AsyncIterator[Opened]:
    context = Context(MemoryHub(), password)
    running = Opened(open_connection(context.value(), settings(port, **changes)), context)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
        assert running.connection.close is not None
        await running.connection.close()


@asynccontextmanager
async def opened_to(script: Callable[[ScriptedPeer], Awaitable[None]], **changes: Any) -> AsyncIterator[Opened]:
    async def play(peer: ScriptedPeer) -> None:
        await peer.accept_bind()
        await script(peer)
        while True:
            command, _, sequence, _ = await peer.read()
            peer.say(command | 0x80000000, 0, sequence)

    async with scripted(play) as port, opened(port, **changes) as running:
        yield running


# -- opening and rendering ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.1.2.3", "smsc.carrier.example", "192.168.1.1"])
def test_a_carrier_beyond_this_machine_has_quiet_hours_or_is_refused_in_two_languages(host: str) -> None:
    with pytest.raises(ValidationError, match=r"trình giả lập.*simulator"):
        settings(2775, host=host, quiet_hours=False)
    assert settings(2775, host=host).quiet_hours


def test_roots_that_cannot_be_read_are_refused_at_the_start(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="tls_ca_file"):
        open_connection(Context(MemoryHub()).value(), settings(2775, tls=True, tls_ca_file=tmp_path / "none.pem"))


@pytest.mark.parametrize(
    ("field", "data", "body"),
    [
        ("text", {"text": "Chào “anh”"}, 'Chào "anh"'),
        ("sms.vi", {"sms": {"vi": "Chào"}}, "Chào"),
        ("sms.vi", {"sms": "Chào"}, ""),
        ("missing", {}, ""),
        ("text", {"text": 5}, ""),
    ],
)
def test_the_body_is_the_text_of_the_event(field: str, data: Mapping[str, Any], body: str) -> None:
    connection = open_connection(Context(MemoryHub()).value(), settings(2775, text_field=field))
    assert connection.sink is not None
    given_event = event(**{"text": "", **data})
    assert connection.sink.render(given_event) == connection.sink.render(given_event) == body.encode()


def test_the_window_is_how_many_messages_go_at_once() -> None:
    connection = open_connection(Context(MemoryHub()).value(), settings(2775, window=7, rate_per_s=20.0))
    assert connection.sink is not None and connection.sink.resend_is_safe is False
    (destination,) = connection.sink.destinations()
    assert (destination.concurrency, destination.rate_per_s) == (7, 20.0)


# -- admission ---------------------------------------------------------------------------------------


def unopened_sink(hub: MemoryHub) -> Sink:
    sink = open_connection(Context(hub).value(), settings(2775)).sink
    assert sink is not None
    return sink


@pytest.mark.parametrize(
    ("text", "address", "reason"),
    [
        ("Chào", None, "no_address"),
        ("Chào", "+12025550123", "country_not_allowed"),
        ("Chào", "02083555123", "address_invalid"),
        (" \n", PHONE, "text_missing"),
        ("ạ" * (67 * 10 + 1), PHONE, "sms_too_long"),
        ("x" * 10_000, PHONE, "sms_too_long"),
    ],
)
async def test_what_cannot_be_sent_is_cancelled_before_the_first_byte(
    text: str, address: str | None, reason: str
) -> None:
    assert await unopened_sink(MemoryHub()).admit(shipment(text, address=address)) == Cancel(reason)


async def test_ten_segments_are_still_admitted() -> None:
    assert isinstance(await unopened_sink(MemoryHub()).admit(shipment("ạ" * 670)), Admit)


async def admitted(hub: MemoryHub, asked: Shipment) -> str:
    """ "sent", or the reason why the ledger would cancel it."""
    admission = await unopened_sink(hub).admit(asked)
    assert isinstance(admission, Admit)
    try:
        await hub.commit(UnitOfWork(guards=admission.guards))
    except Conflict as conflict:
        return conflict.otherwise
    return "sent"


async def test_a_phone_gets_one_sms_of_a_campaign_however_its_number_is_written() -> None:
    hub, campaign, first = MemoryHub(), new_id(), new_id()
    assert await admitted(hub, shipment("a", batch_id=campaign, delivery_id=first)) == "sent"
    assert await admitted(hub, shipment("a", batch_id=campaign)) == "same_recipient"
    assert await admitted(hub, shipment("b", batch_id=campaign, address="+84 912 555 123")) == "same_recipient"
    assert await admitted(hub, shipment("a", batch_id=campaign, delivery_id=first)) == "sent"
    assert await admitted(hub, shipment("a", batch_id=campaign, address="0912555124")) == "sent"
    assert await admitted(hub, shipment("a", batch_id=new_id())) == "sent"
    assert await admitted(hub, shipment("a")) == "sent"


async def test_the_table_of_sent_phones_holds_no_phone() -> None:
    hub = MemoryHub()
    await admitted(hub, shipment("a"))
    stored = repr(hub.db.execute("SELECT * FROM telecom_sms_sent").fetchall())
    assert "912555123" not in stored


# -- sending -----------------------------------------------------------------------------------------


async def test_an_sms_is_accepted_and_its_receipt_says_where_it_ended(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        outcome = await running.sink.send(shipment("Chào anh"))
        assert isinstance(outcome, Accepted) and outcome.receipt_within == timedelta(seconds=86_400)
        await until(lambda: carrier.count("receipts_acked") == 1)
    assert list(outcome.refs) == [line["message_id"] for line in carrier.lines()]
    assert [(receipt.ref, receipt.state) for receipt in running.hub.receipts] == [(outcome.refs[0], "delivered")]
    assert carrier.taken() == [taken_id(KEY, MSISDN, "Chào anh", 1)]


async def test_eight_parts_go_in_order_under_the_references_of_the_outcome(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        outcome = await running.sink.send(shipment(EIGHT_PARTS))
        await until(lambda: carrier.count("receipts_acked") == 8)
    assert isinstance(outcome, Accepted)
    assert carrier.taken() == [taken_id(KEY, MSISDN, EIGHT_PARTS, part) for part in range(1, 9)]
    assert [line["message_id"] for line in carrier.lines()] == list(outcome.refs)
    assert {receipt.ref for receipt in running.hub.receipts} == set(outcome.refs)


async def test_what_was_answered_is_written_down_while_the_next_part_waits_for_its_answer() -> None:
    """So that receipts find the message even if this process dies before it has an outcome."""
    recorded: list[str] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_submit("m0")
        await peer.answer_submit("m1")
        await until(lambda: recorded == ["m0", "m1"])
        await peer.answer_submit("m2")

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("ạ" * 200, recorded=recorded))
    assert isinstance(outcome, Accepted) and outcome.refs == ("m0", "m1", "m2")
    assert recorded == ["m0", "m1"]


async def test_many_long_texts_at_once_stay_apart(carrier: Carrier) -> None:
    texts = [EIGHT_PARTS + str(number) for number in range(12)]
    async with opened(carrier.port) as running:
        outcomes = await asyncio.gather(
            *(running.sink.send(shipment(text, address=f"09125550{n:02}")) for n, text in enumerate(texts))
        )
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert sorted(carrier.taken()) == sorted(
        taken_id(KEY, f"849125550{n:02}", text, part) for n, text in enumerate(texts) for part in range(1, 9)
    )


async def test_joining_references_count_on_in_the_ledger_over_restarts_and_nodes() -> None:
    hub = MemoryHub()
    one, other = References(hub, "CONGDOAN", 8), References(hub, "CONGDOAN", 8)
    given = [await (one if n % 2 else other).next(f"8491255{n:04}") for n in range(190)]
    assert len(set(given)) == 190
    after_a_restart = References(hub, "CONGDOAN", 8)
    assert await after_a_restart.next(MSISDN) == 201
    assert hub.db.execute("SELECT sender, last_reference FROM telecom_sms_counter").fetchall() == [("CONGDOAN", 300)]


async def test_no_phone_gets_the_reference_of_its_last_message_again() -> None:
    references = References(MemoryHub(), "CONGDOAN", 8)
    first = await references.next(MSISDN)
    for n in range(255):
        await references.next(f"8491255{n:04}")
    assert await references.next(MSISDN) == first + 1


async def test_references_another_node_took_meanwhile_are_not_used_again(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        hub = running.hub
        raced = False

        async def race() -> None:
            nonlocal raced
            if not raced:
                raced = True
                other = tables.COUNT_ON(sender="CONGDOAN", phone_hash=bytes(16), reference=100, seen=None)
                hub.db.execute(other.query.sqlite, other.sqlite_parameters())

        hub.before_commit = race
        assert isinstance(await running.sink.send(shipment(EIGHT_PARTS)), Accepted)
        assert hub.db.execute("SELECT last_reference FROM telecom_sms_counter").fetchall() == [(200,)]


async def test_a_busy_ledger_before_the_first_part_only_delays(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        running.hub.busy = True
        assert await running.sink.send(shipment(EIGHT_PARTS)) == RetryLater(reason="busy")
    assert carrier.taken() == []


async def test_a_busy_ledger_between_parts_does_not_stop_them(carrier: Carrier) -> None:
    async def busy(_: Any, of_parts: int = 0) -> None:
        raise Busy

    async with opened(carrier.port) as running:
        asked = shipment(EIGHT_PARTS)
        object.__setattr__(asked, "record_refs", busy)
        outcome = await running.sink.send(asked)
    assert isinstance(outcome, Accepted) and len(outcome.refs) == 8


async def test_a_part_refused_for_now_is_sent_again_alone() -> None:
    bodies: list[bytes] = []

    async def script(peer: ScriptedPeer) -> None:
        for number, status in enumerate((0, 0x14, 0x08, 0, 0)):
            bodies.append(await peer.answer_submit(f"m{number}", status))

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("ạ" * 200))
    assert isinstance(outcome, Accepted) and outcome.refs == ("m0", "m3", "m4")
    assert bodies[1] == bodies[2] == bodies[3]
    assert [wire.read_part(wire.read_submit(body))[2] for body in bodies] == [1, 2, 2, 2, 3]


async def test_parts_taken_before_a_lasting_refusal_are_partly_sent() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_submit("m0")
        while True:
            await peer.answer_submit("", 0x14)

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("ạ" * 200, deadline_s=1.5))
    assert isinstance(outcome, Unknown)
    assert (outcome.reason, outcome.refs) == ("partly_sent", ("m0",))


async def test_a_later_part_refused_for_good_is_partly_sent_too() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_submit("m0")
        await peer.answer_submit("", 0x0B)

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("ạ" * 200))
    assert isinstance(outcome, Unknown)
    assert (outcome.reason, outcome.refs) == ("partly_sent", ("m0",))


async def test_a_part_without_an_answer_is_never_sent_again() -> None:
    submits = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal submits
        await peer.answer_submit("m0")
        while True:
            command, *_ = await peer.read()
            submits += command == wire.SUBMIT

    async with opened_to(script, response_timeout_s=0.2) as running:
        outcome = await running.sink.send(shipment("ạ" * 200))
    assert isinstance(outcome, Unknown)
    assert (outcome.reason, outcome.refs, outcome.of_parts, submits) == ("no_answer", ("m0",), 3, 1)


async def test_a_connection_lost_with_a_part_under_way_is_no_answer() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.read()
        peer.writer.transport.abort()

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("Chào"))
    assert isinstance(outcome, Unknown) and outcome.reason == "no_answer"


async def test_parts_go_on_after_the_carrier_unbinds_between_two_of_them() -> None:
    parts: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, body = await peer.read()
        parts.append(wire.read_part(wire.read_submit(body))[2])
        # In one piece, so that the next part cannot slip in between.
        peer.say(wire.SUBMIT | 0x80000000, 0, sequence, f"m{len(parts)}".encode() + b"\0")
        peer.say(wire.UNBIND, 0, 9)
        await peer.writer.drain()

    async with opened_to(script) as running:
        outcome = await running.sink.send(shipment("ạ" * 200))
    assert isinstance(outcome, Accepted) and outcome.refs == ("m1", "m2", "m3")
    assert parts == [1, 2, 3]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0B, Refused(reason="number_invalid", scope=Scope.RECIPIENT)),
        (0x0A, Refused(reason="sender_refused", scope=Scope.CONNECTION)),
        (0x66, Refused(reason="receiver_rejected")),
        (0x45, RetryLater(reason="submit_failed")),
        (0x04, RetryLater(reason="not_bound", after=timedelta(seconds=1), scope=Scope.DESTINATION)),
        (0x0433, RetryLater(reason="status_0x00000433")),
    ],
)
async def test_a_status_of_the_first_part_decides(carrier: Carrier, status: int, expected: Outcome) -> None:
    carrier.smsc.change({"error_share": 1.0, "error_status": status})
    async with opened(carrier.port) as running:
        outcome = await running.sink.send(shipment(EIGHT_PARTS))
    assert isinstance(outcome, (Refused, RetryLater)) and outcome.exchange is not None
    assert outcome.exchange.status == status
    bare = type(outcome)(**{name: getattr(outcome, name) for name in ("reason", "scope")})
    if isinstance(bare, RetryLater) and isinstance(outcome, RetryLater):
        bare = RetryLater(reason=bare.reason, scope=bare.scope, after=outcome.after)
    assert bare == expected
    assert carrier.taken() == []


async def test_a_throttling_carrier_makes_the_whole_stream_wait(carrier: Carrier) -> None:
    carrier.smsc.change({"throttle_share": 1.0})
    async with opened(carrier.port) as running:
        outcome = await running.sink.send(shipment("Chào", deadline_s=0.6))
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.scope) == ("throttled", Scope.DESTINATION)
    assert carrier.taken() == []


async def test_now_and_then_a_refusal_fails_nothing(carrier: Carrier) -> None:
    carrier.smsc.change({"error_share": 0.2, "error_status": 0x08})
    async with opened(carrier.port) as running:
        texts = [f"Chào số {number}" for number in range(60)]
        outcomes = await asyncio.gather(*(running.sink.send(shipment(text)) for text in texts))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert sorted(carrier.taken()) == sorted(taken_id(KEY, MSISDN, text, 1) for text in texts)


async def test_lost_answers_are_unknown_and_nothing_is_sent_twice(carrier: Carrier) -> None:
    carrier.smsc.change({"lose_share": 0.3})
    async with opened(carrier.port, response_timeout_s=1.5) as running:
        texts = [f"Chào số {number}" for number in range(40)]
        outcomes = await asyncio.gather(*(running.sink.send(shipment(text)) for text in texts))
    unanswered = {line["id"] for line in carrier.lines() if not line["answered"]}
    unknown = {
        taken_id(KEY, MSISDN, text, 1)
        for text, outcome in zip(texts, outcomes, strict=True)
        if isinstance(outcome, Unknown)
    }
    assert unknown == unanswered != set()
    assert len(carrier.taken()) == len(set(carrier.taken())) == 40


async def test_without_a_session_nothing_is_sent_and_no_try_spent() -> None:
    async with scripted(lambda peer: asyncio.sleep(0)) as port:
        pass
    async with opened(port) as running:
        outcome = await running.sink.send(shipment("Chào"))
    assert outcome == RetryLater(reason="not_bound", after=timedelta(seconds=1), scope=Scope.DESTINATION)


async def test_a_wrong_password_stops_the_connection_and_asks_a_person_once(carrier: Carrier) -> None:
    async with opened(carrier.port, password="wrong") as running:
        outcome = await running.sink.send(shipment("Chào"))
        assert outcome == Refused(reason="login_refused", scope=Scope.CONNECTION)
        await until(lambda: running.context.repairs)
        assert "chưa tin nào mất" in running.context.repairs["login_refused"]
        assert "wrong" not in repr(running.context.logged) + repr(running.context.repairs)
        await running.stop()
        running.context.password = "demo"
        await running.start()
        await until(lambda: not running.context.repairs)
        assert isinstance(await running.sink.send(shipment("Chào")), Accepted)


async def test_a_number_that_is_none_is_refused_for_the_recipient_alone(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        outcome = await running.sink.send(shipment("Chào", address="1900555123"))
    assert outcome == Refused(reason="address_invalid", scope=Scope.RECIPIENT)


async def test_the_contracts_rate_counts_segments(carrier: Carrier) -> None:
    async with opened(carrier.port, rate_per_s=20.0) as running:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await running.sink.send(shipment(EIGHT_PARTS))
        # Seven pauses of 1/19.4 s lie between eight parts; waiting is measured, its upper end is not.
        assert loop.time() - started >= 7 / 20


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(minutes=5), "000000000500000R"),
        (timedelta(days=1, hours=2, minutes=3, seconds=4), "000001020304000R"),
        (timedelta(days=400), "000007000000000R"),
        (timedelta(seconds=-5), "000000000001000R"),
    ],
)
def test_the_carrier_is_told_how_long_a_message_is_worth_sending(left: timedelta, expected: str) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert _validity(now + left, now) == expected
    assert _validity(None, now) == ""


# -- receipts ----------------------------------------------------------------------------------------


async def test_a_receipt_is_answered_only_after_its_commit(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        committing, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            committing.set()
            await go_on.wait()

        running.hub.before_commit = wait
        assert isinstance(await running.sink.send(shipment("Chào")), Accepted)
        await asyncio.wait_for(committing.wait(), 5)
        # The link is alive and answers other things meanwhile.
        assert isinstance(await running.sink.send(shipment("Chào nữa", address="0912555124")), Accepted)
        assert carrier.count("receipts_acked") == 0
        go_on.set()
        await until(lambda: carrier.count("receipts_acked") == 2)


async def test_a_receipt_the_ledger_could_not_keep_comes_again(carrier: Carrier) -> None:
    carrier.smsc.change({"receipt_retry_ms": 10})
    async with opened(carrier.port) as running:
        running.hub.busy = True
        outcome = await running.sink.send(shipment("Chào"))
        await until(lambda: carrier.count("receipts_refused") >= 2)
        assert running.hub.receipts == []
        running.hub.busy = False
        await until(lambda: carrier.count("receipts_acked") == 1)
    assert isinstance(outcome, Accepted)
    assert [receipt.ref for receipt in running.hub.receipts] == list(outcome.refs)


async def test_receipts_before_the_answer_reach_the_ledger_under_the_same_reference(carrier: Carrier) -> None:
    carrier.smsc.change({"early_receipt_share": 1.0, "slow_ms": 50})
    async with opened(carrier.port) as running:
        sending = asyncio.create_task(running.sink.send(shipment("Chào")))
        await until(lambda: running.hub.receipts)
        assert not sending.done()
        outcome = await sending
    assert isinstance(outcome, Accepted)
    assert running.hub.receipts[0].ref == outcome.refs[0]


@pytest.mark.parametrize(("policy", "style"), [("hex_to_dec", "hex_then_dec"), ("dec_to_hex", "dec_then_hex")])
@pytest.mark.parametrize("receipt_style", ["plain", "seconds", "shuffled", "text_error"])
async def test_ids_in_two_notations_meet(carrier: Carrier, policy: str, style: str, receipt_style: str) -> None:
    carrier.smsc.change({"id_style": style, "receipt_style": receipt_style})
    async with opened(carrier.port, receipt_ids=policy) as running:
        outcome = await running.sink.send(shipment("Chào"))
        await until(lambda: running.hub.receipts)
    assert isinstance(outcome, Accepted)
    assert running.hub.receipts[0].ref == outcome.refs[0]


async def test_an_unreachable_phone_is_failed_with_the_carriers_reason(carrier: Carrier) -> None:
    carrier.smsc.change({"undeliv_share": 1.0})
    async with opened(carrier.port) as running:
        await running.sink.send(shipment("Chào"))
        await until(lambda: running.hub.receipts)
    (receipt,) = running.hub.receipts
    assert (receipt.state, receipt.reason) == ("failed", "undeliverable_err_069")


async def test_the_same_report_twice_has_one_key_and_another_state_another(carrier: Carrier) -> None:
    async def script(peer: ScriptedPeer) -> None:
        body = await peer.answer_submit("77")
        submit = wire.read_submit(body)
        for number, stat in enumerate(("ENROUTE", "DELIVRD", "DELIVRD", "UNKNOWN")):
            text = f"id:77 done date:2611230706 stat:{stat} err:000".encode()
            peer.say(wire.DELIVER, 0, number + 1, wire.deliver(submit, text))

    async with opened_to(script) as running:
        await running.sink.send(shipment("Chào"))
        await until(lambda: len(running.hub.receipts) == 4)
    assert sorted(receipt.state for receipt in running.hub.receipts) == ["delivered", "delivered", "interim", "interim"]
    assert len({receipt.dedupe_key for receipt in running.hub.receipts}) == 3


async def test_transmitter_and_receiver_may_be_binds_of_their_own(carrier: Carrier) -> None:
    async with opened(carrier.port, bind="separate") as running:
        await until(lambda: carrier.count("bound") == 2)
        assert isinstance(await running.sink.send(shipment("Chào")), Accepted)
        await until(lambda: running.hub.receipts)
    assert sorted(peer.mode for peer in carrier.smsc.peers) == []


async def test_an_inbound_message_is_answered_once_it_is_kept_and_never_read_as_a_receipt(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        (peer,) = carrier.smsc.peers
        submit = wire.Submit(b"X", b"\5\0", MSISDN.encode(), b"\1\1", False, False, 0, b"")
        body = wire.deliver(submit, b"id:1 stat:DELIVRD TU CHOI").replace(b"\x04\0\0", b"\0\0\0", 1)
        peer.deliver(body)
        await until(lambda: not peer.unanswered)
        assert running.hub.receipts == []
        assert ("message.received", {"parts": 1, "meaning": "", "octets": 25}) in running.context.logged
        assert [draft.data["text"] for draft in running.hub.drafts] == ["id:1 stat:DELIVRD TU CHOI"]


async def test_no_phone_and_no_text_leaves_through_logs_outcomes_or_the_simulator(carrier: Carrier) -> None:
    canary = "Chim hoàng yến 4711"
    carrier.smsc.change({"undeliv_share": 1.0})
    async with opened(carrier.port) as running:
        outcomes = [await running.sink.send(shipment(text)) for text in (canary, canary + EIGHT_PARTS)]
        carrier.smsc.change({"error_share": 1.0, "error_status": 0x0B})
        outcomes.append(await running.sink.send(shipment(canary)))
        await until(lambda: len(running.hub.receipts) >= 9)
        seen = repr((running.context.logged, running.hub.receipts, outcomes)) + carrier.file.getvalue()
        seen += json.dumps(carrier.smsc.state())
    for secret in ("912555123", "hoàng", "4711", "hội nghị"):
        assert secret not in seen


# -- check -------------------------------------------------------------------------------------------


async def steps(connection: Connection) -> list[tuple[str, bool]]:
    assert connection.check is not None
    return [(step.step, step.ok) async for step in connection.check()]


async def test_a_check_tells_the_steps_apart(carrier: Carrier) -> None:
    def connection(port: int, password: str = "demo") -> Connection:
        return open_connection(Context(MemoryHub(), password).value(), settings(port, response_timeout_s=1.5))

    assert await steps(connection(carrier.port)) == [("dns", True), ("tcp", True), ("login", True)]
    assert await steps(connection(carrier.port, "wrong")) == [("dns", True), ("tcp", True), ("login", False)]
    async with scripted(lambda peer: asyncio.sleep(60)) as silent:
        assert await steps(connection(silent)) == [("dns", True), ("tcp", True), ("login", False)]
    assert await steps(connection(silent)) == [("dns", True), ("tcp", False)]


async def test_a_check_beside_a_living_session_binds_no_second_time(carrier: Carrier) -> None:
    async with opened(carrier.port) as running:
        assert await steps(running.connection) == [("dns", True), ("tcp", True), ("login", True)]
        assert carrier.count("binds") == 1
