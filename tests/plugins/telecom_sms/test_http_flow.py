"""An HTTP carrier through a running hub and its real server: messages out, reports in by GET and POST."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hub import views
from hub.app import HubApp
from hub.plugins import Registry
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from hub.web import server
from plugins.telecom_sms.simulator.esms import Esms

from .http_support import SECRET_PATH, OpenedHttp, opened_http
from .test_flow import ANNOUNCED, People, announce, installed, outcome

__all__ = ["installed"]  # a fixture


@asynccontextmanager
async def hub_behind_its_server(
    folder: Path, installed: Registry, people: People, carrier_port: int
) -> AsyncIterator[tuple[HubApp, str]]:
    """The hub, and where the carrier reaches it."""
    (folder / "config").mkdir()
    for name, value in (("key", "s3cret"), ("path", SECRET_PATH)):
        file = folder / "config" / name
        file.touch(mode=0o600)
        file.write_text(value)
    listening = socket.create_server(("127.0.0.1", 0))
    public = f"http://127.0.0.1:{listening.getsockname()[1]}"
    registry = registry_of(
        installed, event_types=[plain_event_type(ANNOUNCED, thin=("text",))], directory=lambda hub: people
    )
    settings = {
        "base_url": f"http://127.0.0.1:{carrier_port}", "sender": "CONGDOAN", "api_key": {"file": "key"},
        "secret_key": {"file": "key"}, "receipt_path": {"file": "path"}, "public_url": public, "quiet_hours": False,
    }  # fmt: skip
    async with running_hub(
        folder,
        registry,
        connections={"sms": {"type": "sms_esms", "settings": settings}},
        subscriptions=[{"name": "campaign", "types": [ANNOUNCED], "to_each": {"phone": "sms"}}],
        settings={"retry": {"schedule_s": [0.05] * 20}, "worker": {"attempt_deadline_s": 4, "lease_s": 10}},
    ) as hub:
        runner = server.runner(server.build(hub, ""))
        await runner.setup()
        await web.SockSite(runner, listening).start()
        yield hub, f"{public}/in/sms"
        await runner.cleanup()


def port_of(opened: OpenedHttp) -> int:
    return int(opened.settings.base_url.rpartition(":")[2])


async def test_lost_answers_duplicates_and_reports_twice_end_as_one_message_each(
    tmp_path: Path, installed: Registry
) -> None:
    people = People(30)
    behaviour = {"lose_share": 0.2, "receipt_repeat_share": 0.5, "undeliv_share": 0.2}
    async with (
        opened_http("esms", behaviour) as carrier,
        hub_behind_its_server(tmp_path, installed, people, port_of(carrier)) as (hub, _),
    ):
        assert isinstance(carrier.simulator, Esms)
        await announce(hub, "Chúc mừng năm mới")

        async def done() -> bool:
            return len(await views.deliveries(hub.store)) == 31 and not await views.unsettled(hub.store)

        await eventually(done, 20)
        rows = await views.deliveries(hub.store, limit=100)
        ended = [row["state"] for row in rows]
        assert ended.count("delivered") + ended.count("dead") == 30 and ended.count("cancelled") == 1
        assert 0 < ended.count("dead") < 15
        assert carrier.simulator.counts["lost"] > 0 and carrier.simulator.counts["duplicates"] > 0
        assert len(carrier.taken()) == len(set(carrier.taken())) == 30


async def test_forged_reports_move_nothing_and_an_answered_one_stands_for_ever(
    tmp_path: Path, installed: Registry
) -> None:
    async with (
        opened_http("esms", {"receipt_lose_share": 1.0}) as carrier,
        hub_behind_its_server(tmp_path, installed, People(1), port_of(carrier)) as (hub, url),
        aiohttp.ClientSession() as http,
    ):
        await announce(hub, "Chào")
        await outcome(hub, accepted=1, cancelled_same_recipient=1)
        asked = json.loads(carrier.recorded()[2])
        good = {"RequestId": asked["RequestId"], "SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}
        bad = {**good, "SendSuccess": "0", "SendFailed": "1"}

        async def told(path: str, method: str = "GET", **content: Any) -> int:
            async with http.request(method, f"{url}/{path}", **content) as answer:
                return answer.status

        assert await told("guessed", params=good) == 401
        assert await told(SECRET_PATH, params={**good, "RequestId": "0" * 40}) == 200
        assert await told(SECRET_PATH, "PUT", params=good) == 405
        await outcome(hub, accepted=1, cancelled_same_recipient=1)
        assert await told(SECRET_PATH, "POST", json=good) == 200
        await outcome(hub, delivered=1, cancelled_same_recipient=1)
        statuses = await asyncio.gather(*(told(SECRET_PATH, params=each) for each in (bad, good, bad)))
        assert statuses == [200, 200, 200]
        await outcome(hub, delivered=1, cancelled_same_recipient=1)
