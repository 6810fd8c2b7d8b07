"""Both strangers of a tortured hub: who sends to it until it says yes, and who takes what it sends.

They live in the process that does the killing, write everything down before they answer, and know nothing of the
hub but its two addresses.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import aiohttp
import orjson
from aiohttp import web

from benchmarks.torture.victim import signature

#: Callers at once.
CALLERS = 6
#: So many of the partner's answers are 503: to be tried again, also where a resend is unsafe.
REFUSED = 0.1


class Try(NamedTuple):
    """One request as it arrived; ``status`` is what it was answered, if the answer came through."""

    life: int
    event: UUID
    body: bytes
    status: int


class Partner:
    """Takes deliveries at ``/{connection}/{delivery}``; what the carrier accepts it reports a moment later."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.tries: dict[tuple[str, UUID], list[Try]] = defaultdict(list)
        self.life = 0
        self.address = ""
        #: Called with the number of the request within this life, before it is answered.
        self.on_request: Callable[[int], None] = lambda count: None
        #: Gets what shall be reported: a reference, and its state.
        self.report: Callable[[str, str], None] = lambda ref, state: None
        self.seen = 0
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Partner:
        self._runner = web.ServerRunner(web.Server(self._take))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        _, connection, delivery = request.path.split("/")
        refused = self._dice.random() < REFUSED
        status = 503 if refused else 202 if connection == "carrier" else 200
        made = Try(self.life, UUID(orjson.loads(body)["event"]), hashlib.sha256(body).digest(), status)
        tries = self.tries[connection, UUID(delivery)]
        tries.append(made)
        ref = f"{delivery}-{len(tries)}"
        if status == 202:  # a receipt, now and then before the hub has the reference, now and then twice
            for _ in range(self._dice.choice([1, 1, 2])):
                self.report(ref, self._dice.choice(["delivered"] * 4 + ["failed"]))
        self.seen += 1
        self.on_request(self.seen)
        await asyncio.sleep(self._dice.random() * 0.004)
        return web.Response(status=status, text=ref if status == 202 else "")


class Callers:
    """Post messages to the hub, each until it is accepted, in whichever of the hub's lives that is."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._made = 0
        #: Ids of messages that were answered 2xx, and those that were posted and not answered so yet.
        self.acknowledged: set[str] = set()
        self.open: dict[str, tuple[str, bytes]] = {}
        self.odd_statuses: set[int] = set()
        self.url = ""
        #: References whose receipt was answered 2xx.
        self.reported: set[str] = set()
        self.on_acknowledged: Callable[[int], None] = lambda count: None
        self._acknowledged_now = 0
        self._next: deque[str] = deque()

    def report(self, ref: str, state: str) -> None:
        """Has a receipt posted next."""
        id = f"r-{self._new()}"
        self.open[id] = ("carrier", orjson.dumps({"ref": ref, "state": state}))
        self._next.append(id)

    async def run(self, url: str, until: asyncio.Event, new: bool = True) -> None:
        """Posts until told; first what was left open. ``new``: new messages too, else it ends with the old ones."""
        self.url = url
        self._acknowledged_now = 0
        self._next = deque(self.open)
        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(self._one(http, until, new) for _ in range(CALLERS)))

    async def _one(self, http: aiohttp.ClientSession, until: asyncio.Event, new: bool) -> None:
        while not until.is_set() and (self._next or new):
            id = self._next.popleft() if self._next else self._invent()
            try:
                await self._post(http, id)
            except (aiohttp.ClientError, OSError):  # its answer will never come: posted again, in this life or the next
                if not new:
                    self._next.append(id)
                await asyncio.sleep(0.005)

    def _new(self) -> int:
        self._made += 1
        return self._made

    def _invent(self) -> str:
        n = self._new()
        key = f"k{n % 4}" if n % 3 == 0 else None
        self.open[f"m-{n}"] = ("door", orjson.dumps({"id": f"m-{n}", "n": n, "key": key}))
        return f"m-{n}"

    async def _post(self, http: aiohttp.ClientSession, id: str) -> None:
        """Raises ``aiohttp.ClientError`` when nobody is there."""
        door, body = self.open[id]
        headers = {"Content-Type": "application/json", "message-id": id, "signature": signature(body)}
        async with http.post(f"{self.url}in/{door}", data=body, headers=headers) as answer:
            await answer.read()
        if answer.status == 202:
            self.acknowledged.add(id)
            if door == "carrier":
                self.reported.add(orjson.loads(body)["ref"])
            self.open.pop(id, None)
            self._acknowledged_now += 1
            self.on_acknowledged(self._acknowledged_now)
        elif answer.status != 503:
            self.odd_statuses.add(answer.status)
            self.open.pop(id, None)
