"""The operator's API and the document that describes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from hub import views
from hub.app import HubApp
from hub.contract import Connection, RetryLater
from hub.model import to_us
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from hub.web import api, server
from tests.console_site import put, served
from tests.flow.conftest import ON_BOTH, placed


@asynccontextmanager
async def api_of(tmp_path: Path, database_url: str = "") -> AsyncIterator[tuple[HubApp, str]]:
    registry = registry_of(
        connector_types=[connector("post", Connection(sink=RecordingSink(script=[RetryLater(reason="http_503")])))],
        event_types=[plain_event_type("vn.congdoan.thing.made.v1")],
    )
    subscriptions = [{"name": "all", "types": ["vn.congdoan.*"], "to": "post"}]
    async with (
        running_hub(
            tmp_path,
            registry,
            connections={"post": {}},
            subscriptions=subscriptions,
            settings={"database_url": database_url},
        ) as hub,
        served(hub) as url,
    ):
        yield hub, url


async def get(url: str, status: int = 200) -> Any:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == status
        assert answer.content_type == ("application/json" if status == 200 else "application/problem+json")
        return await answer.json(content_type=None)


def closed(schema: Any) -> Any:
    """The same schema, refusing every property it does not describe."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if "required" in schema else {}
    return {key: closed(value) for key, value in schema.items()} | more


async def test_the_document_describes_exactly_the_routes_there_are(tmp_path: Path) -> None:
    async with api_of(tmp_path) as (hub, url):
        document = await get(url + "/api/openapi.json")
        routes = {
            (route.method, route.resource.canonical)
            for route in server.build(hub).router.routes()
            if route.resource is not None and route.resource.canonical.startswith("/api/v1") and route.method != "HEAD"
        }
    assert document["openapi"].startswith("3.1")
    assert routes == {(m.upper(), path) for path, item in document["paths"].items() for m in item}


async def test_a_deprecated_type_names_its_successor(tmp_path: Path) -> None:
    old, new = "vn.congdoan.thing.made.v1", "vn.congdoan.thing.made.v2"
    kinds = [replace(plain_event_type(old), deprecated=True, successor=new), plain_event_type(new)]
    registry = registry_of(event_types=kinds)
    async with running_hub(tmp_path, registry, connections={}, subscriptions=[]) as hub, served(hub) as url:
        catalogue = (await get(url + "/api/v1/event-types"))["event_types"]
        webhooks = (await get(url + "/api/openapi.json"))["webhooks"]
    assert [(k["type"], k["deprecated"], k["successor"]) for k in catalogue] == [(old, True, new), (new, False, None)]
    assert webhooks[old]["post"]["deprecated"] is True and new in webhooks[old]["post"]["description"]
    assert "deprecated" not in webhooks[new]["post"]


@ON_BOTH
async def test_every_answer_fits_its_description_and_every_described_parameter_is_taken(
    tmp_path: Path, database_url: str
) -> None:
    async with api_of(tmp_path, database_url=database_url) as (hub, url):
        await put(hub, "1", subject="thing-1")
        (row,) = await eventually(lambda: views.deliveries(hub.store, reason="http_503"))
        await hub.store.open_repair("poison", row["id"], "", to_us(hub.now()))
        values = {
            "state": "pending", "destination": "post", "reason": "http_503", "event_id": row["event_id"],
            "before": "ffffffff-ffff-ffff-ffff-ffffffffffff", "limit": "1", "after": "0", "wait": "0",
            "by": "reason",
        }  # fmt: skip
        for path, item in (await get(url + "/api/openapi.json"))["paths"].items():
            operation = item.get("get", {"operationId": ""})
            if not operation["operationId"].startswith("get_"):
                continue  # a command: its own test has something to find
            query = "&".join(f"{p['name']}={values[p['name']]}" for p in operation["parameters"] if p["in"] == "query")
            answer = await get(url + path.replace("{id}", row["id"]) + "?" + query)
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer, closed(schema))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/deliveries?colour=zzinput", "'colour'"),
        ("/deliveries?state=zzinput", "'state'"),
        ("/deliveries?state=dead&state=unknown", "'state'"),
        ("/deliveries?event_id=zzinput", "'event_id': not an id"),
        ("/deliveries?limit=0", "'limit'"),
        ("/deliveries?limit=1001", "'limit'"),
        ("/deliveries?destination=%ff", "'destination'"),
        ("/deliveries?destination=%ed%a0%80", "'destination'"),
        ("/deliveries?destination=a%00b", "'destination'"),
        ("/deliveries?reason=%27%20zzinput", "'reason'"),
        ("/events?after=-1", "'after'"),
        ("/events?after=99999999999999999999", "'after'"),
        ("/connections?x=1", "'x'"),
        ("/repairs?%3Cscript%3E=1", "a parameter"),
        ("/deliveries/zzinput", "'id'"),
    ],
)
async def test_a_wrong_parameter_is_a_problem_that_names_it_and_never_repeats_it(
    tmp_path: Path, path: str, named: str
) -> None:
    async with api_of(tmp_path) as (_, url):
        problem = await get(url + api.BASE + path, status=400)
    assert problem["detail"].startswith(named)
    assert "zzinput" not in str(problem) and "<script>" not in str(problem)


async def test_a_delivery_that_is_not_there_is_a_404(tmp_path: Path) -> None:
    async with api_of(tmp_path) as (_, url):
        problem = await get(f"{url}/api/v1/deliveries/0192f3c4-77aa-7bbb-8ccc-000000000001", status=404)
    assert problem["type"] == "/problems/not-found"


@ON_BOTH
async def test_the_cursor_of_the_feed_brings_every_event_once_and_can_be_kept(
    tmp_path: Path, database_url: str
) -> None:
    async with api_of(tmp_path, database_url=database_url) as (hub, url):
        made = [await put(hub, str(i)) for i in range(7)]
        await placed(hub)
        seen: list[str] = []
        cursor = 0
        for events in (3, 3, 1, 0):
            page = await get(f"{url}/api/v1/events?after={cursor}&limit=3")
            assert len(page["events"]) == events
            cursor = page["next"]
            seen += [event["id"] for event in page["events"]]
        made.append(await put(hub, "later"))
        await placed(hub)
        seen += [event["id"] for event in (await get(f"{url}/api/v1/events?after={cursor}"))["events"]]
    assert seen == made


@ON_BOTH
async def test_deliveries_are_paged_from_the_newest_to_the_oldest(tmp_path: Path, database_url: str) -> None:
    async with api_of(tmp_path, database_url=database_url) as (hub, url):
        for i in range(5):
            await put(hub, str(i))
        seen: list[str] = []
        more = ""
        for is_last in (False, False, True):
            page = await get(f"{url}/api/v1/deliveries?limit=2{more}")
            seen += [row["id"] for row in page["deliveries"]]
            assert (page["next"] is None) == is_last
            more = f"&before={page['next']}"
    assert len(seen) == 5 and seen == sorted(seen, reverse=True)
