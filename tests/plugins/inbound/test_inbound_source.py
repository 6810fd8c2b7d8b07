"""A source without a plugin of its own: verified by configuration, mapped to one event, kept as it came."""

from __future__ import annotations

import hmac
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import orjson
import pytest
from pydantic import ValidationError

from hub import views
from hub.app import HubApp
from hub.contract import Connection
from hub.control import run_command
from hub.errors import ConfigError
from hub.plugins import load_plugins
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from plugins.inbound.schema import EVENT_TYPES, RECEIVED
from plugins.inbound.settings import InboundSourceSettings
from tests.console_site import served
from tests.engines import stored_bytes

KEY = "a-shared-secret-of-24-bytes"
SCHEMA = {"type": "object", "properties": {"second": {"type": "integer"}}}
OTHER = "vn.congdoan.case.returned.v1"
HMAC: dict[str, Any] = {"verify": "hmac", "recipe": "github", "secrets": [{"env": "SOURCE_KEY"}]}
BODY = {"ma": "HS-1", "nguoi": {"so": "0912555123"}, "trang_thai": "da_tra", "dong": [{"n": 1}, {"n": 2}]}


@asynccontextmanager
async def source(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], inbound: dict[str, Any] | None = None
) -> AsyncIterator[tuple[HubApp, str, RecordingSink]]:
    monkeypatch.setenv("SOURCE_KEY", KEY)
    sink = RecordingSink()
    registry = registry_of(
        load_plugins(),
        connector_types=[connector("desk", Connection(sink=sink))],
        event_types=[replace(plain_event_type(OTHER, thin=("code", "state", "second")), schema=SCHEMA)],
    )
    subscriptions = [{"name": "s", "types": [RECEIVED, OTHER], "to": "desk", "fields": ["body.ma", "state"]}]
    connections = {"nguon": {"type": "inbound", "settings": settings, "inbound": inbound or {}}, "desk": {}}
    async with (
        running_hub(folder, registry, connections=connections, subscriptions=subscriptions) as hub,
        served(hub) as url,
    ):
        yield hub, f"{url}/in/nguon", sink


def sign(body: bytes) -> dict[str, str]:
    digest = hmac.digest(KEY.encode(), body, "sha256").hex()
    return {"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"}


async def post(url: str, body: Any, **headers: str) -> int:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    async with aiohttp.ClientSession() as http, http.post(url, data=sent, headers=sign(sent) | headers) as answer:
        return answer.status


async def test_a_signed_message_becomes_one_sealed_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with source(tmp_path, monkeypatch, HMAC) as (hub, url, sink):
        assert [await post(url, BODY) for _ in range(2)] == [202, 202]
        assert await post(url, BODY, **{"X-Hub-Signature-256": "sha256=" + "0" * 64}) == 401
        (event,) = await views.events(hub.store)
        assert event["type"] == RECEIVED and event["source"].endswith("/connections/nguon")
        await eventually(lambda: sink.shipments)
        assert sink.shipments[0].event.data == {"connection": "nguon", "body": {"ma": "HS-1"}}
        assert b"0912555123" not in await stored_bytes(hub)


async def test_fields_an_id_and_a_subject_come_from_configured_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        **HMAC, "event_type": OTHER, "fields": {"code": "ma", "state": "trang_thai", "second": "dong.1.n", "no": "x.y"},
        "dedupe_path": "ma", "subject_path": "nguoi.so",
    }  # fmt: skip
    async with source(tmp_path, monkeypatch, settings) as (_, url, sink):
        assert await post(url, BODY) == 202
        assert await post(url, {**BODY, "trang_thai": "moi"}) == 409, "the same id with another body"
        assert await post(url, {**BODY, "ma": "HS-2"}) == 202
        await eventually(lambda: len(sink.shipments) == 2)
        assert sink.shipments[0].event.data == {"code": "HS-1", "state": "da_tra", "second": 2}
        subjects = {s.event.subject for s in sink.shipments}
        assert len(subjects) == 1 and "0912555123" not in str(subjects)


async def test_an_id_in_a_header_tells_messages_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**HMAC, "dedupe_header": "x-request-id"}
    async with source(tmp_path, monkeypatch, settings) as (hub, url, _):
        for id in ("a", "a", "b"):
            assert await post(url, BODY, **{"X-Request-Id": id}) == 202
        assert len(await views.events(hub.store)) == 2


async def test_what_does_not_fit_its_type_is_kept_and_read_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**HMAC, "event_type": OTHER, "fields": {"second": "ma"}}
    async with source(tmp_path, monkeypatch, settings) as (hub, url, _):
        assert await post(url, BODY) == 202
        assert OTHER not in [event["type"] for event in await views.events(hub.store)]
        (repair,) = await views.repairs(hub.store)
        assert (repair["kind"], repair["object"]) == ("not_understood", "nguon")
    async with source(tmp_path, monkeypatch, HMAC) as (hub, url, _):
        assert await hub.reread("nguon") == (1, 0)
        assert [e["type"] for e in await views.events(hub.store)].count(RECEIVED) == 1


async def test_a_message_without_any_configured_field_is_not_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with source(tmp_path, monkeypatch, {**HMAC, "fields": {"code": "nowhere"}}) as (hub, url, _):
        assert await post(url, BODY) == 202
        assert len(await views.repairs(hub.store)) == 1


async def test_a_type_that_is_in_no_catalogue_is_our_fault_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**HMAC, "event_type": "vn.congdoan.typo.made.v1"}
    async with source(tmp_path, monkeypatch, settings) as (hub, url, _):
        assert await post(url, BODY) == 202
        assert len(await views.repairs(hub.store)) == 1


async def test_every_request_is_kept_and_one_can_be_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with source(tmp_path, monkeypatch, HMAC, {"keep_raw": "all"}) as (hub, url, _):
        assert [await post(url, body) for body in (BODY, BODY, {"ma": "HS-2"})] == [202] * 3
        assert await post(url, b"<xml/>") == 400
        listed = (await run(hub, "requests list", connection="nguon"))["requests"]
        assert sorted(row["state"] for row in listed) == ["not_json", "read", "read"]
        assert b"0912555123" not in await stored_bytes(hub) and b"<xml/>" not in await stored_bytes(hub)
        first = next(row for row in listed if row["state"] == "read")
        replayed = [await run(hub, "requests replay", id=first["id"]) for _ in range(2)]
        assert [each["new"] for each in replayed] == [1, 0]
        assert len(await views.events(hub.store)) == 3
        unread = next(row for row in listed if row["state"] == "not_json")
        with pytest.raises(Exception, match="cannot read it either"):
            await run(hub, "requests replay", id=unread["id"])


async def run(hub: HubApp, name: str, **params: Any) -> Any:
    return await run_command(hub, name, params, lambda progress: None)


@pytest.mark.parametrize(
    "settings",
    [
        {"verify": "hmac"}, {"verify": "basic", "secrets": [{"env": "X"}]}, {"verify": "ip"}, {"verify": "mtls"},
        {"verify": "api_key", "secrets": [{"env": "X"}]}, {"verify": "nothing"}, {**HMAC, "recipe": "md5"},
        {**HMAC, "networks": ["10.0.0.1/8"]}, {**HMAC, "fields": {"a": "b..c"}},
        {**HMAC, "dedupe_path": "a", "dedupe_header": "b"}, {**HMAC, "colour": "red"},
    ],
)  # fmt: skip
def test_settings_that_would_let_strangers_in_or_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InboundSourceSettings.model_validate(settings)


async def test_addresses_alone_or_beside_a_signature_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for networks, status in ((["127.0.0.0/8"], 202), (["10.0.0.0/8"], 401)):
        for verify in ({"verify": "ip"}, HMAC):
            folder = tmp_path / f"{verify['verify']}{status}"
            folder.mkdir()
            async with source(folder, monkeypatch, {**verify, "networks": networks}) as (_, url, _):
                assert await post(url, BODY) == status


def test_examples_fit_and_the_readme_s_file_is_valid() -> None:
    for kind in EVENT_TYPES:
        jsonschema.Draft202012Validator.check_schema(dict(kind.schema))
        jsonschema.validate(dict(kind.example), dict(kind.schema))
    readme = (Path(__file__).parents[3] / "plugins" / "inbound" / "README.md").read_text("utf-8")
    file = tomllib.loads(readme.partition("```toml\n")[2].partition("```")[0])
    assert InboundSourceSettings.model_validate(file["settings"]).dedupe_path == "ma_ho_so"


async def test_a_missing_secret_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NOWHERE"):
        async with running_hub(
            tmp_path,
            load_plugins(),
            connections={"n": {"type": "inbound", "settings": {**HMAC, "secrets": [{"env": "NOWHERE"}]}}},
        ):
            pass
