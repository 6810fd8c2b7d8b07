"""What stopped by the thousand is counted by reason, and sent again by reason: counted first, and with a stop."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from hub import dead_letters
from hub.app import HubApp
from hub.contract import Refused, RetryLater
from hub.control import run_command
from hub.errors import InputError, NotFound
from hub.testing import RecordingSink, eventually
from tests.console_site import served
from tests.flow.conftest import ON_BOTH, Site, check_books, emit, reach, states
from tests.flow.conftest import clock as clock
from tests.flow.conftest import database_url as database_url
from tests.flow.conftest import engine as engine
from tests.flow.conftest import site as site

FULL, GONE = Refused(reason="mailbox_full"), Refused(reason="moved")


async def command(hub: HubApp, name: str, **params: Any) -> dict[str, Any]:
    steps: list[Any] = []
    answer = await run_command(hub, name, params, steps.append)
    return {**answer, "steps": steps}


@ON_BOTH
async def test_they_are_counted_by_reason_and_all_of_one_are_sent_again(site: Site) -> None:
    alpha, beta = site.sink("alpha"), site.sink("beta")
    alpha.script = [FULL] * 5 + [GONE] * 2
    beta.script = [FULL] * 3
    async with site.running() as hub:
        await emit(hub, 8)
        await reach(hub, ["dead(mailbox_full)"] * 5 + ["dead(moved)"] * 2 + ["delivered"], "alpha")
        await reach(hub, ["dead(mailbox_full)"] * 3 + ["delivered"] * 5, "beta")
        found = await command(hub, "deliveries list", by="reason")
        assert found["groups"] == [
            {"reason": "mailbox_full", "state": "dead", "count": 8},
            {"reason": "moved", "state": "dead", "count": 2},
        ]
        only = await command(hub, "deliveries list", by="destination", reason="mailbox_full", state="dead")
        assert [(g["destination"], g["count"]) for g in only["groups"]] == [("alpha", 5), ("beta", 3)]

        first = await command(hub, "deliveries replay", reason="mailbox_full")
        assert (first["would_replay"], first["next"]) == (8, "--expect 8")
        assert len(alpha.shipments) + len(beta.shipments) == 16, "counting sends nothing"
        with pytest.raises(InputError, match="8 lượt gửi, không phải 7"):
            await command(hub, "deliveries replay", reason="mailbox_full", expect=7)

        done = await command(hub, "deliveries replay", reason="mailbox_full", expect=8)
        assert (done["replayed"], done["left"], done["failed"]) == (8, 0, False)
        assert done["steps"] == [{"replayed": 8, "of": 8}]
        await eventually(lambda: len(alpha.shipments) + len(beta.shipments) == 24)
        await reach(hub, ["dead(mailbox_full)"] * 8 + ["dead(moved)"] * 2 + ["delivered"] * 14)
        with pytest.raises(NotFound):  # they are not dead any more: their next generation arrived
            await command(hub, "deliveries replay", reason="mailbox_full")
        await check_books(hub.store)


async def test_only_one_destination_and_what_died_again_can_be_sent_again(site: Site) -> None:
    alpha, beta = site.sink("alpha"), site.sink("beta")
    alpha.script, beta.script = [FULL] * 4, [FULL] * 2
    async with site.running() as hub:
        await emit(hub, 2)
        await reach(hub, ["dead(mailbox_full)"] * 4)
        await command(hub, "deliveries replay", reason="mailbox_full", to="alpha", expect=2)
        await eventually(lambda: len(alpha.shipments) == 4)
        await reach(hub, ["dead(mailbox_full)"] * 4, "alpha")
        assert (await command(hub, "deliveries replay", reason="mailbox_full", to="alpha"))["would_replay"] == 2
        assert len(beta.shipments) == 2


async def test_a_destination_that_fails_again_stops_it_and_the_rest_stays_dead(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "STEP", 5)
    site.settings = {"breaker": {"failures": 3, "first_s": 60}}
    sink: RecordingSink = site.sink("alpha", concurrency=2)
    sink.script = [FULL] * 40
    async with site.running() as hub:
        await emit(hub, 40)
        await reach(hub, ["dead(mailbox_full)"] * 40)
        sink.script = [RetryLater(reason="busy")] * 100

        async def slow_step(hub: HubApp, destinations: list[str]) -> set[str]:
            if len(sink.shipments) > 40:  # as in an office, where a step takes longer than a try
                await eventually(lambda: len(sink.shipments) >= 43)
                await asyncio.sleep(0.1)
            return await aside(hub, destinations)

        aside = dead_letters._put_aside
        monkeypatch.setattr(dead_letters, "_put_aside", slow_step)
        report = await command(hub, "deliveries replay", reason="mailbox_full", expect=40)
        assert report["failed"] and report["stopped_by"] == "alpha"
        assert 0 < report["replayed"] < 40 and report["replayed"] + report["left"] == 40


@pytest.mark.parametrize("params", [{}, {"id": "01a209aef87f8086840c8342b4e7e08c", "reason": "x"}])
async def test_either_an_id_or_a_reason_is_given(site: Site, params: dict[str, str]) -> None:
    site.sink("alpha")
    async with site.running() as hub:
        with pytest.raises(InputError, match="--reason"):
            await command(hub, "deliveries replay", **params)


async def test_what_may_have_arrived_is_no_dead_letter(site: Site) -> None:
    sink = site.sink("alpha", resend_is_safe=False)
    sink.script = [RetryLater(reason="deadline", ambiguous=True)]
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["unknown(deadline)"])
        counted = await command(hub, "deliveries list", by="reason")
        assert counted["groups"] == [{"reason": "deadline", "state": "unknown", "count": 1}]
        with pytest.raises(NotFound):
            await command(hub, "deliveries replay", reason="deadline")
        with pytest.raises(InputError):
            await command(hub, "deliveries replay", reason="deadline", state="unknown")
        assert await states(hub) == ["unknown(deadline)"]


# -- from the console --------------------------------------------------------------------------------


async def test_a_group_is_sent_again_from_the_console_with_the_number_that_was_shown(site: Site) -> None:
    alpha = site.sink("alpha")
    alpha.script = [FULL] * 5 + [GONE] * 2
    async with site.running() as hub, served(hub) as url, aiohttp.ClientSession() as http:
        await emit(hub, 7)
        await reach(hub, ["dead(mailbox_full)"] * 5 + ["dead(moved)"] * 2)

        async def page() -> str:
            async with http.get(url + "/stopped") as answer:
                assert answer.headers["Referrer-Policy"] == "same-origin", "else a browser names no origin with a form"
                return await answer.text()

        async def click(path: str, **form: str) -> tuple[int, str]:
            async with http.post(url + path, data=form, allow_redirects=False) as answer:
                return answer.status, answer.headers.get("Location", "")

        assert "Gửi lại 5 lượt" in await page() and "Gửi lại 2 lượt" in await page()
        assert await click("/stopped/replay", reason="mailbox_full", expect="4") == (303, "/stopped?told=changed")
        assert await click("/stopped/replay", reason="mailbox_full", expect="0x5") == (400, "")
        assert len(alpha.shipments) == 7, "nothing is sent on a number that nobody was shown"
        assert await click("/stopped/replay", reason="mailbox_full", expect="5") == (303, "/stopped")
        await reach(hub, ["dead(mailbox_full)"] * 5 + ["dead(moved)"] * 2 + ["delivered"] * 5)

        async def told() -> bool:
            return "Đã đưa 5/5 lượt trở lại hàng đợi, còn 0 lượt" in await page()

        await eventually(told)
        assert "Gửi lại 2 lượt" in await page() and "Gửi lại 5 lượt" not in await page()


async def test_another_site_cannot_press_the_button_in_its_readers_browser(site: Site) -> None:
    site.sink("alpha").script = [FULL]
    async with site.running() as hub, served(hub) as url, aiohttp.ClientSession() as http:
        await emit(hub)
        await reach(hub, ["dead(mailbox_full)"])
        for headers in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            form = {"reason": "mailbox_full", "expect": "1"}
            async with http.post(url + "/stopped/replay", data=form, headers=headers) as answer:
                assert answer.status == 403
        assert await states(hub) == ["dead(mailbox_full)"]


async def test_one_group_at_a_time_and_a_click_stops_it_between_two_steps(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "STEP", 1)
    site.sink("alpha").script = [FULL] * 30 + [GONE]
    async with site.running() as hub:
        await emit(hub, 31)
        await reach(hub, ["dead(mailbox_full)"] * 30 + ["dead(moved)"])
        again = dead_letters.Again(hub)
        steps = 0

        def on_change() -> None:
            nonlocal steps
            steps += 1
            if again.sending is not None and again.sending.replayed == 3:
                again.stop()

        hub.on_change = on_change
        await again.start("mailbox_full", None, 30)
        with pytest.raises(InputError, match="another group"):
            await again.start("moved", None, 1)
        assert again.sending is not None
        ended = await eventually(lambda: again.sending.ended)
        assert (ended["replayed"], ended["left"], ended["stopped_by"]) == (3, 27, "operator")
        assert (await dead_letters.stopped(hub))[0] == {"reason": "mailbox_full", "destination": "alpha", "count": 27}


async def test_over_http_they_are_counted_and_sent_again_with_the_number_said_back(site: Site) -> None:
    site.sink("alpha").script = [FULL] * 3
    async with site.running() as hub, served(hub) as url, aiohttp.ClientSession(url) as http:
        await emit(hub, 3)
        await reach(hub, ["dead(mailbox_full)"] * 3)
        async with http.get("/api/v1/stopped?by=reason") as answer:
            groups = (await answer.json())["groups"]
        assert groups == [{"reason": "mailbox_full", "state": "dead", "count": 3}]
        said = []
        for body in ({}, {"expect": 2}, {"expect": 3}):
            async with http.post("/api/v1/stopped/replay", json={"reason": "mailbox_full", **body}) as answer:
                said.append((answer.status, (await answer.json()).get("replayed")))
        assert said == [(200, None), (409, None), (200, 3)]
        await reach(hub, ["dead(mailbox_full)"] * 3 + ["delivered"] * 3)
