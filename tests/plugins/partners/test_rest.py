"""The same commands over HTTP: with the operator's token, and with a key that is a partner's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.control import run_command
from hub.model import Draft, Json, new_id
from hub.plugins import load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from tests.console_site import served
from tests.flow.api_site import TOKEN, Answer, Site, Works
from tests.plugins.partners.conftest import SECRET, asked
from tests.plugins.partners.test_guard import Listener, listening
from tests.plugins.partners.test_managed import GRANT, TYPE, routed


@pytest.fixture
def public_url() -> str:
    """Where partners reach the hub, where a test says so."""
    return ""


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public_url: str) -> AsyncIterator[Site]:
    monkeypatch.setenv("S", SECRET)
    file = {"url": "https://nhan.example.vn/", "secret": {"env": "S"}}
    async with (
        running_hub(
            tmp_path,
            registry_of(load_plugins(allowed={"partners"}), event_types=[plain_event_type(TYPE, thin=("unit",))]),
            connections={
                "doi-tac": {
                    "type": "partners",
                    "settings": {"allow_networks": ["127.0.0.0/8"], "public_url": public_url},
                },
                "bhxh": {"type": "partner", "settings": file},
            },
        ) as hub,
        served(hub, TOKEN) as url,
        aiohttp.ClientSession() as http,
    ):
        yield Site(hub, url, http, Works(), None)  # type: ignore[arg-type]  # it has no sink of its own


async def key_of(hub: HubApp, partner: str, *scopes: str) -> str:
    given = {"name": partner, "scopes": ",".join(scopes), "owner": f"partner:{partner}"}
    return str((await run_command(hub, "keys add", given, lambda said: None))["key"])


async def test_an_officer_sets_a_partner_up_over_http_and_its_own_key_does_the_rest(site: Site) -> None:
    async with listening(Listener(), "127.0.0.1") as partner:
        url = f"http://127.0.0.1:{partner.port}/hook"
        added = await site.post("/partners", {"partner": "so-noi-vu", "title": "Sở Nội vụ"})
        assert (added.status, added.body["managed_by"]) == (201, "api")
        granted = await site.post("/partners/so-noi-vu/grants", {**GRANT, "ends": "2099-12-31"})
        assert (granted.status, granted.body["grants"][0]["fields"]) == (201, ["unit"])

        own = await key_of(site.hub, "so-noi-vu", "partners:read", "partners:write", "events:read")
        made = await site.post("/partners/so-noi-vu/endpoints", {"endpoint": "chinh", "url": url}, own)
        assert made.status == 201 and made.body["secret"].startswith("whsec_")
        path = "/partners/so-noi-vu/endpoints/chinh"
        changed = await site.call("PATCH", f"/api/v1{path}", own, {"types": ["vn.congdoan.member.*"], "timeout_s": 3.5})
        assert (changed.status, changed.body["endpoints"][0]["timeout_s"]) == (200, 3.5)
        assert (await site.post(f"{path}/rotate", {"overlap_hours": 1}, own)).body["secret"] != made.body["secret"]
        assert (await site.post(f"{path}/test", {}, own)).body["status"] == 200

        await eventually(lambda: routed(site.hub))
        data = {"unit": "U-1", "phone": "0912000456"}
        draft = Draft(type=TYPE, source="/t", dedupe_key=str(new_id()), data=data)
        (id,) = (await site.hub.commit(UnitOfWork(drafts=[draft]))).events
        await eventually(lambda: len(partner.bodies) == 2)
        assert json.loads(partner.bodies[1])["data"] == {"unit": "U-1"}

        async def fed() -> list[Json]:
            answer = await site.get("/events?after=0", own)
            assert answer.status == 200, answer
            return [each for each in answer.body["events"] if str(id) in json.dumps(each)]

        [seen] = await eventually(fed)
        assert "0912000456" not in json.dumps(seen) and "U-1" in json.dumps(seen)
        assert (await site.call("DELETE", f"/api/v1{path}", own)).body["endpoints"] == []


async def test_a_partners_key_gets_404_for_all_that_is_not_its_own_and_grants_itself_nothing(site: Site) -> None:
    for name in ("so-noi-vu", "so-y-te"):
        await site.post("/partners", {"partner": name})
        await site.post(f"/partners/{name}/endpoints", {"endpoint": "chinh", "url": "https://nhan.example.vn/"})
    own = await key_of(site.hub, "so-noi-vu", "partners:read", "partners:write")
    body = {"endpoint": "x", "url": "https://x.example.vn/"}

    assert (await site.get("/partners", own)).status == 200  # the key's first use is written down
    queries: dict[str, list[list[str]]] = {}

    async def tried(partner: str) -> list[Answer]:
        at = f"/api/v1/partners/{partner}"
        end = f"{at}/endpoints/chinh"
        answers = []
        for method, path, sent in (
            ("GET", at, None),
            ("POST", f"{at}/endpoints", body),
            ("PATCH", end, {"timeout_s": 2}),
            ("POST", f"{end}/rotate", {}),
            ("POST", f"{end}/test", {}),
            ("POST", f"{at}/try-filter", {"filter": "a"}),
            ("GET", f"{at}/events/{new_id()}", None),
            ("DELETE", end, None),
        ):
            with asked(site.hub.store) as said:
                answers.append(await site.call(method, path, own, *([] if sent is None else [sent])))
            queries.setdefault(partner, []).append(said)
        return answers

    answers = [await tried(partner) for partner in ("so-y-te", "bhxh", "khong-co")]
    for others in zip(*answers, strict=True):
        assert {each.status for each in others} == {404}
        assert len({each.raw for each in others}) == 1, "another's is as if absent"
    assert queries["so-y-te"] == queries["bhxh"] == queries["khong-co"], "and takes the same look-ups, so the same time"
    for path, sent in (
        ("/partners", {"partner": "so-moi"}),
        ("/partners/so-noi-vu/grants", GRANT),
        ("/partners/so-noi-vu/grants/00/end", {}),
    ):
        assert (await site.post(path, sent, own)).status == 404
    assert (await site.get("/partners", own)).body["partners"] == [
        {"partner": "so-noi-vu", "title": "", "managed_by": "api", "file": None}
    ]
    reading = await key_of(site.hub, "so-noi-vu", "partners:read")
    assert (await site.post("/partners/so-noi-vu/endpoints", body, reading)).status == 403


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/partners/bhxh/grants", GRANT, 409, "managed-by-file"),
        ("/partners/so-noi-vu/endpoints", {"endpoint": "a", "url": "https://169.254.169.254/"}, 422, "url-not-public"),
        ("/partners/so-noi-vu/endpoints", {"endpoint": "a", "url": "https://0x7f.1/"}, 422, "url-invalid"),
        ("/partners/so-noi-vu/endpoints", {"endpoint": "a", "url": "https://a:b@c.vn/"}, 422, "url-invalid"),
        ("/partners/so-noi-vu/endpoints", {"endpoint": "../a", "url": "https://c.vn/"}, 422, "input-invalid"),
        ("/partners/so-noi-vu/grants", {**GRANT, "types": ["vn.congdoan.nobody.*"]}, 422, "event-type-unknown"),
        ("/partners/so-noi-vu/grants", {**GRANT, "ends": "2020-01-01"}, 422, "input-invalid"),
        ("/partners/so-noi-vu/try-filter", {"filter": "a ||"}, 422, "filter-invalid"),
        ("/partners/khong-co/grants", GRANT, 404, "not-found"),
        ("/partners", {"partner": "so-noi-vu"}, 409, "conflict"),
        ("/partners", {"partner": "bhxh"}, 409, "conflict"),
    ],
)
async def test_what_cannot_be_is_a_problem_and_changes_nothing(
    site: Site, path: str, body: Json, status: int, problem: str
) -> None:
    await site.post("/partners", {"partner": "so-noi-vu"})
    answer = await site.post(path, body)
    assert (answer.status, answer.problem) == (status, problem)
    shown = (await site.get("/partners/so-noi-vu")).body
    assert (shown["grants"], shown["endpoints"]) == ([], [])


@pytest.mark.parametrize("public_url", ["https://hub.example.vn"])
async def test_a_thin_event_refers_to_the_rest_which_the_same_grant_answers(site: Site) -> None:
    async with listening(Listener(), "127.0.0.1") as partner:
        for name in ("so-noi-vu", "so-y-te"):
            await site.post("/partners", {"partner": name})
        await site.post("/partners/so-noi-vu/grants", {**GRANT, "fields": ["unit", "position"]})
        own = await key_of(site.hub, "so-noi-vu", "partners:read", "partners:write")
        address = f"http://127.0.0.1:{partner.port}/hook"
        await site.post("/partners/so-noi-vu/endpoints", {"endpoint": "chinh", "url": address}, own)
        whole = {"endpoint": "du", "url": address, "detail": "full"}
        await site.post("/partners/so-noi-vu/endpoints", whole, own)
        await eventually(lambda: routed(site.hub) and any("du" in one.name for one in site.hub.router.subscriptions))
        data = {"unit": "U-1", "position": "P-1", "phone": "0912000456"}
        draft = Draft(type=TYPE, source="/t", dedupe_key=str(new_id()), data=data)
        await site.hub.commit(UnitOfWork(drafts=[draft]))
        await eventually(lambda: len(partner.bodies) == 2)
        bodies = [json.loads(body) for body in partner.bodies]
        [thin], [full] = ([each for each in bodies if ("dataref" in each) is wanted] for wanted in (True, False))
        assert thin["data"] == {"unit": "U-1"}
        assert full["data"] == {"unit": "U-1", "position": "P-1"}

        path = thin["dataref"].removeprefix("https://hub.example.vn/api/v1")
        read = await site.get(path, own)
        assert (read.status, read.body["data"], read.body["id"]) == (200, full["data"], thin["id"])
        other = await key_of(site.hub, "so-y-te", "partners:read")
        absent = path[:-36] + str(new_id())
        answers = [await site.get(path, other), await site.get(path.replace("so-noi-vu", "so-y-te"), other)]
        answers.append(await site.get(absent.replace("so-noi-vu", "so-y-te"), other))
        assert {each.status for each in answers} == {404}
        assert "phone" not in repr([bodies, read.body])
