"""Pushes: one token for many, one renewal, and every answer its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from hub.contract import Admit, Cancel, Connection, Delivered, Outcome, Refused, RetryLater, Scope, Sink
from tests.plugins.citizen_app.conftest import (
    CLIENT_SECRET,
    PHONE,
    TEXT,
    Open,
    Simulator,
    event,
    free_port,
    shipment,
)


def sink_of(connection: Connection) -> Sink:
    assert connection.sink is not None
    return connection.sink


async def send(connection: Connection, **more: Any) -> Outcome:
    return await sink_of(connection).send(shipment(connection, **more))


async def test_a_notice_arrives_under_the_deliverys_id(simulator: Simulator, open_app: Open) -> None:
    connection = open_app(simulator.url)
    sent = shipment(connection)

    outcome = await sink_of(connection).send(sent)

    assert isinstance(outcome, Delivered)
    assert outcome.exchange is not None and outcome.exchange.status == 201
    (line,) = simulator.lines()
    assert (line["id"], line["verdict"], line["answered"]) == (str(sent.delivery_id), "taken", True)
    assert line["event_id"] == str(sent.event.id)


async def test_the_same_delivery_sent_again_is_one_notice(simulator: Simulator, open_app: Open) -> None:
    connection = open_app(simulator.url)
    sent = shipment(connection)

    for _ in range(2):
        assert isinstance(await sink_of(connection).send(sent), Delivered)

    state = await simulator.state()
    assert (state["taken"], state["repeats"], state["changed_bodies"]) == (1, 1, 0)
    assert sink_of(connection).resend_is_safe


async def test_the_same_delivery_with_another_body_is_refused_for_good(simulator: Simulator, open_app: Open) -> None:
    connection = open_app(simulator.url)
    sent = shipment(connection)
    await sink_of(connection).send(sent)

    outcome = await sink_of(connection).send(replace(sent, address="+84912555124"))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.scope) == ("idempotency_mismatch", Scope.DELIVERY)


def test_the_body_is_a_pure_function_of_the_event(open_app: Open) -> None:
    sink = sink_of(open_app("http://127.0.0.1:1"))
    one = event()
    turned = replace(one, data=dict(reversed(one.data.items())))

    assert sink.render(one) == sink.render(turned) == orjson.dumps({"text": TEXT, "title": "Thông báo"})


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({}, Admit()),
        ({"address": None}, Cancel("no_address")),
        ({"body": b'{"text":"","title":"x"}'}, Cancel("no_text")),
    ],
)
async def test_only_a_notice_with_address_and_text_is_admitted(
    open_app: Open, more: dict[str, Any], answer: object
) -> None:
    connection = open_app("http://127.0.0.1:1")

    assert await sink_of(connection).admit(shipment(connection, **more)) == answer


# -- the token -------------------------------------------------------------------------------------


async def test_many_pushes_at_once_share_one_login(simulator: Simulator, open_app: Open) -> None:
    connection = open_app(simulator.url, concurrency=20)

    outcomes = await asyncio.gather(*(send(connection) for _ in range(20)))

    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    state = await simulator.state()
    assert (state["tokens_issued"], state["taken"]) == (1, 20)


async def test_a_revoked_token_is_renewed_once_for_all_and_no_push_is_lost(
    simulator: Simulator, open_app: Open
) -> None:
    connection = open_app(simulator.url, concurrency=20)
    await send(connection)
    await simulator.put(revoke_tokens=True)

    outcomes = await asyncio.gather(*(send(connection) for _ in range(20)))

    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert (await simulator.state())["tokens_issued"] == 2


async def test_a_wrong_secret_stops_the_connection_and_not_the_deliveries(simulator: Simulator, open_app: Open) -> None:
    outcome = await send(open_app(simulator.url, client_secret={"env": "WRONG"}))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.scope) == ("auth_failed", Scope.CONNECTION)
    assert simulator.lines() == []


class Scripted:
    """An app that answers as it is told: status, headers and body by path."""

    def __init__(self) -> None:
        self.push: list[tuple[int, dict[str, str], bytes]] = []
        self.token: list[tuple[int, dict[str, str], bytes]] = []
        self.logins = 0

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        if request.path == "/oauth/token":
            self.logins += 1
            script, usual = self.token, (200, {}, b'{"access_token":"tok-1","token_type":"bearer"}')
        else:
            script, usual = self.push, (201, {}, b"{}")
        status, headers, body = script.pop(0) if script else usual
        return web.Response(status=status, headers=headers, body=body)


@pytest.fixture
async def scripted() -> Any:
    app = web.Application()
    script = Scripted()
    app.router.add_post("/{path:.*}", script.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield script, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


TOKEN_ANSWERS = {
    "invalid client": ((400, {}, b'{"error":"invalid_client"}'), Refused, "auth_failed", Scope.CONNECTION),
    "forbidden": ((403, {}, b""), Refused, "auth_failed", Scope.CONNECTION),
    "a wrong path": ((404, {}, b"<html>"), Refused, "no_such_path", Scope.CONNECTION),
    "a fault": ((500, {}, b""), RetryLater, "token_http_500", Scope.DELIVERY),
    "a pause": ((503, {"Retry-After": "7"}, b""), RetryLater, "token_http_503", Scope.DESTINATION),
    "no JSON": ((200, {}, b"welcome"), RetryLater, "token_unreadable", Scope.DELIVERY),
    "no token": ((200, {}, b"{}"), RetryLater, "token_unreadable", Scope.DELIVERY),
    "a list": ((200, {}, b"[]"), RetryLater, "token_unreadable", Scope.DELIVERY),
    "a token that breaks the header": (
        (200, {}, b'{"access_token":"a\\r\\nX: y"}'),
        RetryLater,
        "token_unreadable",
        Scope.DELIVERY,
    ),
    "another kind of token": (
        (200, {}, b'{"access_token":"a","token_type":"mac"}'),
        RetryLater,
        "token_unreadable",
        Scope.DELIVERY,
    ),
}


@pytest.mark.parametrize(("answer", "kind", "reason", "scope"), TOKEN_ANSWERS.values(), ids=TOKEN_ANSWERS.keys())
async def test_a_login_that_is_answered_with(
    scripted: Any, open_app: Open, answer: Any, kind: type, reason: str, scope: Scope
) -> None:
    script, url = scripted
    script.token = [answer]
    outcome = await send(open_app(url))

    assert isinstance(outcome, kind)
    assert isinstance(outcome, Refused | RetryLater)
    assert (outcome.reason, outcome.scope) == (reason, scope)
    assert not getattr(outcome, "ambiguous", False)
    assert outcome.exchange is not None and outcome.exchange.answer == b""


PUSH_ANSWERS = {
    "unknown user": ((404, {}, b'{"error":"unknown_user"}'), Refused, "no_such_user", Scope.RECIPIENT),
    "another 404": ((404, {}, b"<html>not here</html>"), Refused, "no_such_path", Scope.CONNECTION),
    "no right": ((403, {}, b""), Refused, "not_allowed", Scope.CONNECTION),
    "bad request": ((400, {}, b"[]"), Refused, "rejected", Scope.DELIVERY),
    "unprocessable": ((422, {}, b'{"error":"x"}'), Refused, "rejected", Scope.DELIVERY),
    "too large": ((413, {}, b""), Refused, "rejected", Scope.DELIVERY),
    "too many": ((429, {"Retry-After": "30"}, b""), RetryLater, "http_429", Scope.DESTINATION),
    "unavailable": ((503, {}, b""), RetryLater, "http_503", Scope.DELIVERY),
    "a fault": ((500, {}, b""), RetryLater, "http_500", Scope.DELIVERY),
    "a redirect": ((302, {"Location": "http://x"}, b""), RetryLater, "http_302", Scope.DELIVERY),
}


@pytest.mark.parametrize(("answer", "kind", "reason", "scope"), PUSH_ANSWERS.values(), ids=PUSH_ANSWERS.keys())
async def test_a_push_that_is_answered_with(
    scripted: Any, open_app: Open, answer: Any, kind: type, reason: str, scope: Scope
) -> None:
    script, url = scripted
    script.push = [answer]
    outcome = await send(open_app(url))

    assert isinstance(outcome, kind)
    assert isinstance(outcome, Refused | RetryLater)
    assert (outcome.reason, outcome.scope) == (reason, scope)
    if isinstance(outcome, RetryLater) and answer[1].get("Retry-After"):
        assert outcome.after == timedelta(seconds=30)


async def test_a_token_refused_twice_stops_the_connection_after_one_renewal(scripted: Any, open_app: Open) -> None:
    script, url = scripted
    script.push = [(401, {}, b""), (401, {}, b"")]
    outcome = await send(open_app(url))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.scope) == ("auth_failed", Scope.CONNECTION)
    assert script.logins == 2


@pytest.mark.parametrize(("life", "logins"), [(3600, 1), (0.000001, 2), ("soon", 1), (True, 1), (-5, 1), (1e300, 1)])
async def test_a_token_is_kept_for_the_life_it_was_given(scripted: Any, open_app: Open, life: Any, logins: int) -> None:
    script, url = scripted
    script.token = 2 * [(200, {}, orjson.dumps({"access_token": "t", "expires_in": life}))]
    connection = open_app(url)

    for _ in range(2):
        assert isinstance(await send(connection), Delivered)
    assert script.logins == logins


# -- the network -----------------------------------------------------------------------------------


async def test_an_app_that_is_down_is_tried_later(simulator: Simulator, open_app: Open) -> None:
    connection = open_app(simulator.url)
    await send(connection)
    await simulator.put(down=True)

    outcome = await send(connection)

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.ambiguous) == ("disconnected", True)


async def test_nobody_listening_is_told_at_the_login_and_is_not_ambiguous(open_app: Open) -> None:
    outcome = await send(open_app(f"http://127.0.0.1:{free_port()}"))

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.ambiguous) == ("token_connect", False)


async def test_an_answer_withheld_too_long_is_ambiguous_and_its_repeat_is_one_notice(
    simulator: Simulator, open_app: Open
) -> None:
    connection = open_app(simulator.url)
    await send(connection)
    await simulator.put(withhold=True)
    sent = shipment(connection, deadline_s=0.2)

    outcome = await sink_of(connection).send(sent)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.ambiguous) == ("timeout", True)

    await simulator.put(withhold=False)
    assert isinstance(await sink_of(connection).send(replace(sent, deadline_s=5.0)), Delivered)
    state = await simulator.state()
    assert (state["taken"], state["repeats"]) == (2, 1)
    first, second = [line for line in simulator.lines() if line["id"] == str(sent.delivery_id)]
    assert (first["verdict"], first["answered"], second["repeat"]) == ("taken", False, True)


async def test_pushes_that_wait_for_a_stuck_login_keep_their_deadline(open_app: Open) -> None:
    released = asyncio.Event()

    async def stuck(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/oauth/token", stuck)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = open_app(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=0.2)

    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*(send(connection) for _ in range(5)))
    released.set()
    await runner.cleanup()

    assert all(isinstance(o, RetryLater) and o.reason.startswith("token_") and not o.ambiguous for o in outcomes)


async def test_what_is_secret_or_personal_reaches_no_outcome(scripted: Any, open_app: Open) -> None:
    script, url = scripted
    echo = orjson.dumps({"error": "invalid_client", "you_said": CLIENT_SECRET})
    script.token = [(400, {}, echo), (500, {}, echo), (200, {}, echo)]
    connection = open_app(url)

    for _ in range(3):
        shown = repr(await send(connection))
        assert CLIENT_SECRET not in shown and PHONE not in shown and TEXT not in shown


# -- check -----------------------------------------------------------------------------------------


async def steps(connection: Connection) -> list[tuple[str, bool, str]]:
    assert connection.check is not None
    return [(step.step, step.ok, step.detail) async for step in connection.check()]


async def test_a_check_ends_with_a_login_and_pushes_nothing(simulator: Simulator, open_app: Open) -> None:
    found = await steps(open_app(simulator.url))

    assert [(step, ok) for step, ok, _ in found] == [("dns", True), ("tcp", True), ("login", True)]
    assert simulator.lines() == []


async def test_a_check_tells_a_wrong_secret_from_a_dead_line(simulator: Simulator, open_app: Open) -> None:
    wrong = await steps(open_app(simulator.url, client_secret={"env": "WRONG"}))
    assert wrong[-1] == ("login", False, "auth_failed")

    dead = await steps(open_app(f"http://127.0.0.1:{free_port()}"))
    assert (dead[-1][0], dead[-1][1]) == ("tcp", False)


async def test_concurrency_and_rate_are_the_settings(open_app: Open) -> None:
    connection = open_app("http://127.0.0.1:1", concurrency=7, rate_per_s=20)
    (spec,) = sink_of(connection).destinations()

    assert (spec.name, spec.concurrency, spec.rate_per_s) == ("", 7, 20)
