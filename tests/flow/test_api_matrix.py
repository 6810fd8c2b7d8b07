"""Every route of the API against every kind of caller, and against whatever its own document would let one send."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.contract import UnitOfWork
from hub.model import Draft, Json
from hub.plugins import load_plugins
from hub.testing import eventually
from hub.web import api
from hub.web.operations import Operation
from tests.flow.api_site import MADE, Answer, Site, open_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "0192f3c4-77aa-7bbb-8ccc-000000000001"
PLUGINS = load_plugins()
#: Of the core and of every installed plugin.
TABLE = api.table(PLUGINS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("hub"), plugins=PLUGINS) as opened:
        yield opened


# -- who may -----------------------------------------------------------------------------------------


@dataclass
class Objects:
    """What a stranger could ask for: one of each, and the same of which there is none."""

    there: dict[str, str]
    absent: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def objects(site: Site) -> Objects:
    draft = Draft(type=MADE, source="/t", dedupe_key="1", data={"id": "t-1"}, scope="CDCS-01")
    await site.hub.commit(UnitOfWork(drafts=[draft]))
    rows = await eventually(lambda: _delivered(site))
    other = await site.run("keys add", name="another", scopes="events:read")
    return Objects(
        {"deliveries": rows[0]["id"], "connections": "post", "keys": other["id"], "requests": ABSENT},
        {"deliveries": ABSENT, "connections": "nobody", "keys": "00000000", "requests": ABSENT},
    )


async def _delivered(site: Site) -> Any:
    return (await site.get("/deliveries?state=delivered")).body["deliveries"]


def address(operation: Operation, names: dict[str, str]) -> str:
    kind = operation.path.split("/")[1]
    return api.BASE + re.sub(r"\{[a-z_]+\}", quote(names.get(kind, "7"), safe=""), operation.path)


def body(operation: Operation) -> Json | None:
    """Something that fits, so that only the caller can be what is wrong."""
    if not operation.has_body:
        return None
    bodies: dict[str, Json] = {
        "/events": {"type": MADE, "data": {"id": "t-1"}, "scope": "CDCS-01"},
        "/keys": {"name": "x", "scopes": ["events:read"]},
        "/deliveries/{id}/resolve": {"as": "failed", "reason": "nobody knows"},
    }
    return bodies.get(operation.path, {})


#: A plugin's operation that narrows what it answers knows itself what is whose: its own tests show it.
CORE = {operation.id for operation in api.table(load_plugins(points=[]))}
ids = [f"{o.method} {o.path}" for o in TABLE]


@pytest.mark.parametrize("operation", TABLE, ids=ids)
async def test_without_a_key_or_with_a_wrong_one_every_route_is_shut(
    site: Site, objects: Objects, operation: Operation
) -> None:
    revoked = await site.run("keys add", name="r", scopes="admin")
    await site.run("keys revoke", id=revoked["id"])
    for key, problem in (
        ("", "token-required"), ("wrong", "token-required"), ("hub_live_" + "a" * 43, "key-invalid"),
        (revoked["key"], "key-invalid"),
    ):  # fmt: skip
        answer = await site.call(operation.method, address(operation, objects.there), key, body(operation))
        assert (answer.status, answer.problem) == (401, problem)


@pytest.mark.parametrize("operation", TABLE, ids=ids)
async def test_with_every_scope_but_the_needed_one_every_route_is_forbidden(
    site: Site, objects: Objects, operation: Operation
) -> None:
    others = {o.scope for o in TABLE} - {operation.scope, "admin"}
    key = await site.key(*sorted(others))
    before = await _rows(site)
    for names in (objects.there, objects.absent):
        answer = await site.call(operation.method, address(operation, names), key, body(operation))
        assert (answer.status, answer.problem) == (403, "scope-missing")
    assert await _rows(site) == before


@pytest.mark.parametrize("kind", ["a plugin's key", "another unit's key"])
@pytest.mark.parametrize("operation", TABLE, ids=ids)
async def test_an_object_of_somebody_else_is_as_if_absent(
    site: Site, objects: Objects, operation: Operation, kind: str
) -> None:
    more: Json = {"owner": "partner:x"} if kind == "a plugin's key" else {"sees": "CDCS-99"}
    key = await site.key(*sorted({o.scope for o in TABLE}), **more)
    before = await _rows(site)
    there, absent = [
        await site.call(operation.method, address(operation, names), key, body(operation))
        for names in (objects.there, objects.absent)
    ]
    assert (there.status, there.raw) == (absent.status, absent.raw)
    if not operation.narrows or (operation.in_path and operation.id in CORE):
        assert (there.status, there.problem) == (404, "not-found")
    elif operation.id in CORE and not operation.writes and operation.path != "/event-types":
        assert there.status == 200 and not any(list(there.body.values())[:1][0]), "an empty list"
    assert await _rows(site) == before


async def _rows(site: Site) -> list[int]:
    # Not the keys: the tests make some.
    tables = ("event", "queue", "delivery", "attempt", "repair", "run", "idempotency", "raw_request")
    return [await site.count(table) for table in tables]


# -- what its document would let one send ------------------------------------------------------------

_TEXT = st.text(max_size=30) | st.sampled_from(["", "\0", "%00", "../..", "' OR 1=1 --", "{{7*7}}", "𝟙", "a" * 300])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)


def fitting(schema: Json, components: Json) -> st.SearchStrategy[Any]:
    """Values a schema of ours allows, or would if it were less strict about texts."""
    if "$ref" in schema:
        return fitting(components[schema["$ref"].rsplit("/", 1)[1]], components)
    if "anyOf" in schema:
        return st.one_of([fitting(each, components) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    match schema.get("type"):
        case "integer":
            return st.integers(schema.get("minimum", -(2**62)), schema.get("maximum", 2**62))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(fitting(schema.get("items", {}), components), max_size=3)
        case "object":
            known = {name: fitting(each, components) for name, each in schema.get("properties", {}).items()}
            needed = {name: each for name, each in known.items() if name in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional={n: e for n, e in known.items() if n not in needed})
        case "string" if schema.get("format") == "uuid":
            return st.uuids().map(str)
        case "string" if schema.get("format") == "date-time":
            return st.datetimes().map(lambda moment: moment.isoformat() + "Z")
        case "string":
            return _TEXT
    return _JSON


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: dict[str, Any]
    body: Any
    operation: Json


@st.composite
def calls(draw: st.DrawFn, document: Json) -> Call:
    components = document["components"]["schemas"]
    path = draw(st.sampled_from(sorted(document["paths"])))
    method = draw(st.sampled_from(sorted(document["paths"][path])))
    operation = document["paths"][path][method]
    given_query: dict[str, Any] = {}
    for parameter in operation["parameters"]:
        values = fitting(parameter["schema"], components) | _TEXT
        if parameter["in"] == "path":
            value = str(draw(values)) or "-"
            path = path.replace("{" + parameter["name"] + "}", quote(value, safe="", errors="replace"))
        elif parameter["in"] == "query" and parameter["name"] != "wait" and draw(st.booleans()):
            given_query[parameter["name"]] = draw(values)
    if draw(st.integers(0, 9)) == 0:
        given_query[draw(_TEXT)] = "x"
    sent = None
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        sent = draw(fitting(schema, components) | _JSON)
    return Call(method.upper(), path, given_query, sent, operation)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(site: Site) -> Json:
    found: Json = (await site.call("GET", "/api/openapi.json")).body
    return found


async def test_whatever_the_document_lets_one_send_is_answered_as_it_says(site: Site, document: Json) -> None:
    loop = asyncio.get_running_loop()
    seen: list[tuple[Call, Answer]] = []

    # Hypothesis draws in a thread of its own; the hub answers here.
    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(calls(document))
    def ask(call: Call) -> None:
        answer = asyncio.run_coroutine_threadsafe(_send(site, call), loop).result(30)
        seen.append((call, answer))
        check(call, answer)

    await asyncio.to_thread(ask)
    statuses = {answer.status for _, answer in seen}
    assert {200, 400, 404, 422} <= statuses, "it did not get past the front door"
    covered = {(call.operation["operationId"]) for call, _ in seen}
    assert len(covered) > len(document["paths"]) * 0.8


async def _send(site: Site, call: Call) -> Answer:
    query = "&".join(f"{quote(k, errors='replace')}={quote(str(v), errors='replace')}" for k, v in call.query.items())
    path = call.path + (f"?{query}" if query else "")
    # The standard library writes what no strict reader takes too: huge numbers, half surrogates.
    data = None if call.body is None else json.dumps(call.body).encode()
    return await site.call(call.method, path, data=data)


def check(call: Call, answer: Answer) -> None:
    """No answer but those described, each in the described form."""
    assert answer.status < 500, (call, answer)
    described = call.operation["responses"]
    assert str(answer.status) in described, (call, answer)
    (content,) = described[str(answer.status)]["content"].items()
    media, said = content
    assert answer.headers["content-type"] == media, (call, answer)
    if "$ref" not in said["schema"]:
        jsonschema.validate(answer.body, said["schema"])
    else:
        assert answer.problem and answer.body["status"] == answer.status
