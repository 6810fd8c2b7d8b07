"""The simulator is what the ledger is balanced against, so it has to be right itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from plugins.citizen_app.settings import CitizenAppSettings
from plugins.citizen_app.simulated import SIMULATOR
from tests.plugins.citizen_app.conftest import CLIENT_SECRET, PHONE, WEBHOOK_SECRET, Simulator

NOTICE = {"to": PHONE, "title": "a", "body": "b", "event_id": "e-1"}


async def login(simulator: Simulator, **more: str) -> tuple[int, dict[str, Any]]:
    form = {"grant_type": "client_credentials", "client_id": "union-hub", "client_secret": CLIENT_SECRET, **more}
    async with simulator.http.post(f"{simulator.url}/oauth/token", data=form) as answer:
        return answer.status, await answer.json()


async def push(simulator: Simulator, key: str, token: str, notice: Any = NOTICE) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
    async with simulator.http.post(f"{simulator.url}/api/v1/push", json=notice, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.fixture
async def token(simulator: Simulator) -> str:
    status, answer = await login(simulator)
    assert (status, answer["token_type"]) == (200, "Bearer")
    return str(answer["access_token"])


async def test_a_login_needs_the_right_secret_and_grant(simulator: Simulator) -> None:
    assert (await login(simulator, client_secret="x"))[0] == 401
    assert (await login(simulator, client_id="x"))[0] == 401
    assert (await login(simulator, grant_type="password"))[0] == 400


async def test_the_same_key_gives_the_same_answer_and_counts_as_a_repeat(simulator: Simulator, token: str) -> None:
    first = await push(simulator, "k-1", token)
    second = await push(simulator, "k-1", token)

    assert (first[0], second[0]) == (201, 200)
    assert first[1] == second[1]
    state = await simulator.state()
    assert (state["taken"], state["repeats"], state["refused"], state["users"]) == (1, 1, 0, 1)
    assert [line.get("repeat", False) for line in simulator.lines()] == [False, True]


REFUSED = {
    "another body under the same key": ("k-1", {**NOTICE, "body": "c"}, 422),
    "no key": ("", NOTICE, 400),
    "no phone": ("k-2", {**NOTICE, "to": "912555123"}, 400),
    "no text": ("k-3", {**NOTICE, "body": ""}, 400),
    "a list": ("k-4", [NOTICE], 400),
}


@pytest.mark.parametrize(("key", "notice", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_and_logged_as_refused_is(
    simulator: Simulator, token: str, key: str, notice: Any, status: int
) -> None:
    await push(simulator, "k-1", token)
    assert (await push(simulator, key, token, notice))[0] == status

    line = simulator.lines()[-1]
    assert (line["verdict"], line["status"], line["id"]) == ("refused", status, key)


async def test_a_revoked_token_opens_nothing(simulator: Simulator, token: str) -> None:
    await simulator.put(revoke_tokens=True)

    assert (await push(simulator, "k-1", token))[0] == 401
    assert (await simulator.state())["taken"] == 0


async def test_the_log_holds_no_readable_phone_or_text(simulator: Simulator, token: str) -> None:
    await push(simulator, "k-1", token, {**NOTICE, "title": "TITLE", "body": "TEXT"})

    raw = simulator.log.read_text()
    assert not any(word in raw for word in (PHONE[3:], "TITLE", "TEXT", token))
    assert len(simulator.lines()[0]["user"]) == 32


async def test_shares_are_decided_by_key_and_user_not_by_chance(simulator: Simulator, token: str) -> None:
    await simulator.put(fail_first_share=1.0)
    assert (await push(simulator, "k-1", token))[0] == 503
    assert (await push(simulator, "k-1", token))[0] == 201

    await simulator.put(fail_first_share=0.0, unknown_share=1.0)
    assert await push(simulator, "k-2", token) == (404, {"error": "unknown_user"})


async def test_an_answer_withheld_was_processed_and_keeps_its_one_line(simulator: Simulator, token: str) -> None:
    await simulator.put(withhold=True)
    waiting = asyncio.create_task(push(simulator, "k-1", token))
    await simulator.until(lambda state: state["withheld"] == 1)

    (line,) = simulator.lines()
    assert (line["verdict"], line["answered"]) == ("taken", False)
    await simulator.put(withhold=False)
    assert (await waiting)[0] == 201
    assert len(simulator.lines()) == 1


async def test_a_quota_is_played_with_its_retry_after(simulator: Simulator, token: str) -> None:
    await simulator.put(status=429, retry_after=3)
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k-1"}
    async with simulator.http.post(f"{simulator.url}/api/v1/push", json=NOTICE, headers=headers) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize(
    "change", [{"wihthold": True}, {"withhold": 1}, {"slow_ms": "x"}, {"ask": -1}, {"ask": {"n": 1}}, {"ask": True}]
)
async def test_a_control_that_is_not_understood_changes_nothing(simulator: Simulator, change: dict[str, Any]) -> None:
    before = await simulator.state()
    assert (await simulator.put(down=True, **change))["http"] == 400

    assert await simulator.state() == before


async def test_workers_ask_until_the_hub_answers(simulator: Simulator, hub_port: int) -> None:
    seen: list[tuple[str, str]] = []
    answers = [503]

    async def take(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        if answers:
            return web.Response(status=answers.pop())
        try:
            Webhook(WEBHOOK_SECRET).verify(body, dict(request.headers))
        except WebhookVerificationError:
            return web.Response(status=401)
        known = dict(seen)
        seen.append((request.headers["webhook-id"], body))
        return web.Response(status=202 if known.get(seen[-1][0], body) == body else 409)

    app = web.Application()
    app.router.add_post("/in/c-thainguyen", take)
    # The hub is away when the first question is asked.
    await simulator.put(ask={"count": 3, "repeat": 1, "changed": 1, "stale": 1})
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", hub_port).start()
    state = await simulator.until(lambda s: s["answers_by_kind"].get("stale") is not None)
    await runner.cleanup()

    assert state["answers_by_kind"] == {
        "fresh": {"202": 3},
        "repeat": {"202": 1},
        "changed": {"409": 1},
        "stale": {"401": 1},
    }
    assert state["answers"] == {"202": 4, "409": 1, "401": 1}
    assert seen[0] == seen[1]
    question = json.loads(seen[0][1])
    assert (question["type"], question["worker"]["phone"][:7]) == ("question", "0912555")
    assert set(state["asked"]) >= {id for id, _ in seen}


@pytest.mark.parametrize(("port", "control"), [(18082, 19082), (45000, 0)])
def test_it_is_started_for_the_connection_that_is_configured(tmp_path: Path, port: int, control: int) -> None:
    settings = CitizenAppSettings.model_validate(
        {
            "base_url": f"http://127.0.0.1:{port}",
            "client_id": "union-hub",
            "client_secret": {"env": "A"},
            "webhook_secrets": [{"env": "B"}],
        }
    )
    arguments = SIMULATOR.arguments({"c-thainguyen": settings}, lambda ref: f"secret-{ref.env}", tmp_path)

    assert list(arguments) == [
        "--port", str(port), "--control-port", str(control), "--connection", "c-thainguyen", "--client-id", "union-hub",
        "--client-secret", "secret-A", "--webhook-secret", "secret-B",
    ]  # fmt: skip
