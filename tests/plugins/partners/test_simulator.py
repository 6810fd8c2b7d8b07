"""The simulator is what the ledger is balanced against, so it has to be right itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

from tests.plugins.partners.conftest import SECRET, Simulator


def signed(message_id: str, body: bytes, **more: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "content-type": "application/cloudevents+json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(message_id, now, body.decode()),
        **more,
    }


def cloud_event(message_id: str, **data: Any) -> bytes:
    # The library would fill in the time of day, and no two bodies would be the same.
    when = datetime(2026, 11, 23, tzinfo=UTC)
    attributes = {"id": message_id, "source": "t", "type": "vn.congdoan.a.made.v1", "specversion": "1.0", "time": when}
    return to_structured_event(CloudEvent(attributes, data)).body


async def post(simulator: Simulator, message_id: str, name: str = "a", body: bytes | None = None, **more: str) -> int:
    body = cloud_event(message_id) if body is None else body
    async with simulator.http.post(simulator.url(name), data=body, headers=signed(message_id, body, **more)) as answer:
        await answer.read()
        return answer.status


async def test_each_endpoint_counts_for_itself(simulator: Simulator) -> None:
    assert await post(simulator, "m-1", "a") == 200
    assert await post(simulator, "m-1", "b") == 200
    assert await post(simulator, "m-1", "b") == 200
    state = await simulator.state()
    assert (state["taken"], state["repeats"]) == (2, 1)
    assert state["endpoints"]["b"] == {
        "behaviour": {}, "taken": 1, "refused": 0, "repeats": 1, "changed_bodies": 0, "dropped": 0, "withheld": 0,
        "last": ["m-1", "m-1"],
    }  # fmt: skip
    assert [line["id"] for line in simulator.lines()] == ["m-1@a", "m-1@b", "m-1@b"]


async def test_a_repeat_with_other_bytes_is_told(simulator: Simulator) -> None:
    await post(simulator, "m-1")
    await post(simulator, "m-1", body=cloud_event("m-1", other=1))
    assert (await simulator.state())["changed_bodies"] == 1
    assert simulator.lines()[1]["changed_body"] is True


@pytest.mark.parametrize(
    ("body", "more", "status", "reason"),
    [
        (None, {"webhook-signature": "v1,AAAA"}, 401, "signature"),
        (None, {"webhook-signature": "v1,!"}, 401, "signature"),
        (None, {"webhook-signature": "rubbish"}, 401, "signature"),
        (None, {"webhook-timestamp": "1"}, 401, "signature"),
        (b'{"specversion":"1.0"}', {}, 400, "body"),
        (b"[]", {}, 400, "body"),
        (b"{", {}, 400, "body"),
        (cloud_event("another"), {}, 400, "id_differs"),
        (b"{", {"content-type": "application/json"}, 400, "body"),
        (b"{}", {"content-type": "text/plain"}, 415, "content_type"),
    ],
)
async def test_what_is_signed_badly_or_cannot_be_read_is_refused(
    simulator: Simulator, body: bytes | None, more: dict[str, str], status: int, reason: str
) -> None:
    assert await post(simulator, "m-1", "a", body, **more) == status
    (line,) = simulator.lines()
    assert (line["verdict"], line["status"], line["reason"]) == ("refused", status, reason)
    assert (await simulator.state())["refused"] == 1


async def test_a_plain_json_body_is_taken_too(simulator: Simulator) -> None:
    assert await post(simulator, "m-1", "a", b"{}", **{"content-type": "application/json"}) == 200


async def test_a_withheld_answer_is_taken_at_once_and_released_later_with_one_line(simulator: Simulator) -> None:
    await simulator.put(endpoints={"a": {"withhold": True}})
    held = [asyncio.create_task(post(simulator, f"m-{n}")) for n in range(3)]
    state = await simulator.until(lambda state: state["withheld"] == 3)
    assert state["taken"] == 3
    assert [(line["verdict"], line["answered"]) for line in simulator.lines()] == [("taken", False)] * 3
    assert await post(simulator, "m-9", "b") == 200
    assert not any(task.done() for task in held)
    await simulator.put(endpoints={"a": {"withhold": False}})
    assert await asyncio.gather(*held) == [200, 200, 200]
    assert (len(simulator.lines()), (await simulator.state())["withheld"]) == (4, 0)


async def test_whoever_hung_up_is_no_longer_counted_as_withheld(simulator: Simulator) -> None:
    await simulator.put(withhold=True)
    held = asyncio.create_task(post(simulator, "m-1"))
    await simulator.until(lambda state: state["withheld"] == 1)
    held.cancel()
    state = await simulator.until(lambda state: state["withheld"] == 0)
    assert state["taken"] == 1


async def test_a_share_of_ids_fails_at_the_first_try_and_only_then(simulator: Simulator) -> None:
    await simulator.put(endpoints={"a": {"fail_first_share": 0.5}})
    first = [await post(simulator, f"m-{n}") for n in range(40)]
    again = [await post(simulator, f"m-{n}") for n in range(40)]
    assert set(first) == {200, 503}
    assert set(again) == {200}
    assert 5 < first.count(503) < 35
    assert {line["reason"] for line in simulator.lines() if line["verdict"] == "refused"} == {"first_try"}


async def test_down_reads_nothing_logs_nothing_and_resets(simulator: Simulator) -> None:
    await simulator.put(down=True)
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(simulator, "m-1")
    state = await simulator.put(down=None)
    assert (state["taken"], state["refused"], state["dropped"]) == (0, 0, 1)
    assert simulator.lines() == []
    assert await post(simulator, "m-1") == 200


async def test_a_status_and_retry_after_are_answered_as_told(simulator: Simulator) -> None:
    await simulator.put(status=429, endpoints={"a": {"retry_after": "soon"}})
    body = cloud_event("m-1")
    async with simulator.http.post(simulator.url("a"), data=body, headers=signed("m-1", body)) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "soon")
    await simulator.put(status=200)
    async with simulator.http.post(simulator.url("a"), data=body, headers=signed("m-1", body)) as answer:
        assert (answer.status, "Retry-After" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    "change",
    [{"colour": 1}, {"down": 1}, {"status": "no"}, {"status": True}, {"status": 99}, {"endpoints": []},
     {"endpoints": {"a": {"sttus": 500}}}, {"endpoints": {"a": 1}}],
)  # fmt: skip
async def test_a_misspelt_control_field_is_refused_and_changes_nothing(
    simulator: Simulator, change: dict[str, Any]
) -> None:
    assert (await simulator.put(slow_ms=1, **change))["http"] == 400
    assert (await simulator.state())["slow_ms"] == 0


def test_it_asks_for_a_secret_and_knows_nothing_of_the_hub() -> None:
    code = (
        "import importlib.util, json, sys;"
        "spec = importlib.util.spec_from_file_location('alone', 'plugins/partners/simulator.py');"
        "sys.modules['alone'] = module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('hub', 'plugins')]))"
    )
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout) == []
    command = [sys.executable, "-m", "plugins.partners.simulator", "--log", "/dev/null"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--secret" in refused.stderr
