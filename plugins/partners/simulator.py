"""Partner agencies in a process of their own: several endpoints on one port, each told how to behave.

Imports nothing of the hub: signatures are checked by the ``standardwebhooks`` library, bodies by ``cloudevents``.

    python -m plugins.partners.simulator --port 0 --control-port 0 --log FILE [--secret whsec_...] [--secrets FILE]

``POST /hook/NAME`` takes events. ``GET /control`` tells the counts; ``PUT /control`` changes fields of
``Behaviour``, at the top for every endpoint, under ``endpoints.NAME`` for one (null: as the others again);
``{"forget": true}`` starts over first, counts included.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import signal
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.exceptions import BaseCloudEventException
from standardwebhooks import Webhook, WebhookVerificationError

BODY_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Behaviour:
    """How an endpoint answers what is signed well and can be read."""

    #: Connections are reset as soon as a request came; nothing is processed.
    down: bool = False
    status: int = 200
    slow_ms: float = 0
    #: Value of Retry-After beside an answer other than 2xx: seconds, a date or rubbish.
    retry_after: int | str | None = None
    #: Processes and holds the answer back until this is false again.
    withhold: bool = False
    #: Share of ids whose first try is answered 503; the id decides, not chance.
    fail_first_share: float = 0.0


_KINDS: dict[str, tuple[type, ...]] = {
    "down": (bool,), "status": (int,), "slow_ms": (int, float), "retry_after": (int, str),
    "withhold": (bool,), "fail_first_share": (int, float),
}  # fmt: skip


def checked(given: Any, where: str) -> dict[str, Any]:
    """``given`` if every field is one of Behaviour and of its type, else ValueError saying what is allowed."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}: an object is needed")
    for name, value in given.items():
        if name not in _KINDS:
            raise ValueError(f"{where}: unknown field {name!r}; known are {', '.join(_KINDS)}")
        kinds = _KINDS[name]
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"{where}.{name}: needs {' or '.join(kind.__name__ for kind in kinds)}")
        if name == "status" and isinstance(value, int) and not 200 <= value <= 599:
            raise ValueError(f"{where}.status: from 200 to 599")
    return given


@dataclass
class Endpoint:
    """What one endpoint has seen."""

    name: str
    own: dict[str, Any] = field(default_factory=dict)
    #: SHA-256 of the first body of each taken id, to see whether a repeat brings other bytes.
    taken: dict[str, bytes] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    refused: int = 0
    repeats: int = 0
    changed_bodies: int = 0
    dropped: int = 0
    #: By identity: requests are mappings, equal when empty.
    held: dict[int, web.Request] = field(default_factory=dict)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=10))

    def state(self) -> dict[str, Any]:
        return {
            "behaviour": self.own,
            "taken": len(self.taken),
            "refused": self.refused,
            "repeats": self.repeats,
            "changed_bodies": self.changed_bodies,
            "dropped": self.dropped,
            "withheld": sum(1 for request in self.held.values() if not _gone(request)),
            "last": list(self.last),
        }


class Partners:
    """All endpoints, and the two HTTP faces: ``hook`` for the hub, ``show`` and ``change`` for a test."""

    def __init__(self, log: TextIO, secret: str | None, secrets: dict[str, str]) -> None:
        self._log = log
        self._default = Webhook(secret) if secret else None
        self._own = {name: Webhook(each) for name, each in secrets.items()}
        self._behaviour = Behaviour()
        self._endpoints: dict[str, Endpoint] = {}
        self._changed = asyncio.Event()
        #: Set when it listens; knows the open connections.
        self.runner: web.AppRunner | None = None

    # -- for the hub -------------------------------------------------------------------------------

    async def hook(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        webhook = self._own.get(name, self._default)
        if webhook is None or not _NAME.fullmatch(name):
            return web.Response(status=404, text="no such endpoint")
        endpoint = self._endpoint(name)
        if self._of(endpoint).down:
            return self._drop(request, endpoint)
        body = await request.read()
        message_id = request.headers.get("webhook-id", "")[:128]
        problem = wrong(webhook, request, body, message_id)
        if problem is not None:
            status, reason = problem
            self._note(endpoint, message_id, "refused", status, reason=reason)
            return web.Response(status=status, text=reason)
        slow_ms = self._of(endpoint).slow_ms
        if slow_ms:
            await asyncio.sleep(slow_ms / 1000)
        behaviour = self._of(endpoint)
        status, reason = self._decide(endpoint, behaviour, message_id)
        withheld = behaviour.withhold
        answered = not withheld and not _gone(request)
        if 200 <= status < 300:
            self._take(endpoint, message_id, body, status, answered)
        else:
            self._note(endpoint, message_id, "refused", status, answered=answered, reason=reason)
        if withheld:
            await self._hold(request, endpoint)
            if self._of(endpoint).down:
                return self._drop(request, endpoint)
        headers = {}
        if behaviour.retry_after is not None and not 200 <= status < 300:
            headers["Retry-After"] = str(behaviour.retry_after)
        return web.Response(status=status, text=reason, headers=headers)

    def _endpoint(self, name: str) -> Endpoint:
        return self._endpoints.setdefault(name, Endpoint(name))

    def _of(self, endpoint: Endpoint) -> Behaviour:
        return replace(self._behaviour, **endpoint.own) if endpoint.own else self._behaviour

    def _drop(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        endpoint.dropped += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    def _decide(self, endpoint: Endpoint, behaviour: Behaviour, message_id: str) -> tuple[int, str]:
        first = message_id not in endpoint.tried
        endpoint.tried.add(message_id)
        if first and behaviour.fail_first_share:
            dice = hashlib.sha256(f"{endpoint.name}:{message_id}".encode()).digest()
            if int.from_bytes(dice[:8], "big") < behaviour.fail_first_share * 2**64:
                return 503, "first_try"
        return behaviour.status, "ok" if 200 <= behaviour.status < 300 else "as_told"

    def _take(self, endpoint: Endpoint, message_id: str, body: bytes, status: int, answered: bool) -> None:
        digest = hashlib.sha256(body).digest()
        known = endpoint.taken.setdefault(message_id, digest)
        more = {}
        if known is not digest:
            endpoint.repeats += 1
            more["repeat"] = True
        if known != digest:
            endpoint.changed_bodies += 1
            more["changed_body"] = True
        self._note(endpoint, message_id, "taken", status, answered=answered, **more)

    def _note(
        self, endpoint: Endpoint, message_id: str, verdict: str, status: int, *, answered: bool = True, **more: Any
    ) -> None:
        if verdict == "refused":
            endpoint.refused += 1
        else:
            endpoint.last.append(message_id)
        line = {
            "at": datetime.now(UTC).isoformat(),
            "id": f"{message_id}@{endpoint.name}",
            "verdict": verdict,
            "status": status,
            "answered": answered,
            **more,
        }
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    async def _hold(self, request: web.Request, endpoint: Endpoint) -> None:
        endpoint.held[id(request)] = request
        try:
            while self._of(endpoint).withhold:
                await self._changed.wait()
        finally:
            del endpoint.held[id(request)]

    # -- for a test or the demo --------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.Response:
        endpoints = {name: each.state() for name, each in sorted(self._endpoints.items())}
        totals = {
            name: sum(state[name] for state in endpoints.values())
            for name in ("taken", "refused", "repeats", "changed_bodies", "dropped", "withheld")
        }
        server = self.runner.server if self.runner else None
        totals["connections"] = len(server.connections) if server else 0
        return web.json_response({**vars(self._behaviour), **totals, "endpoints": endpoints})

    async def change(self, request: web.Request) -> web.Response:
        try:
            given = await request.json()
            if not isinstance(given, dict):
                raise ValueError("an object is needed")
            forget = given.pop("forget", False) is True
            single = given.pop("endpoints", {})
            if not isinstance(single, dict):
                raise ValueError("endpoints: an object is needed")
            for_all = checked(given, "control")
            for_one = {name: checked(each, f"endpoints.{name}") for name, each in single.items()}
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        usual = vars(Behaviour())
        if forget:
            self._forget()
        self._behaviour = replace(
            self._behaviour, **{name: usual[name] if value is None else value for name, value in for_all.items()}
        )
        for name, changes in for_one.items():
            endpoint = self._endpoint(name)
            merged = {**endpoint.own, **changes}
            endpoint.own = {key: value for key, value in merged.items() if value is not None}
        # Everybody who holds an answer looks again; whoever starts to hold now waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
        return await self.show(request)

    def _forget(self) -> None:
        self._behaviour = Behaviour()
        for endpoint in self._endpoints.values():
            # Whoever still holds an answer for it lets go.
            endpoint.own = {}
        self._endpoints.clear()


def wrong(webhook: Webhook, request: web.Request, body: bytes, message_id: str) -> tuple[int, str] | None:
    """Status and reason for what a strict receiver does not take; None when there is nothing to object to."""
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return 401, "signature"
    try:
        if request.content_type == "application/cloudevents+json":
            event = from_structured_event(HTTPMessage(dict(request.headers), body))
            return None if event.get_id() == message_id else (400, "id_differs")
        if request.content_type == "application/json":
            json.loads(body)
            return None
    except (BaseCloudEventException, ValueError, TypeError, AttributeError):
        return 400, "body"
    return 415, "content_type"


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def listen(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    # Answers still held back must not delay the end.
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, runner.addresses[0][1]


async def serve(arguments: argparse.Namespace) -> None:
    secrets = json.loads(arguments.secrets.read_text()) if arguments.secrets else {}
    with arguments.log.open("a", encoding="utf-8") as log:
        partners = Partners(log, arguments.secret, secrets)
        hooks = web.Application(client_max_size=BODY_BYTES)
        hooks.router.add_post("/hook/{name}", partners.hook)
        control = web.Application()
        control.router.add_get("/control", partners.show)
        control.router.add_put("/control", partners.change)
        stop = asyncio.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)
        partners.runner, port = await listen(hooks, arguments.port)
        control_runner, control_port = await listen(control, arguments.control_port)
        print(json.dumps({"ready": True, "port": port, "control": control_port}), flush=True)
        await stop.wait()
        await partners.runner.cleanup()
        await control_runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--secret", help="whsec_... of every endpoint that has none of its own")
    parser.add_argument("--secrets", type=Path, help='JSON file: {"NAME": "whsec_..."}')
    parser.add_argument("--key", help="taken for uniformity; ids in this log are event ids and need no hash")
    arguments = parser.parse_args()
    if not arguments.secret and not arguments.secrets:
        parser.error("give --secret or --secrets")
    asyncio.run(serve(arguments))


if __name__ == "__main__":
    main()
