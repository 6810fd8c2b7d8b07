"""The axis itself: it checks signatures and packets, shows packets until they are marked, logs statuses."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TextIO

from aiohttp import BodyPartReader, web

from .packets import NAMESPACE, Packet, broken_packet, packets, repeated_packet

_ZONE = timezone(timedelta(hours=7))
_STATUS_CODES = {"01", "02", "03", "04", "05", "06", "13", "15", "16"}
_STATUS_ORDER = ("From", "ResponseFor", "StaffInfo", "StatusCode", "Description", "Timestamp")

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """Answered as an error; ``args`` are HTTP status and ErrorCode."""


class Axis:
    """Packets, marks, statuses and the switches of the control port."""

    def __init__(self, options: argparse.Namespace, log: TextIO) -> None:
        self.seed: int = options.seed
        self.secret: bytes = options.secret.encode()
        self.system_id: str = options.system_id
        self.tolerance_s: float = options.tolerance_s
        self.log = log
        self.packets: dict[str, Packet] = {}
        self.documents = 0
        self.marks: dict[str, str] = {}
        self.taken: dict[str, int] = {}
        self.tried: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.switches: Json = {
            "withhold": False,
            "withhold_all": False,
            "slow_ms": 0,
            "down": False,
            "refuse_marks": False,
            "fail_share": options.fail_share,
        }
        self.released = asyncio.Condition()
        self.add(options.documents)
        if not options.only_readable:
            for packet in (broken_packet(self.seed), repeated_packet(self.seed)):
                self.packets[packet.doc_id] = packet

    def add(self, count: int) -> None:
        for packet in packets(self.seed, count, self.documents):
            self.packets[packet.doc_id] = packet
        self.documents += count

    def state(self) -> Json:
        marks = Counter(self.marks.values())
        return {
            **self.switches,
            "documents": self.documents,
            "packets": len(self.packets),
            "unmarked": len(self.packets) - len(self.marks),
            "marked": dict(marks),
            "marks": self.marks,
            "statuses_taken": len(self.taken),
            "repeats": sum(self.taken.values()) - len(self.taken),
            "calls": dict(self.calls),
            **{name: self.counts[name] for name in ("held", "out_of_order", "auth_refused", "refused", "failed_first")},
        }

    # -- the calls ---------------------------------------------------------------------------------

    async def received_list(self, request: web.Request, signed: Json) -> Json:
        if signed.get("messagetype") != "edoc":
            return {"data": []}
        return {"data": [self._line(packet) for doc_id, packet in self.packets.items() if doc_id not in self.marks]}

    def _line(self, packet: Packet) -> Json:
        created = datetime(2026, 11, 1, 8, tzinfo=_ZONE) + timedelta(seconds=list(self.packets).index(packet.doc_id))
        return {
            "docId": packet.doc_id,
            "serviceType": "eDoc",
            "messageType": "edoc",
            "created_time": f"{created:%Y-%m-%d %H:%M:%S}",
            "updated_time": f"{created:%Y-%m-%d %H:%M:%S}",
            "from": packet.sender,
            "to": "999.00.01.H55",
            "status": "initial",
            "status_desc": "",
        }

    async def get_edoc(self, request: web.Request, signed: Json) -> Json:
        packet = self.packets.get(signed.get("docId", ""))
        if packet is None:
            raise Refusal(200, "404")
        return {"data": base64.b64encode(packet.content).decode()}

    async def update_status(self, request: web.Request, signed: Json) -> Json:
        doc_id, mark = signed.get("docId", ""), signed.get("status", "")
        if doc_id not in self.packets or mark not in ("done", "fail", "processing"):
            raise Refusal(200, "10")
        if self.switches["refuse_marks"]:
            raise Refusal(200, "20")
        self.marks[doc_id] = mark
        return {}

    async def send_edoc(self, request: web.Request, signed: Json) -> Json:
        if signed.get("messagetype") != "status" or signed.get("servicetype") != "eDoc":
            raise Refusal(200, "10")
        part = await (await request.multipart()).next()
        if not isinstance(part, BodyPartReader) or part.name != "file_doc":
            raise Refusal(200, "10")
        content = bytes(await part.read())
        if hashlib.sha256(content).hexdigest() != signed.get("hash-file"):
            raise Refusal(200, "10")
        sender, document_id, code = _read_status(content)
        if sender != signed.get("from"):
            raise Refusal(200, "19")
        status_id = f"{document_id}:{code}"
        if document_id not in {packet.document_id for packet in self.packets.values()}:
            self._write(status_id, "refused", 200, answered=True)
            raise Refusal(200, "18")
        first = status_id not in self.tried
        self.tried.add(status_id)
        if first and _share(f"{self.seed}/{status_id}") < self.switches["fail_share"]:
            self.counts["failed_first"] += 1
            self._write(status_id, "refused", 503, answered=True)
            raise Refusal(503, "20")
        if code != "01" and f"{document_id}:01" not in self.taken:
            self.counts["out_of_order"] += 1
        self.taken[status_id] = self.taken.get(status_id, 0) + 1
        held = self.switches["withhold"] or self.switches["withhold_all"]
        self._write(status_id, "taken", 200, answered=not held, repeat=self.taken[status_id] > 1)
        return {"DocId": f"ST-{len(self.taken):06d}"}

    # -- around every call -------------------------------------------------------------------------

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.calls[request.path] += 1
        if self.switches["down"]:
            return _hang_up(request)
        calls = {
            "/getReceivedEdocList": self.received_list,
            "/getEdoc": self.get_edoc,
            "/updateStatus": self.update_status,
            "/sendEdoc": self.send_edoc,
        }
        try:
            signed = self._authenticate(request)
            if request.path not in calls:
                raise Refusal(404, "404")
            answer = await calls[request.path](request, signed)
        except Refusal as refusal:
            self.counts["refused"] += 1
            http_status, code = refusal.args
            return web.json_response({"status": "FAIL", "ErrorCode": code, "ErrorDesc": ""}, status=http_status)
        if self.switches["slow_ms"]:
            await asyncio.sleep(self.switches["slow_ms"] / 1000)
        await self._withhold(request.path)
        if self.switches["down"]:
            return _hang_up(request)
        return web.json_response({"status": "OK", "ErrorCode": "0", "ErrorDesc": "", **answer})

    async def _withhold(self, path: str) -> None:
        def held() -> bool:
            return bool(self.switches["withhold_all"] or (self.switches["withhold"] and path == "/sendEdoc"))

        if held():
            self.counts["held"] += 1
            async with self.released:
                await self.released.wait_for(lambda: not held())
            self.counts["held"] -= 1

    def _authenticate(self, request: web.Request) -> Json:
        """The signed parameters without their prefix; every one must stand in the headers as signed."""
        headers = request.headers
        text = headers.get("XroadVnpt-sign-header", "")
        expected = hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
        try:
            signed = {str(name).removeprefix("XroadVnpt-"): str(value) for name, value in json.loads(text).items()}
            stamp, _, millis = signed["timestamp"].partition("+")
            sent_at = datetime.strptime(stamp, "%d%m%YT%H%M%S").replace(tzinfo=_ZONE)
            genuine = (
                hmac.compare_digest(expected.encode(), headers.get("XroadVnpt-hash-header", "").encode())
                and signed["systemid"] == self.system_id
                and headers.get("XroadVnpt-sign-header-key", "").split(";") == list(signed)
                and all(headers.get(f"XroadVnpt-{name}") == value for name, value in signed.items())
                and len(millis) == 4
                and millis.isdigit()
                and abs((datetime.now(UTC) - sent_at).total_seconds()) <= self.tolerance_s
                and headers.get("XroadVnpt-version") == "3.0.201608"
            )
        except (ValueError, KeyError, AttributeError):
            genuine = False
        if not genuine:
            self.counts["auth_refused"] += 1
            raise Refusal(401, "401")
        return signed

    def _write(self, status_id: str, verdict: str, status: int, *, answered: bool, repeat: bool = False) -> None:
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": status_id,
            "verdict": verdict,
            "status": status,
            "answered": answered,
            "repeat": repeat,
        }
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    # -- the control port --------------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.state())

    async def change(self, request: web.Request) -> web.StreamResponse:
        wanted = json.loads(await request.read())
        unknown = set(wanted) - set(self.switches) - {"add"}
        if unknown:
            return web.json_response({"unknown": sorted(unknown)}, status=400)
        self.add(int(wanted.pop("add", 0)))
        self.switches.update(wanted)
        async with self.released:
            self.released.notify_all()
        return web.json_response(self.state())


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _read_status(content: bytes) -> tuple[str, str, str]:
    """(sender, document id, status code) of a status packet; a packet that is not to the standard is refused."""
    try:
        root = ET.fromstring(content)  # noqa: S314 - a partner for tests, on loopback, reading our own packets
    except ET.ParseError:
        raise Refusal(200, "22") from None
    space = {"e": NAMESPACE}
    header = root.find("e:edXMLEnvelope/e:edXMLHeader/e:MessageHeader", space)
    if root.tag != f"{{{NAMESPACE}}}edXML" or header is None:
        raise Refusal(200, "22")
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in header]
    values = {
        path: header.findtext("e:" + path.replace("/", "/e:"), "", space)
        for path in ("From/OrganId", "ResponseFor/OrganId", "ResponseFor/Code", "ResponseFor/PromulgationDate",
                     "ResponseFor/DocumentId", "StatusCode", "Timestamp")
    }  # fmt: skip
    try:
        datetime.strptime(values["Timestamp"], "%Y/%m/%d %H:%M:%S")  # noqa: DTZ007 - only its form matters here
        datetime.strptime(values["ResponseFor/PromulgationDate"], "%Y/%m/%d")  # noqa: DTZ007 - only its form
    except ValueError:
        raise Refusal(200, "22") from None
    in_order = names == [name for name in _STATUS_ORDER if name in names]
    complete = all(values[path] for path in ("From/OrganId", "ResponseFor/OrganId", "ResponseFor/Code"))
    if not in_order or not complete or values["StatusCode"] not in _STATUS_CODES:
        raise Refusal(200, "22")
    return values["From/OrganId"], values["ResponseFor/DocumentId"], values["StatusCode"]
