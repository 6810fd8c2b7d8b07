"""The citizen app in a process of its own: token and push service, and workers who ask questions.

Imports nothing of the hub; questions are signed by the ``standardwebhooks`` library.

    python -m plugins.citizen_app.simulator --port 0 --control-port 0 --log FILE --client-secret SECRET
        [--client-id union-hub] [--webhook-secret whsec_...] [--hub-url http://127.0.0.1:8080]
        [--connection c-thainguyen] [--key HEX] [--token-life-s 3600]

``GET /control`` tells the counts; ``PUT /control`` changes fields of ``Behaviour``, or does something once:
``revoke_tokens``, ``forget`` (what was seen), ``"ask": 10``, ``"ask": {"count": 9, "repeat": 2, "changed": 1}``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import secrets
import signal
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote_plus

import aiohttp
from aiohttp import web
from standardwebhooks import Webhook

BODY_BYTES = 64 * 1024
#: Between tries of a question while the hub is away, and how long the app keeps trying.
ASK_AGAIN_S, ASK_FOR_S = 0.25, 120.0
QUESTIONS = (
    "Công ty chậm trả lương tháng 10, công đoàn giúp chúng tôi với.",
    "Tôi nghỉ thai sản từ tháng 12 thì đóng đoàn phí thế nào?",
    "Tổ tôi muốn đăng ký khám sức khỏe định kỳ thì gửi danh sách cho ai?",
)
NAMES = ("Nguyễn Thị Mẫu", "Trần Văn Thử", "Lê Thị Ví Dụ")


@dataclass(frozen=True)
class Behaviour:
    """How the service answers what is authorised and can be read."""

    #: Connections are reset as soon as a request came; nothing is processed.
    down: bool = False
    slow_ms: float = 0
    #: Processes and holds the answer back until this is false again.
    withhold: bool = False
    #: Share of keys whose first try is answered 503; the key decides, not chance.
    fail_first_share: float = 0.0
    #: Share of phones that belong to nobody here; the keyed hash of the phone decides.
    unknown_share: float = 0.0
    #: Status of every push that would be taken, to play quotas and faults; 0: as it should be.
    status: int = 0
    #: Value of Retry-After beside such a status.
    retry_after: int | str | None = None


_KINDS: dict[str, tuple[type, ...]] = {
    "down": (bool,), "slow_ms": (int, float), "withhold": (bool,), "fail_first_share": (int, float),
    "unknown_share": (int, float), "status": (int,), "retry_after": (int, str),
}  # fmt: skip
_ASK_KINDS = ("count", "repeat", "changed", "stale")


class CitizenApp:
    """The app's two HTTP faces: the service for the hub, the control for a test or the demo."""

    def __init__(self, log: TextIO, client: tuple[str, str], key: bytes, token_life_s: float) -> None:
        self._log = log
        self._client = client
        self._key = key
        self._token_life_s = token_life_s
        self._behaviour = Behaviour()
        self._changed = asyncio.Event()
        self._tokens: dict[str, float] = {}
        #: Digest of the body and answer of each idempotency key that was taken.
        self._taken: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self._tried: set[str] = set()
        self._users: set[str] = set()
        self._held: dict[int, web.Request] = {}
        self.counts: Counter[str] = Counter()
        self.questions: Questions | None = None

    # -- the service -------------------------------------------------------------------------------

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Source: RFC 6749 section 4.4, client credentials; section 5.2 for errors."""
        if self._behaviour.down:
            return self._drop(request)
        form = await request.post()
        given = _basic(request.headers.get("Authorization", ""))
        if given is None:
            given = (str(form.get("client_id", "")), str(form.get("client_secret", "")))
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, self._client, strict=True)):
            self.counts["logins_refused"] += 1
            return web.json_response({"error": "invalid_client"}, status=401)
        await asyncio.sleep(self._behaviour.slow_ms / 1000)
        value = secrets.token_urlsafe(32)
        self._tokens[value] = asyncio.get_running_loop().time() + self._token_life_s
        self.counts["tokens_issued"] += 1
        answer = {"access_token": value, "token_type": "Bearer", "expires_in": self._token_life_s}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    async def push(self, request: web.Request) -> web.StreamResponse:
        if self._behaviour.down:
            return self._drop(request)
        key = request.headers.get("Idempotency-Key", "")[:128]
        body = await request.read()
        await asyncio.sleep(self._behaviour.slow_ms / 1000)
        status, answer, more = self._judge(request, key, body)
        behaviour = self._behaviour
        withheld = behaviour.withhold
        taken = 200 <= status < 300
        self.counts["taken" if taken and "repeat" not in more else "repeats" if taken else "refused"] += 1
        self._note(key, status, not withheld and not _gone(request), **more)
        if withheld:
            await self._hold(request)
            if self._behaviour.down:
                return self._drop(request)
        headers = {}
        if behaviour.retry_after is not None and not taken:
            headers["Retry-After"] = str(behaviour.retry_after)
        return web.json_response(answer, status=status, headers=headers)

    def _judge(self, request: web.Request, key: str, body: bytes) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Status, answer and what else the log line says."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or self._tokens.get(token, 0.0) <= asyncio.get_running_loop().time():
            return 401, {"error": "invalid_token"}, {}
        if not key:
            return 400, {"error": "idempotency_key_missing"}, {}
        notice = _notice(request, body)
        if notice is None:
            return 400, {"error": "notice_unreadable"}, {}
        user = self._hash(notice["to"])
        more = {"user": user, "event_id": notice["event_id"]}
        digest = hashlib.sha256(body).digest()
        if key in self._taken:
            known, answer = self._taken[key]
            if known != digest:
                self.counts["changed_bodies"] += 1
                return 422, {"error": "idempotency_mismatch"}, more
            return 200, answer, {**more, "repeat": True}
        first = key not in self._tried
        self._tried.add(key)
        behaviour = self._behaviour
        if first and _share(f"first:{key}") < behaviour.fail_first_share:
            return 503, {"error": "try_again"}, more
        if behaviour.status and not 200 <= behaviour.status < 300:
            return behaviour.status, {"error": "as_told"}, more
        if _share(f"user:{user}") < behaviour.unknown_share:
            return 404, {"error": "unknown_user"}, more
        answer = {"notice_id": f"n-{len(self._taken) + 1}"}
        self._taken[key] = digest, answer
        self._users.add(user)
        return 201, answer, more

    def _hash(self, phone: str) -> str:
        return hmac.digest(self._key, phone.encode(), "sha256").hex()[:32]

    def _note(self, key: str, status: int, answered: bool, **more: Any) -> None:
        verdict = "taken" if 200 <= status < 300 else "refused"
        at = datetime.now(UTC).isoformat()
        line = {"at": at, "id": key, "verdict": verdict, "status": status, "answered": answered, **more}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    async def _hold(self, request: web.Request) -> None:
        self._held[id(request)] = request
        try:
            while self._behaviour.withhold:
                await self._changed.wait()
        finally:
            del self._held[id(request)]

    def _drop(self, request: web.Request) -> web.StreamResponse:
        self.counts["dropped"] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    # -- the control -------------------------------------------------------------------------------

    async def show(self, _: web.Request) -> web.Response:
        names = ("taken", "repeats", "refused", "changed_bodies", "dropped", "tokens_issued", "logins_refused")
        state: dict[str, Any] = {**vars(self._behaviour), **{name: self.counts[name] for name in names}}
        # Of a client that was killed nobody waits for the answer any more.
        withheld = sum(1 for request in self._held.values() if not _gone(request))
        state |= {"withheld": withheld, "users": len(self._users), "tokens_alive": len(self._tokens)}
        if self.questions is not None:
            state |= self.questions.state()
        return web.json_response(state)

    async def change(self, request: web.Request) -> web.Response:
        try:
            given = await request.json()
            if not isinstance(given, dict):
                raise ValueError("an object is needed")
            ask, revoke = given.pop("ask", None), given.pop("revoke_tokens", False)
            forget = given.pop("forget", False)
            behaviour = self._merged(given)
            wanted = _asked(ask) if ask is not None else None
            if wanted is not None and self.questions is None:
                raise ValueError("ask: start the simulator with --webhook-secret")
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self._behaviour = behaviour
        if revoke is True or forget is True:
            self._tokens.clear()
        if forget is True:
            self._forget()
        if wanted is not None and self.questions is not None:
            self.questions.start(wanted)
        # Everybody who holds an answer looks again; whoever starts to hold now waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
        return await self.show(request)

    def _forget(self) -> None:
        self._behaviour = Behaviour()
        self.counts.clear()
        for seen in (self._taken, self._tried, self._users):
            seen.clear()
        if self.questions is not None:
            self.questions.forget()

    def _merged(self, given: dict[str, Any]) -> Behaviour:
        """The behaviour with the given fields; null means as usual. ValueError says what is allowed."""
        for name, value in given.items():
            kinds = _KINDS.get(name)
            if kinds is None:
                raise ValueError(f"unknown field {name!r}; known are {', '.join(_KINDS)}, ask, revoke_tokens, forget")
            if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
                raise ValueError(f"{name}: needs {' or '.join(kind.__name__ for kind in kinds)}")
        usual = vars(Behaviour())
        return replace(self._behaviour, **{name: usual[name] if v is None else v for name, v in given.items()})


class Questions:
    """Workers asking: signed webhooks to the hub, tried again until it answers for good."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._webhook = Webhook(secret)
        self._number = 0
        #: Per kind of question (fresh, repeat, changed, stale), how often each status came.
        self._answers: dict[str, Counter[str]] = {}
        self._ids: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def state(self) -> dict[str, Any]:
        total: Counter[str] = sum(self._answers.values(), Counter())
        by_kind = {kind: dict(counts) for kind, counts in self._answers.items()}
        return {"asking": len(self._tasks), "answers": dict(total), "answers_by_kind": by_kind, "asked": self._ids}

    def forget(self) -> None:
        """What was asked; who still waits for an answer gives up."""
        for task in self._tasks:
            task.cancel()
        self._answers.clear()
        self._ids.clear()

    def start(self, wanted: dict[str, int]) -> None:
        task = asyncio.create_task(self._ask(wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, wanted: dict[str, int]) -> None:
        async with aiohttp.ClientSession() as http:
            for index in range(wanted["count"]):
                message_id, body, now = self._next()
                self._ids.append(message_id)
                await self._post(http, "fresh", message_id, now, body)
                if index < wanted["repeat"]:
                    await self._post(http, "repeat", message_id, now, body)
                if index < wanted["changed"]:
                    other = json.dumps({**json.loads(body), "text": "Câu hỏi khác."})
                    await self._post(http, "changed", message_id, now, other)
            for _ in range(wanted["stale"]):
                message_id, body, now = self._next()
                await self._post(http, "stale", message_id, now - timedelta(minutes=11), body)

    def _next(self) -> tuple[str, str, datetime]:
        self._number += 1
        number, now = self._number, datetime.now(UTC)
        question = {
            "type": "question",
            "id": f"q-{now:%Y%m%d%H%M%S}-{secrets.token_hex(3)}-{number}",
            "worker": {"phone": f"0912555{number % 1000:03}", "name": NAMES[number % len(NAMES)]},
            "text": QUESTIONS[number % len(QUESTIONS)],
            "asked_at": now.isoformat(timespec="seconds"),
            "topic": "luong",
        }
        return f"msg_{secrets.token_hex(12)}", json.dumps(question, ensure_ascii=False), now

    async def _post(self, http: aiohttp.ClientSession, kind: str, message_id: str, at: datetime, body: str) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + ASK_FOR_S
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, at, body),
        }
        status = "unreachable"
        while loop.time() < give_up_at:
            try:
                async with http.post(self._url, data=body.encode(), headers=headers) as answer:
                    status = str(answer.status)
                    if answer.status < 500:
                        break
            except (aiohttp.ClientError, OSError):
                status = "unreachable"
            await asyncio.sleep(ASK_AGAIN_S)
        self._answers.setdefault(kind, Counter())[status] += 1


def _asked(given: Any) -> dict[str, int]:
    """How many questions of which kind; ``10`` asks ten and repeats the first."""
    wanted = {"count": given, "repeat": 1} if type(given) is int else given
    if not isinstance(wanted, dict) or not all(type(n) is int and 0 <= n <= 10_000 for n in wanted.values()):
        raise ValueError("ask: a number, or an object of numbers")
    if unknown := wanted.keys() - set(_ASK_KINDS):
        raise ValueError(f"ask: unknown {sorted(unknown)}; known are {', '.join(_ASK_KINDS)}")
    return {kind: wanted.get(kind, 0) for kind in _ASK_KINDS}


def _basic(header: str) -> tuple[str, str] | None:
    """Source: RFC 6749 section 2.3.1: both halves are form-encoded inside Basic."""
    scheme, _, value = header.partition(" ")
    if scheme != "Basic":
        return None
    try:
        name, _, password = b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return unquote_plus(name), unquote_plus(password)


def _notice(request: web.Request, body: bytes) -> dict[str, str] | None:
    if request.content_type != "application/json":
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    fields = ("to", "title", "body", "event_id")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in fields):
        return None
    return found if found["to"].startswith("+84") and found["body"] else None


def _share(text: str) -> float:
    """A number from 0 to 1 that is always the same for ``text``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def listen(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    # Answers still held back must not delay the end.
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, runner.addresses[0][1]


async def serve(arguments: argparse.Namespace) -> None:
    key = bytes.fromhex(arguments.key) if arguments.key else secrets.token_bytes(32)
    with arguments.log.open("a", encoding="utf-8") as log:
        client = (arguments.client_id, arguments.client_secret)
        app = CitizenApp(log, client, key, arguments.token_life_s)
        if arguments.webhook_secret:
            url = f"{arguments.hub_url.rstrip('/')}/in/{arguments.connection}"
            app.questions = Questions(url, arguments.webhook_secret)
        service = web.Application(client_max_size=BODY_BYTES)
        service.router.add_post("/oauth/token", app.token)
        service.router.add_post("/api/v1/push", app.push)
        control = web.Application()
        control.router.add_get("/control", app.show)
        control.router.add_put("/control", app.change)
        stop = asyncio.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)
        runner, port = await listen(service, arguments.port)
        control_runner, control_port = await listen(control, arguments.control_port)
        print(json.dumps({"ready": True, "port": port, "control": control_port}), flush=True)
        await stop.wait()
        await runner.cleanup()
        await control_runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--client-id", default="union-hub")
    parser.add_argument("--client-secret", required=True)
    parser.add_argument("--webhook-secret", help="whsec_... that questions are signed with")
    parser.add_argument("--hub-url", default="http://127.0.0.1:8080", help="where questions are posted")
    parser.add_argument("--connection", default="c-thainguyen")
    parser.add_argument("--key", help="hex key of the hashes that stand for phones in the log")
    parser.add_argument("--token-life-s", type=float, default=3600.0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
