"""The app and a whole hub: a campaign reaches the app's users, their questions reach the ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from hub import views
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.model import Audience, Draft, Json
from hub.plugins import load_plugins
from hub.testing import eventually, registry_of, running_hub
from hub.web import server
from tests.engines import ON_BOTH, stored_bytes
from tests.plugins.citizen_app.conftest import CLIENT_SECRET, WEBHOOK_SECRET, Simulator

CAMPAIGN = "vn.congdoan.campaign.announced.v1"
QUESTION = "vn.congdoan.question.asked.v1"


class People:
    """Twenty members, all with the app; ``gone`` have left the union."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        yield [f"m-{n:02}" for n in range(20)]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        return {s: f"+849125550{s[2:]}" for s in subjects} if channel == "app" else {}

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return "left_the_union" if subject in self.gone else None


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
async def hub(
    tmp_path: Path,
    simulator: Simulator,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    hub_port: int,
    database_url: str,
) -> AsyncIterator[HubApp]:
    monkeypatch.setenv("APP_SECRET", CLIENT_SECRET)
    monkeypatch.setenv("HOOK", WEBHOOK_SECRET)
    settings = {
        "base_url": simulator.url,
        "client_id": "union-hub",
        "client_secret": {"env": "APP_SECRET"},
        "webhook_secrets": [{"env": "HOOK"}],
        "timeout_s": 0.5,
    }
    async with running_hub(
        tmp_path,
        registry_of(load_plugins(), directory=lambda _: people),
        connections={"c-thainguyen": {"type": "citizen_app", "settings": settings}},
        subscriptions=[
            {"name": "s", "types": [CAMPAIGN], "to_each": {"app": "c-thainguyen"}, "fields": ["title", "text"]}
        ],
        settings={
            "retry": {"schedule_s": [0.05] * 20},
            "breaker": {"failures": 1000},
            "database_url": database_url,
        },
    ) as hub:
        runner = server.runner(server.build(hub))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", hub_port).start()
        yield hub
        await runner.cleanup()


async def announce(hub: HubApp, campaign: str = "kham-suc-khoe") -> None:
    data = {"campaign_id": campaign, "title": "Thông báo", "text": "Mời đoàn viên khám sức khỏe."}
    audience = Audience({}, ("app", "phone"), "care")
    draft = Draft(type=CAMPAIGN, source="/campaigns", dedupe_key=campaign, data=data, audience=audience)
    await hub.commit(UnitOfWork(drafts=[draft]))


async def settled(hub: HubApp, count: int = 20) -> list[Json]:
    async def all_settled() -> list[Json]:
        found = await views.deliveries(hub.store, limit=100)
        done = [d for d in found if d["state"] in ("delivered", "dead", "cancelled")]
        return done if len(done) == count else []

    answer: list[Json] = await eventually(all_settled, 20)
    return answer


def states(deliveries: list[Json]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in deliveries:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
    return counts


@ON_BOTH
async def test_a_campaign_reaches_every_user_once_with_one_login(hub: HubApp, simulator: Simulator) -> None:
    await announce(hub)

    assert states(await settled(hub)) == {"delivered": 20}
    state = await simulator.state()
    assert (state["taken"], state["users"], state["repeats"], state["tokens_issued"]) == (20, 20, 0, 1)
    taken = {line["id"] for line in simulator.lines() if line["verdict"] == "taken"}
    assert taken == {d["id"] for d in await settled(hub)}


@ON_BOTH
async def test_first_refusals_lost_answers_and_a_revoked_token_leave_one_notice_each(
    hub: HubApp, simulator: Simulator
) -> None:
    await simulator.put(fail_first_share=0.3, withhold=True)
    await announce(hub)
    # The first tries time out with their answers held back; their repeats must not be second notices.
    await simulator.until(lambda state: state["repeats"] > 0)
    await simulator.put(revoke_tokens=True)
    await simulator.put(withhold=False)

    assert states(await settled(hub)) == {"delivered": 20}
    state = await simulator.state()
    assert (state["taken"], state["users"], state["changed_bodies"]) == (20, 20, 0)


async def test_users_the_app_does_not_know_are_dead_with_the_reason_and_hurt_nobody(
    hub: HubApp, simulator: Simulator
) -> None:
    await simulator.put(unknown_share=0.4)
    await announce(hub)
    found = await settled(hub)

    dead = [d for d in found if d["state"] == "dead"]
    assert 0 < len(dead) < 20
    assert {d["reason"].partition(" ")[0] for d in dead} == {"no_such_user"}
    assert (await simulator.state())["taken"] == 20 - len(dead)


async def test_who_left_the_union_is_not_written_to(hub: HubApp, simulator: Simulator, people: People) -> None:
    people.gone = {"m-03", "m-07"}
    await announce(hub)

    assert states(await settled(hub)) == {"delivered": 18, "cancelled": 2}
    assert (await simulator.state())["taken"] == 18


@ON_BOTH
async def test_workers_questions_are_stored_once_and_sealed(hub: HubApp, simulator: Simulator) -> None:
    await simulator.put(ask={"count": 5, "repeat": 2, "changed": 1, "stale": 1})
    state = await simulator.until(lambda s: "stale" in s["answers_by_kind"])

    assert state["answers_by_kind"] == {
        "fresh": {"202": 5},
        "repeat": {"202": 2},
        "changed": {"409": 1},
        "stale": {"401": 1},
    }
    stored = await hub.store.read("SELECT subject FROM event WHERE type = ?", (QUESTION,))
    assert len(stored) == 5
    assert len({subject for (subject,) in stored}) == 5
    raw = await stored_bytes(hub)
    assert b"0912555" not in raw and b"+84912555" not in raw and "Nguyễn Thị Mẫu".encode() not in raw


@ON_BOTH
async def test_a_genuine_body_we_cannot_read_is_kept_for_a_person(
    hub: HubApp, simulator: Simulator, hub_port: int
) -> None:
    body, now = orjson.dumps({"type": "rating", "stars": 5}), datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_rating",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(WEBHOOK_SECRET).sign("msg_rating", now, body.decode()),
    }
    url = f"http://127.0.0.1:{hub_port}/in/c-thainguyen"
    async with simulator.http.post(url, data=body, headers=headers) as answer:
        assert answer.status == 202

    (repair,) = await views.repairs(hub.store)
    assert repair["kind"] == "not_understood"


def test_the_first_import_is_light() -> None:
    code = (
        "import plugins.citizen_app, sys; print([m for m in ('lxml', 'phonenumbers', 'alembic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
