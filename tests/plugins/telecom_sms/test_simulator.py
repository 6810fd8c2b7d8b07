"""The simulator as a process of its own, met by smpplib, by our client and over its control port."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import smpplib.client
import smpplib.consts
import smpplib.gsm

from plugins.telecom_sms.simulator import wire
from plugins.telecom_sms.simulator.journal import Journal, taken_id
from plugins.telecom_sms.simulator.smsc import Smsc

from .conftest import Carrier
from .support import KEY, MSISDN, until


class Process:
    """The simulator started the way ``unionhub simulators`` starts it."""

    def __init__(self, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "plugins.telecom_sms.simulator", "--log", str(log), "--key", KEY.hex()]
        self.log = log
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def control(self, **fields: Any) -> dict[str, Any]:
        data = json.dumps(fields).encode() if fields else None
        url = f"http://127.0.0.1:{self.ready['control']}/control"
        request = urllib.request.Request(url, data=data, method="PUT" if fields else "GET")
        with urllib.request.urlopen(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
            return state

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    started = Process(tmp_path_factory.mktemp("smsc") / "sms.log", "--set", '{"receipt_delay_ms": 0}')
    yield started
    assert started.stop() == 0


def bound_client(port: int, **settings: Any) -> smpplib.client.Client:
    client = smpplib.client.Client("127.0.0.1", port, timeout=5, allow_unknown_opt_params=True)
    client.connect()
    client.bind_transceiver(system_id="demo", password="demo", **settings)
    return client


def test_smpplib_binds_sends_and_gets_its_receipts(process: Process) -> None:
    before = len(process.lines())
    client = bound_client(process.ready["port"])
    answers: list[bytes] = []
    receipts: list[bytes] = []
    client.set_message_sent_handler(lambda pdu: answers.append(pdu.message_id))
    client.set_message_received_handler(lambda pdu: receipts.append(pdu.short_message))
    text = "Công đoàn gửi lời chào đến anh chị. " * 4
    parts, coding, esm_class = smpplib.gsm.make_parts(text)
    for part in parts:
        client.send_message(
            source_addr_ton=5, source_addr="CONGDOAN", dest_addr_ton=1, destination_addr=MSISDN, short_message=part,
            data_coding=coding, esm_class=esm_class, registered_delivery=True,
        )  # fmt: skip
    while len(answers) < len(parts) or len(receipts) < len(parts):
        client.read_once(auto_send_enquire_link=False)
    client.unbind()
    client.disconnect()
    lines = process.lines()[before:]
    assert len(parts) == 3
    assert [line["id"] for line in lines] == [taken_id(KEY, MSISDN, text, part) for part in (1, 2, 3)]
    assert [line["message_id"].encode() for line in lines] == answers
    assert all(b"stat:DELIVRD" in receipt for receipt in receipts)


def test_smpplib_with_a_wrong_password_is_turned_away(process: Process) -> None:
    client = smpplib.client.Client("127.0.0.1", process.ready["port"], timeout=5, allow_unknown_opt_params=True)
    client.connect()
    with pytest.raises(smpplib.exceptions.PDUError) as refused:
        client.bind_transceiver(system_id="demo", password="wrong")
    assert refused.value.args[1] == smpplib.consts.SMPP_ESME_RINVPASWD
    client.state = smpplib.consts.SMPP_CLIENT_STATE_OPEN
    client.disconnect()


def test_the_control_port_shows_counts_and_refuses_what_it_does_not_know(process: Process) -> None:
    state = process.control()
    for name in ("submitted", "taken", "withheld", "receipts_sent", "receipts_acked", "receipts_pending", "in_flight"):
        assert isinstance(state[name], int)
    assert process.control(slow_ms=5)["slow_ms"] == 5
    assert process.control(slow_ms=0)["slow_ms"] == 0
    for wrong in ({"nonsense": 1}, {"withhold": "yes"}, {"slow_ms": 1.5}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            process.control(**wrong)
        assert refused.value.code == 400
        refused.value.close()


def test_a_stopped_simulator_writes_what_never_became_whole(tmp_path: Path) -> None:
    started = Process(tmp_path / "sms.log")
    client = bound_client(started.ready["port"])
    client.send_message(
        source_addr="X", destination_addr=MSISDN, esm_class=0x40, short_message=b"\x05\x00\x03\x07\x03\x02half"
    )
    client.read_once()
    assert started.lines() == []
    assert started.control()["incomplete"] == 1
    client.unbind()
    client.disconnect()
    assert started.stop() == 0
    (line,) = started.lines()
    phone = taken_id(KEY, MSISDN, "", 1).split(":")[0]
    assert (line["id"], line["verdict"], line["answered"]) == (f"{phone}:incomplete:7:2", "taken", True)


class RawClient:
    """Speaks to the simulator in bytes, to see what no client would show."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.buffer = bytearray()
        self.frames: list[tuple[int, int, int, bytes]] = []

    @classmethod
    async def bind(cls, carrier: Carrier, command: int = 9) -> RawClient:
        client = cls(*await asyncio.open_connection("127.0.0.1", carrier.port))
        client.say(command, 1, b"demo\0demo\0\0\x34\0\0\0")
        assert (await client.read())[:3] == (command | 0x80000000, 0, 1)
        return client

    def say(self, command: int, sequence: int, body: bytes = b"", status: int = 0) -> None:
        self.writer.write(wire.frame(command, status, sequence, body))

    def submit(self, sequence: int, data: bytes = b"hello", esm_class: int = 0) -> None:
        head = b"\0\5\0X\0\1\1" + MSISDN.encode() + b"\0" + bytes((esm_class,)) + b"\0\0\0\0\1\0\0\0"
        self.say(wire.SUBMIT, sequence, head + bytes((len(data),)) + data)

    async def read(self) -> tuple[int, int, int, bytes]:
        while not self.frames:
            data = await asyncio.wait_for(self.reader.read(65536), 5)
            if not data:
                raise ConnectionResetError
            self.buffer += data
            self.frames += wire.read_frames(self.buffer)
        return self.frames.pop(0)


async def test_withheld_messages_are_taken_and_answered_later_with_one_line(carrier: Carrier) -> None:
    client = await RawClient.bind(carrier)
    carrier.smsc.change({"withhold": True, "receipt_delay_ms": 60_000})
    client.submit(2)
    await until(lambda: carrier.count("withheld") == 1)
    client.say(wire.ENQUIRE, 3)
    assert (await client.read())[:3] == (wire.ENQUIRE | 0x80000000, 0, 3)
    assert [(line["verdict"], line["answered"]) for line in carrier.lines()] == [("taken", False)]
    carrier.smsc.change({"withhold": False})
    assert (await client.read())[:3] == (wire.SUBMIT | 0x80000000, 0, 2)
    assert len(carrier.lines()) == 1
    assert carrier.count("in_flight") == 0
    client.writer.close()


async def test_a_part_sent_twice_stands_twice_in_the_log(carrier: Carrier) -> None:
    client = await RawClient.bind(carrier)
    one, two = b"\x05\x00\x03\x09\x02\x01first ", b"\x05\x00\x03\x09\x02\x02second"
    for sequence, part in enumerate((two, two, one, one), 2):
        client.submit(sequence, part, 0x40)
    await until(lambda: len(carrier.lines()) == 4)
    text = "first second"
    assert carrier.taken() == [taken_id(KEY, MSISDN, text, part) for part in (1, 2, 2, 1)]
    client.writer.close()


async def test_a_rate_above_the_contract_is_throttled_and_logged_as_refused(carrier: Carrier) -> None:
    carrier.smsc.change({"rate_per_s": 3})
    client = await RawClient.bind(carrier)
    for sequence in range(2, 7):
        client.submit(sequence)
    await until(lambda: len(carrier.lines()) == 5)
    assert [line["status"] for line in carrier.lines()] == [0, 0, 0, 0x58, 0x58]
    assert len(carrier.taken()) == 3
    client.writer.close()


async def test_receipts_wait_for_a_receiver_and_come_again_until_they_are_answered(carrier: Carrier) -> None:
    carrier.smsc.change({"receipt_retry_ms": 0})
    sender = await RawClient.bind(carrier, 2)
    sender.submit(2)
    await sender.read()
    assert carrier.count("receipts_pending") == 1 and carrier.count("receipts_sent") == 0
    first = await RawClient.bind(carrier, 1)
    seen = await first.read()
    first.writer.transport.abort()
    await until(lambda: carrier.count("receipts_refused") == 1)
    second = await RawClient.bind(carrier, 1)
    again = await second.read()
    second.say(wire.DELIVER | 0x80000000, again[2], b"\0", 0x64)
    third = await second.read()
    second.say(wire.DELIVER | 0x80000000, third[2], b"\0")
    await until(lambda: carrier.count("receipts_pending") == 0)
    assert seen[3] == again[3] == third[3]
    sender.writer.close()
    second.writer.close()


async def test_receipts_go_to_the_account_that_sent() -> None:
    smsc = Smsc(Journal(io.StringIO(), KEY), KEY, {"one": "a", "two": "b"})
    smsc.behaviour.receipt_delay_ms = 0
    carrier = Carrier(smsc)
    ports = [await smsc.start(), await smsc.start()]
    clients = []
    for port, login in zip(ports, (b"one\0a\0", b"two\0b\0"), strict=True):
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
        client.say(9, 1, login + b"\0\x34\0\0\0")
        assert (await client.read())[1] == wire.OK
        clients.append(client)
    clients[1].submit(2)
    assert (await clients[1].read())[0] == wire.SUBMIT | 0x80000000
    assert (await clients[1].read())[0] == wire.DELIVER
    clients[0].say(wire.ENQUIRE, 3)
    assert (await clients[0].read())[0] == wire.ENQUIRE | 0x80000000
    assert carrier.count("receipts_sent") == 1
    for client in clients:
        client.writer.close()
    await smsc.stop()


async def test_which_phones_are_unreachable_follows_from_the_key(carrier: Carrier) -> None:
    carrier.smsc.change({"undeliv_share": 0.03})
    due = carrier.smsc._due[b"demo"]
    for number in range(2000):
        submit = wire.Submit(b"X", b"\0\0", f"8491255{number:04}".encode(), b"\1\1", False, True, 0, b"")
        carrier.smsc.owe_receipt(b"demo", submit, "1")
    # Nobody is bound, so every receipt waits where it can be looked at.
    await until(lambda: len(due) == 2000)
    states = [receipt.state for receipt in due]
    assert 30 <= states.count("UNDELIV") <= 90


@pytest.mark.parametrize("noise", [b"\0\0\0\5hello world, hello", b"\0\0\0\x14\0\0\0\x09\0\0\0\0\0\0\0\1abcd"])
async def test_noise_from_a_client_ends_its_connection_alone(carrier: Carrier, noise: bytes) -> None:
    other = await RawClient.bind(carrier)
    reader, writer = await asyncio.open_connection("127.0.0.1", carrier.port)
    writer.write(noise)
    assert await asyncio.wait_for(reader.read(), 5) == wire.frame(wire.NACK, 2, 0)
    other.say(wire.ENQUIRE, 8)
    assert (await other.read())[:3] == (wire.ENQUIRE | 0x80000000, 0, 8)
    writer.close()
    other.writer.close()


async def test_down_takes_no_connection(carrier: Carrier) -> None:
    carrier.smsc.change({"down": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", carrier.port)
    try:
        received = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        received = b""
    assert received == b""
    writer.close()
