"""How fast our SMPP client is beside smpplib, on one bare SMSC in a process of its own.

    python -m benchmarks.sms [--messages 2000] [--window 50] [--rounds 3]

Half of the messages are GSM-7, half Vietnamese UCS-2, of one to three segments each. Both clients begin with the text:
they split it, write it, and read the answer of every segment; nothing is kept. Prints one JSON object; exit code 1
means that the run is void, because the SMSC was not fast enough to be a yardstick.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from time import perf_counter
from typing import Any

from benchmarks.process import partner, print_json, run, say
from plugins.telecom_sms.smpp import pdu, split
from plugins.telecom_sms.smpp.link import Endpoint, open_bound
from plugins.telecom_sms.smpp.session import Answer, Session, Timing

#: Below this the SMSC, not the client, would be what was measured.
SINK_AHEAD = 1.5
_SENDER, _PHONE = "CONGDOAN", "84912555123"
_PLAIN = "Cong doan tinh kinh moi anh chi doan vien du hoi nghi nguoi lao dong nam nay tai hoi truong lon. "
_ACCENTED = "Công đoàn tỉnh kính mời anh chị đoàn viên dự hội nghị người lao động năm nay. "


def texts(count: int) -> list[str]:
    """The set of SMS.md: alphabets by turns, and each alphabet's texts of one, two and three segments by turns."""
    made = []
    for number in range(count):
        alphabet, segments = number % 2, number // 2 % 3 + 1
        units = (150, 300, 450)[segments - 1] if alphabet == 0 else (65, 130, 195)[segments - 1]
        made.append(((_PLAIN if alphabet == 0 else _ACCENTED) * 6)[: units - 6] + f"{number:06}")
    return made


def segments_of(all_texts: Sequence[str]) -> int:
    return sum(len(split.plan(text).pieces) for text in all_texts)


# -- ours ------------------------------------------------------------------------------------------


async def ours(port: int, all_texts: Sequence[str], window: int) -> float:
    """Segments answered per second."""

    async def nothing(_: pdu.Message) -> None: ...

    endpoint = Endpoint(
        host="127.0.0.1", port=port, system_id="demo", password=lambda: "demo", timing=Timing(window=window)
    )
    session = await open_bound(endpoint, nothing)
    left = iter(enumerate(all_texts))
    started = perf_counter()
    sent = sum(await asyncio.gather(*(_send(session, left) for _ in range(window))))
    seconds = perf_counter() - started
    await session.close()
    return sent / seconds


async def _send(session: Session, left: Iterator[tuple[int, str]]) -> int:
    """One of as many senders as the window is wide; the parts of a text go in order."""
    sent = 0
    for number, text in left:
        plan = split.plan(text)
        for part in plan.parts(number & 0xFF, "udh"):
            message = pdu.Message(
                source=_SENDER, source_ton=5, destination=_PHONE, destination_ton=1, destination_npi=1,
                esm_class=part.esm_class, registered_delivery=1, data_coding=plan.data_coding,
                short_message=part.short_message,
            )  # fmt: skip
            answer = await session.submit(message)
            if not isinstance(answer, Answer) or answer.status:
                raise SystemExit("the bare SMSC refused a segment")
            sent += 1
    return sent


# -- smpplib ---------------------------------------------------------------------------------------


def theirs(port: int, all_texts: Sequence[str], window: int) -> float:
    """Segments answered per second: up to ``window`` are written before their answers are read."""
    # Of the tests' requirements; whoever runs the hub or the demo does without.
    smpp_client, smpp_gsm = import_module("smpplib.client"), import_module("smpplib.gsm")
    client: Any = smpp_client.Client("127.0.0.1", port, timeout=30, allow_unknown_opt_params=True)
    client.connect()
    client.bind_transceiver(system_id="demo", password="demo")
    answered = 0

    def count(**_: object) -> None:
        nonlocal answered
        answered += 1

    client.set_message_sent_handler(lambda pdu: count())
    sent = 0
    started = perf_counter()
    for text in all_texts:
        parts, coding, esm_class = smpp_gsm.make_parts(text)
        for part in parts:
            client.send_message(
                source_addr_ton=5, source_addr=_SENDER, dest_addr_ton=1, dest_addr_npi=1, destination_addr=_PHONE,
                short_message=part, data_coding=coding, esm_class=esm_class, registered_delivery=True,
            )  # fmt: skip
            sent += 1
            while sent - answered >= window:
                client.read_once(auto_send_enquire_link=False)
    while answered < sent:
        client.read_once(auto_send_enquire_link=False)
    seconds = perf_counter() - started
    client.unbind()
    client.disconnect()
    return sent / seconds


# -- the SMSC alone --------------------------------------------------------------------------------


async def sink_alone(port: int, all_texts: Sequence[str]) -> float:
    """Ready-made submits in one stream, answers counted by their bytes: what the SMSC can take."""
    bodies = [
        pdu.Message(
            source=_SENDER, source_ton=5, destination=_PHONE, destination_ton=1, esm_class=part.esm_class,
            data_coding=plan.data_coding, short_message=part.short_message,
        ).encode()
        for plan in map(split.plan, all_texts)
        for part in plan.parts(1, "udh")
    ]  # fmt: skip
    stream = b"".join(pdu.encode(pdu.SUBMIT_SM, number, body) for number, body in enumerate(bodies, 1))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(pdu.encode(pdu.BIND_TRANSCEIVER, 1, pdu.bind_body("demo", "demo")))
    await reader.readexactly(21)
    started = perf_counter()
    writer.write(stream)
    await reader.readexactly(27 * len(bodies))
    seconds = perf_counter() - started
    writer.close()
    return len(bodies) / seconds


async def measure(messages: int, window: int, rounds: int) -> dict[str, Any]:
    all_texts = texts(messages)
    best = {"ours": 0.0, "smpplib": 0.0, "sink": 0.0}
    async with partner("benchmarks.sms_sink") as (_, ready):
        port = ready["port"]
        # By turns, so that whatever else the machine does meets both.
        for number in range(rounds):
            found = {
                "ours": await ours(port, all_texts, window),
                "smpplib": await asyncio.to_thread(theirs, port, all_texts, window),
                "sink": await sink_alone(port, all_texts),
            }
            say(f"round {number + 1}: " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in found.items()))
            best = {name: max(rate, found[name]) for name, rate in best.items()}
    return {
        "messages": messages,
        "segments": segments_of(all_texts),
        "window": window,
        "ours_submit_per_s": round(best["ours"]),
        "smpplib_submit_per_s": round(best["smpplib"]),
        "ratio": round(best["ours"] / best["smpplib"], 2),
        "sink_only_per_s": round(best["sink"]),
        "void": best["sink"] < SINK_AHEAD * best["ours"],
        "load_1_min": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # smpplib warns about its own session handling; that is not what is measured.
    warnings.simplefilter("ignore")
    result = run(measure(given.messages, given.window, given.rounds))
    print_json(result)
    sys.exit(1 if result["void"] else 0)
