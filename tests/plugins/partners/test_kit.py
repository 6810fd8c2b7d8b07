"""The receiver kit in every language whose runtime is here, under the exam and under hostile requests."""

from __future__ import annotations

import asyncio
import base64
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from yarl import URL

from hub.contract import Hub
from hub.http import exchange, open_session
from hub.signing import new_private_key, new_secret, parse_private_key, parse_secret, public_key, sign, sign_v1a
from plugins.partners import exam
from plugins.partners import params as p
from plugins.partners.exam import TASKS, render
from plugins.partners.settings import PartnersSettings

KIT = Path(exam.__file__).parent / "kit"
BODY = b'{"a":"\xc4\x90"}'


@dataclass(frozen=True)
class Kit:
    command: tuple[str, ...]
    runtime: str


KITS = {
    "python": Kit((sys.executable, str(KIT / "unionhub_receiver.py")), sys.executable),
    "node": Kit(("node", str(KIT / "unionhub_receiver.mjs")), "node"),
    "java": Kit(("java", "-XX:TieredStopAtLevel=1", str(KIT / "UnionHubReceiver.java")), "java"),
}
IN_EACH = pytest.mark.parametrize(
    "kit",
    [
        pytest.param(kit, id=name, marks=pytest.mark.skipif(not shutil.which(kit.runtime), reason=f"no {name} here"))
        for name, kit in KITS.items()
    ],
)


class Server:
    """The kit's try-out server in its own process."""

    def __init__(self, process: asyncio.subprocess.Process, url: URL) -> None:
        self.url = url
        self._process = process
        self.seen: list[str] = []

    async def done(self) -> str:
        """The next event it says it has done."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().split()[1]

    async def post(self, headers: dict[str, str], body: bytes = BODY, method: str = "POST") -> tuple[int, bytes]:
        async with open_session() as session:
            reply = await exchange(session, method, self.url, headers=headers, data=body, deadline_s=20)
        assert reply.failure is None, reply.failure
        return reply.status, reply.answer


@asynccontextmanager
async def serving(kit: Kit, folder: Path, *keys: str, port: int = 0) -> AsyncIterator[Server]:
    (folder / "keys").write_text("\n".join(keys) + "\n")
    options = ("--port", str(port), "--keys", str(folder / "keys"), "--ids", str(folder / "ids"))
    process = await asyncio.create_subprocess_exec(*kit.command, *options, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int((await process.stdout.readline()).split()[1])
        yield Server(process, URL(f"http://127.0.0.1:{port}/"))
    finally:
        process.kill()
        await process.wait()


@dataclass
class Signer:
    """Signs as the hub does, with whatever a test changes."""

    secret: str
    private: str
    at: Callable[[], datetime] = lambda: datetime.now(UTC)

    def headers(self, id: str, body: bytes = BODY, *, late_s: int = 0, kind: str = "v1") -> dict[str, str]:
        timestamp = int(self.at().timestamp()) - late_s
        if kind == "v1":
            signature = sign(parse_secret(self.secret), id, timestamp, body)
        else:
            signature = sign_v1a(parse_private_key(self.private), id, timestamp, body)
        return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


@IN_EACH
async def test_a_kit_takes_what_is_signed_either_way_once_and_refuses_everything_else(kit: Kit, tmp_path: Path) -> None:
    signer = Signer(new_secret(), new_private_key())
    public = public_key(parse_private_key(signer.private))
    async with serving(kit, tmp_path, signer.secret, public) as server:
        for kind in ("v1", "v1a"):
            for answer in (b"new", b"repeat", b"repeat"):
                assert await server.post(signer.headers(f"m-{kind}", kind=kind)) == (200, answer)
            assert await server.done() == f"m-{kind}"
        good, good_a = signer.headers("m-9"), signer.headers("m-9", kind="v1a")
        forged = sign(base64.b64decode(public[5:]), "m-9", int(good["webhook-timestamp"]), BODY)
        several = " ".join(["v1,AAAA", "v1a,!!", "x", good["webhook-signature"]])
        assert await server.post({**good, "webhook-signature": several}) == (200, b"new")
        too_many = " ".join(["v1,AAAA"] * 8 + [good["webhook-signature"]])
        for wrong in (
            {}, {**good, "webhook-signature": ""}, {**good, "webhook-signature": "v1,"}, {**good, "webhook-id": "m.9"},
            {**good, "webhook-id": "m-8"}, {**good, "webhook-timestamp": good["webhook-timestamp"] + "0"},
            *({**good, "webhook-timestamp": each} for each in ("nan", "1e9", "-1", "")),
            {**good, "webhook-signature": good["webhook-signature"].replace("v1,", "v1a,")},
            {**good, "webhook-signature": good_a["webhook-signature"].replace("v1a,", "v1,")},
            {**good, "webhook-signature": forged}, {**good, "webhook-signature": forged.replace("v1,", "v1a,")},
            {**good, "webhook-signature": too_many}, {**good, "webhook-signature": "v1,,,, v1a v1a,AA==  ,"},
            {**good, "webhook-signature": "v1," + good["webhook-signature"][3:].swapcase()},
            signer.headers("m-7", late_s=310), signer.headers("m-7", late_s=-310), signer.headers("m-7", b"other"),
            Signer(new_secret(), new_private_key()).headers("m-7"),
            Signer(new_secret(), new_private_key()).headers("m-7", kind="v1a"),
        ):  # fmt: skip
            assert await server.post(wrong) == (401, b"refused"), wrong
        assert (await server.post(signer.headers("m-6"), b"x" * (2 * 1024 * 1024 + 1)))[0] == 413


@IN_EACH
async def test_a_kit_remembers_over_a_restart(kit: Kit, tmp_path: Path) -> None:
    signer = Signer(new_secret(), new_private_key())
    for answer in (b"new", b"repeat"):
        async with serving(kit, tmp_path, signer.secret) as server:
            assert await server.post(signer.headers("m-1")) == (200, answer)


# -- the exam ------------------------------------------------------------------------------------------


class Examiner:
    """The part of a hub that the exam asks: the time, and whether a connection lets inside networks in."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def settings_of(self, kind: type[Any]) -> dict[str, Any]:
        return {"doi-tac": PartnersSettings(allow_networks=("127.0.0.0/8",))} if kind is PartnersSettings else {}


async def examined(url: URL, secret: str, folder: Path) -> dict[str, Any]:
    (folder / "secret").write_text(secret + "\n")
    given = p.ExamParams(url=str(url), secret_file=folder / "secret")
    return await exam.examine(cast(Hub, Examiner()), given, lambda said: None)


@IN_EACH
async def test_a_kit_passes_the_exam(kit: Kit, tmp_path: Path) -> None:
    secret = new_secret()
    async with serving(kit, tmp_path, secret) as server:
        found = await examined(server.url, secret, tmp_path)
        assert [(each["task"], each["passed"]) for each in found["tasks"]] == [(task.name, True) for task in TASKS]
        assert not found["failed"]
        wrong = await examined(server.url, new_secret(), tmp_path)
        assert wrong["failed"] and not wrong["tasks"][0]["passed"]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b"HTTP/1.1 200 OK", {"late", "bad_signature"}),
        (b"HTTP/1.1 401 No", {task.name for task in TASKS if task.taken}),
        (b"HTTP/1.1 500 Oops", {task.name for task in TASKS}),
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/", {task.name for task in TASKS}),
    ],
)
async def test_a_receiver_that_does_not_look_fails_with_the_reason(
    tmp_path: Path, answer: bytes, failed: set[str]
) -> None:
    from tests.plugins.partners.test_guard import Listener, listening

    async with listening(Listener(answer + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), "127.0.0.1") as one:
        found = await examined(URL(f"http://127.0.0.1:{one.port}/"), new_secret(), tmp_path)
    assert {each["task"] for each in found["tasks"] if not each["passed"]} == failed
    assert {each["why"] for each in found["tasks"]} == {f"http_{answer[9:12].decode()}"}
    for lang, word in (("vi", "KHÔNG ĐẠT"), ("en", "FAIL")):
        assert render(found, lang).count(word) == len(failed)
    assert max(map(len, one.bodies)) == 1024 * 1024
