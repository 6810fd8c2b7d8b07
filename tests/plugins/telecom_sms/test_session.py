"""One bound session against a peer that says exactly what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from plugins.telecom_sms.simulator import wire
from plugins.telecom_sms.smpp import pdu
from plugins.telecom_sms.smpp.link import Endpoint, Link, LoginRefused, open_bound
from plugins.telecom_sms.smpp.session import Answer, NoAnswer, NotSent, Session, Timing

from .conftest import Carrier
from .support import ScriptedPeer, scripted, until

MESSAGE = pdu.Message(source="X", destination="84912555123", short_message=b"hello")
DELIVER_BODY = pdu.Message(source="84912555123", destination="X", short_message=b"hi").encode()


async def nothing(_: pdu.Message) -> None:
    """Takes whatever comes."""


def endpoint(port: int, **timing: float) -> Endpoint:
    defaults: dict[str, float] = {"response_timeout_s": 2.0}
    return Endpoint(
        host="127.0.0.1",
        port=port,
        system_id="demo",
        password=lambda: "demo",
        timing=Timing(**(defaults | timing)),  # type: ignore[arg-type]
    )


@asynccontextmanager
async def bound(
    script: Callable[[ScriptedPeer], Awaitable[None]],
    on_deliver: Callable[[pdu.Message], Awaitable[None]] = nothing,
    **timing: float,
) -> AsyncIterator[Session]:
    """A session bound to a peer that goes on with ``script`` after the bind."""

    async def play(peer: ScriptedPeer) -> None:
        await peer.accept_bind()
        await script(peer)

    async with scripted(play) as port:
        session = await open_bound(endpoint(port, **timing), on_deliver)
        try:
            yield session
        finally:
            await session.close(0)


async def test_an_answer_carries_the_message_id() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_submit("a1")

    async with bound(script) as session:
        answer = await session.submit(MESSAGE)
        assert answer == Answer(0, b"a1\0")
        assert isinstance(answer, Answer)
        assert answer.message_id == "a1"


async def test_no_more_than_the_window_is_ever_unanswered() -> None:
    unanswered: list[int] = []
    most = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal most
        for number in range(35):
            _, _, sequence, _ = await peer.read()
            unanswered.append(sequence)
            most = max(most, len(unanswered))
            # Nothing is answered before the window is full, so that a wider one would show.
            if len(unanswered) == 10 or number >= 30:
                for waiting in unanswered:
                    peer.say(wire.SUBMIT | 0x80000000, 0, waiting, b"1\0")
                unanswered.clear()

    async with bound(script, window=10) as session:
        replies = await asyncio.gather(*(session.submit(MESSAGE) for _ in range(35)))
    assert most == 10
    assert all(reply == Answer(0, b"1\0") for reply in replies)


async def test_a_lost_connection_leaves_the_window_in_doubt_and_the_queue_unsent() -> None:
    read = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal read
        for _ in range(10):
            await peer.read()
            read += 1
        peer.writer.transport.abort()

    async with bound(script, window=10) as session:
        replies = await asyncio.gather(*(session.submit(MESSAGE) for _ in range(30)))
    assert read == 10
    assert replies.count(NoAnswer()) == 10
    assert replies.count(NotSent("not_bound")) == 20


async def test_an_answer_that_does_not_come_is_no_answer_and_a_late_one_harms_nobody() -> None:
    late = asyncio.Event()
    told: list[Answer] = []

    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, _ = await peer.read()
        await late.wait()
        peer.say(wire.SUBMIT | 0x80000000, 0, sequence, b"late\0")
        await peer.answer_submit("second")

    async with bound(script, response_timeout_s=10) as session:
        assert await session.submit(MESSAGE, answer_within_s=0.1, on_late=told.append) == NoAnswer()
        assert told == []
        late.set()
        assert await session.submit(MESSAGE) == Answer(0, b"second\0")
        assert session.oddities["late_answer"] == 1
        assert told == [Answer(0, b"late\0")]


async def test_a_full_window_is_not_sent_rather_than_in_doubt() -> None:
    refused = asyncio.Event()

    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, _ = await peer.read()
        await refused.wait()
        peer.say(wire.SUBMIT | 0x80000000, 0, sequence, b"1\0")
        await peer.read()

    async with bound(script, window=1, response_timeout_s=10) as session:
        first = asyncio.create_task(session.submit(MESSAGE))
        await until(lambda: session.unanswered == 1)
        assert await session.submit(MESSAGE, start_within_s=0.05) == NotSent("window_full")
        refused.set()
        assert await first == Answer(0, b"1\0")


async def test_a_generic_nack_is_the_answer_to_its_request() -> None:
    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, _ = await peer.read()
        peer.say(wire.NACK, 0x58, sequence)

    async with bound(script) as session:
        assert await session.submit(MESSAGE) == Answer(0x58, b"")


async def test_an_answer_to_another_command_is_not_taken_for_ours() -> None:
    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, _ = await peer.read()
        peer.say(wire.ENQUIRE | 0x80000000, 0, sequence)
        peer.say(wire.SUBMIT | 0x80000000, 0, sequence, b"7\0")

    async with bound(script) as session:
        assert await session.submit(MESSAGE) == Answer(0, b"7\0")


async def test_what_a_peer_may_ask_is_answered_and_the_rest_is_nacked() -> None:
    heard: list[tuple[int, int, int]] = []

    async def script(peer: ScriptedPeer) -> None:
        peer.say(wire.ENQUIRE, 0, 71)
        peer.say(0x0103, 0, 72)  # data_sm
        peer.say(wire.DELIVER, 0, 73, b"\0cut off")
        peer.say(0x0102, 0, 74, b"\0\0\0")  # alert_notification wants no answer
        peer.say(wire.DELIVER, 0, 75, DELIVER_BODY)
        heard.extend([(await peer.read())[:3] for _ in range(4)])

    async with bound(script):
        await until(lambda: len(heard) == 4)
    assert heard == [
        (wire.ENQUIRE | 0x80000000, 0, 71),
        (wire.NACK, 3, 72),
        (wire.NACK, 2, 73),
        (wire.DELIVER | 0x80000000, 0, 75),
    ]


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64])
async def test_a_stream_that_is_no_smpp_ends_the_session_and_nothing_else(noise: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        peer.writer.write(noise)
        await peer.read()

    async with bound(script) as session:
        await asyncio.wait_for(session.closed.wait(), 5)
        assert session.close_reason == "unreadable_stream"
        assert await session.submit(MESSAGE) == NotSent("not_bound")


async def test_a_silent_peer_is_dead_after_two_misses() -> None:
    enquiries = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal enquiries
        while True:
            command, *_ = await peer.read()
            enquiries += command == wire.ENQUIRE

    async with bound(script, enquire_link_s=0.09) as session:
        in_doubt = asyncio.create_task(session.submit(MESSAGE))
        await asyncio.wait_for(session.closed.wait(), 5)
        assert session.close_reason == "link_silent"
        assert await in_doubt == NoAnswer()
    assert enquiries == 2


async def test_a_peer_that_answers_link_checks_stays() -> None:
    answered = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal answered
        while True:
            command, _, sequence, _ = await peer.read()
            peer.say(command | 0x80000000, 0, sequence)
            answered += 1

    async with bound(script, enquire_link_s=0.03) as session:
        await until(lambda: answered >= 4)
        assert session.usable


async def test_a_deliver_is_answered_only_when_its_handler_is_done() -> None:
    done, answers = asyncio.Event(), []

    async def handler(_: pdu.Message) -> None:
        await done.wait()

    async def script(peer: ScriptedPeer) -> None:
        peer.say(wire.DELIVER, 0, 5, DELIVER_BODY)
        peer.say(wire.ENQUIRE, 0, 6)
        answers.append((await peer.read())[:3])
        answers.append((await peer.read())[:3])

    async with bound(script, handler):
        await until(lambda: len(answers) == 1)
        assert answers == [(wire.ENQUIRE | 0x80000000, 0, 6)]
        done.set()
        await until(lambda: len(answers) == 2)
    assert answers[1] == (wire.DELIVER | 0x80000000, 0, 5)


async def test_a_handler_that_fails_makes_the_peer_keep_the_message() -> None:
    answers = []

    async def handler(_: pdu.Message) -> None:
        raise RuntimeError

    async def script(peer: ScriptedPeer) -> None:
        peer.say(wire.DELIVER, 0, 5, DELIVER_BODY)
        answers.append((await peer.read())[:3])
        await peer.read()

    async with bound(script, handler) as session:
        await until(lambda: answers)
        assert session.usable
    assert answers == [(wire.DELIVER | 0x80000000, 0x64, 5)]


async def test_a_flood_of_receipts_waits_in_the_peers_memory() -> None:
    under_way = most = done = 0
    go_on = asyncio.Event()

    async def handler(_: pdu.Message) -> None:
        nonlocal under_way, most, done
        under_way += 1
        most = max(most, under_way)
        await go_on.wait()
        under_way -= 1
        done += 1

    async def script(peer: ScriptedPeer) -> None:
        for number in range(20_000):
            peer.say(wire.DELIVER, 0, number, DELIVER_BODY)
        while True:
            await peer.read()

    async with bound(script, handler) as session:
        await until(lambda: under_way >= 200)
        go_on.set()
        await until(lambda: done == 20_000, 30)
        assert session.usable
    # What was read in one piece before reading stopped comes on top of the 200.
    assert most < 8_000


async def test_a_peer_that_unbinds_may_still_answer_what_is_under_way() -> None:
    async def script(peer: ScriptedPeer) -> None:
        _, _, sequence, _ = await peer.read()
        peer.say(wire.UNBIND, 0, 9)
        assert (await peer.read())[:3] == (wire.UNBIND | 0x80000000, 0, 9)
        peer.say(wire.SUBMIT | 0x80000000, 0, sequence, b"5\0")

    async with bound(script) as session:
        assert await session.submit(MESSAGE) == Answer(0, b"5\0")
        assert await session.submit(MESSAGE) == NotSent("not_bound")
        await asyncio.wait_for(session.closed.wait(), 5)
        assert session.close_reason == "unbound_by_peer"


async def test_closing_waits_for_answers_then_unbinds() -> None:
    commands: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        _, _, submitted, _ = await peer.read()
        await closing.wait()
        peer.say(wire.SUBMIT | 0x80000000, 0, submitted, b"5\0")
        command, _, sequence, _ = await peer.read()
        commands.append(command)
        peer.say(command | 0x80000000, 0, sequence)

    closing = asyncio.Event()
    async with bound(script) as session:
        reply = asyncio.create_task(session.submit(MESSAGE))
        await until(lambda: session.unanswered == 1)
        end = asyncio.create_task(session.close())
        await until(lambda: not session.usable)
        closing.set()
        await end
        assert await reply == Answer(0, b"5\0")
    assert commands == [wire.UNBIND]


async def test_a_refused_bind_says_its_status(carrier: Carrier) -> None:
    wrong = Endpoint(host="127.0.0.1", port=carrier.port, system_id="demo", password=lambda: "wrong")
    with pytest.raises(LoginRefused) as refused:
        await open_bound(wrong, nothing)
    assert refused.value.status == 0x0E
    await until(lambda: not carrier.smsc.peers)


async def test_a_bind_nobody_answers_ends() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.read()
        await peer.read()

    async with scripted(script) as port:
        with pytest.raises(TimeoutError):
            await open_bound(endpoint(port, response_timeout_s=0.1), nothing)


async def test_a_link_comes_back_after_a_drop_and_tells_each_change_once(carrier: Carrier) -> None:
    told: list[str] = []

    async def on_up() -> None:
        told.append("up")

    async def on_down(reason: str) -> None:
        told.append(reason)

    link = Link(endpoint(carrier.port), nothing)
    running = asyncio.create_task(link.run(on_up, on_down))
    try:
        assert await link.bound(5) is not None
        carrier.smsc.change({"down": True})
        await until(lambda: carrier.count("connections") >= 3)
        assert await link.bound(0) is None
        carrier.smsc.change({"down": False})
        session = await link.bound(10)
        assert session is not None and isinstance(await session.submit(MESSAGE), Answer)
    finally:
        running.cancel()
        await link.close()
    assert told[0] == told[-1] == "up"
    assert len(told) <= 4
    assert carrier.count("unbinds") == 1


async def test_a_cancelled_run_keeps_its_session_for_those_who_still_send(carrier: Carrier) -> None:
    async def quiet(*_: str) -> None: ...

    link = Link(endpoint(carrier.port), nothing)
    running = asyncio.create_task(link.run(quiet, quiet))
    session = await link.bound(5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await link.bound(0) is session
    assert session is not None and isinstance(await session.submit(MESSAGE), Answer)
    await link.close()
    assert carrier.count("unbinds") == 1
