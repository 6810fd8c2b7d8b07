"""What all simulated HTTP carriers share: the process, its faults, its log. Each carrier reads and writes its own wire.

``python -m plugins.telecom_sms.simulator.<carrier> --log FILE [--port N ...] [--control-port N] [--key HEX]
[--accounts FILE] [--seed N] [--set JSON]``; GET and PUT /control on the control port.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import aiohttp
from aiohttp import web

from .journal import taken_id

#: Given up after so many tries, like a carrier's own. Source: eSMS, callback-url.md.
_REPORT_TRIES = 5


@dataclass
class Behaviour:
    """Shares are between 0 and 1, times in milliseconds."""

    #: Every request is answered 503 in words no carrier would use.
    down: bool = False
    slow_ms: int = 0
    #: Processed, and the connection cut instead of an answer.
    lose_share: float = 0.0
    #: Not processed, answered with ``refuse_code`` by lot, and above so many in a second with the code for "too fast".
    refuse_share: float = 0.0
    refuse_code: str = ""
    rate_per_s: float = 0.0
    #: Phones that can never be reached; which ones follows from the key.
    undeliv_share: float = 0.0
    receipt_delay_ms: int = 300
    receipt_lose_share: float = 0.0
    receipt_repeat_share: float = 0.0


@dataclass(frozen=True)
class Result:
    """``code`` is the carrier's own; None: processed, and nobody is told."""

    code: str | None
    message_id: str = ""


class WebCarrier:
    """One HTTP carrier. A subclass gives routes and its codes for taken, duplicate and too fast."""

    TAKEN = ""
    DUPLICATE = ""
    TOO_FAST = ""

    def __init__(self, log: IO[str], key: bytes, accounts: Sequence[Mapping[str, str]], seed: int = 1) -> None:
        self.behaviour = Behaviour()
        self.counts: Counter[str] = Counter()
        self.accounts = accounts
        #: The last request as it came, for whoever wants to look: path, headers, body.
        self.last: tuple[str, dict[str, str], bytes] = "", {}, b""
        self._log = log
        self._key = key
        self._dice = random.Random(seed)
        self._seen: dict[str, str] = {}
        self._recent: list[float] = []
        self._last_number = int(datetime.now(UTC).timestamp() * 1000) << 8
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    # -- for subclasses ----------------------------------------------------------------------------

    def routes(self) -> Sequence[web.RouteDef]:
        raise NotImplementedError

    async def process(
        self, phone: str, text: str, request_id: str, report: Callable[[str, bool], Any] | None
    ) -> Result:
        """``phone`` as 84...; ``report(message_id, reached)`` makes what is sent when the receipt is due, or None."""
        behaviour = self.behaviour
        self.counts["submitted"] += 1
        if behaviour.slow_ms:
            await asyncio.sleep(behaviour.slow_ms / 1000)
        refusal = self._refusal()
        if refusal:
            self.counts["refused"] += 1
            self._write(phone, text, "refused", refusal, True, None)
            return Result(refusal)
        if request_id and request_id in self._seen:
            self.counts["duplicates"] += 1
            return Result(self.DUPLICATE, self._seen[request_id])
        self._last_number += 1
        message_id = str(self._last_number)
        if request_id:
            self._seen[request_id] = message_id
        lost = self._dice.random() < behaviour.lose_share
        self.counts["taken"] += 1
        self._write(phone, text, "taken", self.TAKEN, not lost, message_id)
        if report is not None:
            self._owe(report, message_id, self._reaches(phone))
        if lost:
            self.counts["lost"] += 1
            return Result(None, message_id)
        return Result(self.TAKEN, message_id)

    async def send_report(self, method: str, url: str, **content: Any) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        try:
            async with self._session.request(method, url, **content) as answer:
                await answer.read()
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    # -- faults ------------------------------------------------------------------------------------

    def _refusal(self) -> str:
        behaviour = self.behaviour
        if behaviour.rate_per_s:
            now = asyncio.get_running_loop().time()
            self._recent = [at for at in self._recent if at > now - 1]
            if len(self._recent) >= behaviour.rate_per_s:
                return self.TOO_FAST
            self._recent.append(now)
        if behaviour.refuse_code and self._dice.random() < behaviour.refuse_share:
            return behaviour.refuse_code
        return ""

    def _reaches(self, phone: str) -> bool:
        digest = hmac.new(self._key, b"reach:" + phone.encode(), sha256).digest()
        return int.from_bytes(digest[:4], "big") >= self.behaviour.undeliv_share * 2**32

    def _owe(self, report: Callable[[str, bool], Any], message_id: str, reached: bool) -> None:
        if self.behaviour.receipt_lose_share and self._dice.random() < self.behaviour.receipt_lose_share:
            return
        times = 1
        if self.behaviour.receipt_repeat_share and self._dice.random() < self.behaviour.receipt_repeat_share:
            times = 2
        for _ in range(times):
            self.counts["receipts_owed"] += 1
            task = asyncio.create_task(self._report(report, message_id, reached))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _report(self, report: Callable[[str, bool], Awaitable[bool]], message_id: str, reached: bool) -> None:
        for _ in range(_REPORT_TRIES):
            await asyncio.sleep(self.behaviour.receipt_delay_ms / 1000)
            self.counts["receipts_sent"] += 1
            if await report(message_id, reached):
                self.counts["receipts_acked"] += 1
                return

    def _write(self, phone: str, text: str, verdict: str, status: str, answered: bool, message_id: str | None) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        name = taken_id(self._key, phone, text, 1)
        line = {"at": at, "id": name, "verdict": verdict, "status": status, "answered": answered}
        print(json.dumps(line | {"message_id": message_id}), file=self._log, flush=True)

    # -- control and life --------------------------------------------------------------------------

    def change(self, wanted: dict[str, Any]) -> None:
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

    def state(self) -> dict[str, Any]:
        names = (
            "submitted", "taken", "refused", "lost", "duplicates", "logins", "receipts_owed", "receipts_sent",
            "receipts_acked",
        )  # fmt: skip
        return {**asdict(self.behaviour), **{name: self.counts[name] for name in names}}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._faulty], client_max_size=1 << 20)
        app.add_routes(self.routes())
        return app

    @web.middleware
    async def _faulty(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.last = request.path_qs, dict(request.headers), await request.read()
        if self.behaviour.down:
            return web.Response(status=503, text="<html>Service Unavailable</html>", content_type="text/html")
        return await handler(request)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


def cut(request: web.Request) -> web.Response:
    """The connection ends where an answer was due."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def control(carrier: WebCarrier) -> web.Application:
    async def show(_: web.Request) -> web.Response:
        return web.json_response(carrier.state())

    async def change(request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.read())
            if not isinstance(wanted, dict):
                raise ValueError("a JSON object is wanted")
            carrier.change(wanted)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(carrier.state())

    app = web.Application()
    app.add_routes([web.get("/control", show), web.put("/control", change)])
    return app


async def serve(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, int(runner.addresses[0][1])


def run(carrier_class: type[WebCarrier]) -> int:
    """The whole process: reads the arguments, says ``ready`` as JSON, ends on SIGTERM."""
    parser = argparse.ArgumentParser(description=carrier_class.__doc__)
    parser.add_argument("--port", type=int, action="append", help="0 (the default) for a free one; may be given again")
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines of what was taken and refused")
    parser.add_argument("--key", default="", metavar="HEX", help="key of the phone hashes; by default a random one")
    parser.add_argument("--accounts", type=Path, help="JSON file: a list of the accounts' fields")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", default="{}", metavar="JSON", help="fields of /control to start with")
    return asyncio.run(_run(carrier_class, parser.parse_args()))


async def _run(carrier_class: type[WebCarrier], arguments: argparse.Namespace) -> int:
    accounts = json.loads(arguments.accounts.read_text(encoding="utf-8")) if arguments.accounts else []
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with arguments.log.open("a", encoding="utf-8") as log:
        carrier = carrier_class(log, bytes.fromhex(arguments.key) or os.urandom(16), accounts, arguments.seed)
        carrier.change(json.loads(arguments.set))
        runners = [await serve(carrier.application(), port) for port in arguments.port or [0]]
        control_runner, control_port = await serve(control(carrier), arguments.control_port)
        ports = [port for _, port in runners]
        print(json.dumps({"ready": True, "port": ports[0], "ports": ports, "control": control_port}), flush=True)
        await stop.wait()
        await carrier.stop()
        for runner in [control_runner, *(runner for runner, _ in runners)]:
            await runner.cleanup()
    return 0
