"""Partners and endpoints that are managed by commands, on a whole hub; files stay what files say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub import views
from hub.app import HubApp, asked_by
from hub.contract import Admit, Cancel, Delivered, Principal, UnitOfWork
from hub.errors import HubError, InputError, NotFound
from hub.model import Draft, Json, new_id
from hub.plugins import load_plugins
from hub.signing import parse_public_key, parse_secret, verify
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from plugins.partners import tables
from plugins.partners.commands import COMMANDS
from plugins.partners.connector import PartnerSink
from plugins.partners.feed import PartnerFeed
from plugins.partners.managed import ManagedBook
from tests.engines import ON_BOTH
from tests.plugins.partners.conftest import SECRET, event, shipped
from tests.plugins.partners.test_guard import Listener, listening

TYPE = "vn.congdoan.member.updated.v1"
GRANT = {"types": [TYPE], "fields": ["unit"], "purpose": "đối chiếu", "legal_basis": "Quy chế 12"}


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> AsyncIterator[HubApp]:
    monkeypatch.setenv("S", SECRET)
    inside = {"allow_networks": ["127.0.0.0/8"]}
    async with running_hub(
        tmp_path,
        registry_of(load_plugins(allowed={"partners"}), event_types=[plain_event_type(TYPE, thin=("unit",))]),
        connections={
            "doi-tac": {"type": "partners", "settings": inside},
            "bhxh": {
                "type": "partner",
                "settings": {"url": "https://nhan.example.vn/", "secret": {"env": "S"}, "contact": "cntt@bhxh.example"},
            },
        },
        settings={"database_url": database_url, "retry": {"schedule_s": [0.2] * 50}, "breaker": {"failures": 1000}},
    ) as hub:
        yield hub


async def run(hub: HubApp, name: str, **params: Any) -> Json:
    (command,) = [each for each in COMMANDS if each.name == name]
    return await command.run(hub, command.params.model_validate(params), lambda said: None)


def sink_of(hub: HubApp) -> tuple[PartnerSink, ManagedBook]:
    sink = hub.connections["doi-tac"].sink
    assert isinstance(sink, PartnerSink) and isinstance(sink._book, ManagedBook)
    return sink, sink._book


async def try_one(hub: HubApp, what: Any = None) -> Any:
    """Admission, or the outcome of one try, of an event to so-noi-vu's endpoint."""
    sink, book = sink_of(hub)
    await book.reload()
    shipment = dataclasses.replace(
        shipped(sink, what or event(unit="U", phone="P")), destination="doi-tac/so-noi-vu.chinh"
    )
    admission = await sink.admit(shipment)
    return await sink.send(shipment) if isinstance(admission, Admit) else admission


@ON_BOTH
async def test_a_partner_is_made_granted_and_sent_to_by_commands_alone(hub: HubApp) -> None:
    async with listening(Listener(), "127.0.0.1") as partner:
        url = f"http://127.0.0.1:{partner.port}/hook"
        added = await run(hub, "add", partner="so-noi-vu", title="Sở Nội vụ", contact="cntt@noi-vu.example")
        assert (added["contact"], added["managed_by"], added["endpoints"]) == ("cntt@noi-vu.example", "api", [])
        made = await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=url)
        assert await try_one(hub) == Cancel("not_granted")
        given = await run(hub, "grant", partner="so-noi-vu", **GRANT)
        assert isinstance(await try_one(hub), Delivered)
        assert b'"data":{"unit":"U"}' in partner.bodies[0]
        head = dict(line.split(": ", 1) for line in partner.heads[0].decode().split("\r\n")[1:] if ": " in line)
        assert verify([parse_secret(made["secret"])], head, partner.bodies[0], datetime.now(UTC))

        _, book = sink_of(hub)
        [wanted] = book.wanted(hub.now())
        assert (wanted.types, wanted.fields, wanted.to) == ((TYPE,), ("unit",), "doi-tac/so-noi-vu.chinh")
        assert [spec.name for spec in sink_of(hub)[0].destinations()] == ["so-noi-vu.chinh"]

        owed = event(unit="U")
        ended = await run(hub, "end-grant", partner="so-noi-vu", grant=given["grant"])
        assert not ended["grants"][0]["holds"]
        assert await try_one(hub, owed) == Cancel("grant_ended")
        assert book.wanted(hub.now()) == ()
        await run(hub, "remove-endpoint", partner="so-noi-vu", endpoint="chinh")
        assert await try_one(hub) == Cancel("endpoint_removed")


@ON_BOTH
async def test_secrets_and_contacts_lie_in_the_ledger_sealed(hub: HubApp, tmp_path: Path) -> None:
    await run(hub, "add", partner="so-noi-vu", contact="canary-7731@noi-vu.example")
    made = await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url="https://nhan.example.vn/")
    rows = [*await hub.fetch(tables.PARTNERS()), *await hub.fetch(tables.ENDPOINTS())]
    kept = repr([bytes(value) for row in rows for value in row if isinstance(value, bytes | memoryview)])
    assert made["secret"] not in kept and "canary-7731" not in kept
    shown = await run(hub, "show", partner="so-noi-vu")
    assert made["secret"] not in repr(shown)
    files = list((tmp_path / "var").glob("*.db*"))
    assert all(b"canary-7731" not in file.read_bytes() for file in files)
    assert files or hub.store.shared


async def test_an_old_key_signs_beside_the_new_one_until_its_hours_are_over(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    await run(hub, "grant", partner="so-noi-vu", **GRANT)
    async with listening(Listener(), "127.0.0.1") as partner:
        url = f"http://127.0.0.1:{partner.port}/hook"
        for asymmetric in (False, True):
            partner.heads.clear()
            partner.bodies.clear()
            first = await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=url, asymmetric=asymmetric)
            second = await run(hub, "rotate", partner="so-noi-vu", endpoint="chinh", overlap_hours=1)
            await try_one(hub)
            third = await run(hub, "rotate", partner="so-noi-vu", endpoint="chinh", overlap_hours=0)
            await try_one(hub)
            taken = []
            for head, body in zip(partner.heads, partner.bodies, strict=True):
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
                taken.append([_takes(key, headers, body) for key in (first, second, third)])
            assert taken == [[True, True, False], [False, False, True]]
            await run(hub, "remove-endpoint", partner="so-noi-vu", endpoint="chinh")


def _takes(made: Json, headers: dict[str, str], body: bytes) -> bool:
    key = parse_public_key(made["public_key"]) if "public_key" in made else parse_secret(made["secret"])
    try:
        return bool(verify([key], headers, body, datetime.now(UTC)))
    except HubError:
        return False


async def test_what_a_file_manages_is_listed_and_refused_naming_the_file(hub: HubApp) -> None:
    shown = await run(hub, "show", partner="bhxh")
    assert (shown["managed_by"], shown["file"]) == ("file", "connections/bhxh.toml")
    assert shown["contact"] == "cntt@bhxh.example"
    for name, params in (
        ("grant", GRANT), ("end-grant", {"grant": "00"}), ("endpoint", {"endpoint": "a", "url": "https://a.vn/"}),
        ("change-endpoint", {"endpoint": "a"}), ("remove-endpoint", {"endpoint": "a"}), ("rotate", {"endpoint": "a"}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"connections/bhxh\.toml") as raised:
            await run(hub, name, partner="bhxh", **params)
        assert (raised.value.http_status, raised.value.problem) == (409, "managed-by-file")
    with pytest.raises(InputError, match="taken"):
        await run(hub, "add", partner="bhxh")


async def test_the_guard_stands_before_every_address_that_is_saved(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    for url in ("https://10.0.0.1/", "https://localtest.localhost.localdomain/", "https://0x7f.1/", "ftp://a.vn/"):
        if "localhost" not in url:
            with pytest.raises(InputError) as raised:
                await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=url)
            assert raised.value.http_status == 422
    await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url="https://127.0.0.1:9/")
    for change in ("https://10.0.0.1/", "http://nhan.example.vn/"):
        with pytest.raises(InputError) as raised:
            await run(hub, "change-endpoint", partner="so-noi-vu", endpoint="chinh", url=change)
        assert raised.value.http_status == 422
    shown = await run(hub, "show", partner="so-noi-vu")
    assert [each["url"] for each in shown["endpoints"]] == ["https://127.0.0.1:9/"]
    changed = await run(
        hub, "change-endpoint", partner="so-noi-vu", endpoint="chinh", mode="binary", filter="data.unit"
    )
    assert (changed["endpoints"][0]["mode"], changed["endpoints"][0]["filter"]) == ("binary", "data.unit")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("add", {"partner": "../x"}), ("add", {"partner": "A"}), ("add", {"partner": "a", "contact": "a\nb@c.vn"}),
        ("grant", {"partner": "a", **GRANT, "fields": ["a b"]}), ("grant", {"partner": "a", **GRANT, "types": ["*"]}),
        ("grant", {"partner": "a", **GRANT, "purpose": ""}), ("grant", {"partner": "a", **GRANT, "legal_basis": ""}),
        ("endpoint", {"partner": "a", "endpoint": "b/c", "url": "https://a.vn"}),
        ("endpoint", {"partner": "a", "endpoint": "b", "url": "https://a.vn", "filter": "a ||"}),
        ("endpoint", {"partner": "a", "endpoint": "b", "url": "https://a.vn", "timeout_s": 61}),
        ("rotate", {"partner": "a", "endpoint": "b", "overlap_hours": 721}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_runs(name: str, params: Json) -> None:
    (command,) = [each for each in COMMANDS if each.name == name]
    with pytest.raises(ValidationError):
        command.params.model_validate(params)


async def test_a_partners_own_key_sees_and_changes_that_partner_alone(hub: HubApp) -> None:
    for name in ("so-noi-vu", "so-y-te"):
        await run(hub, "add", partner=name)
        await run(hub, "endpoint", partner=name, endpoint="chinh", url="https://nhan.example.vn/")
    own = Principal(name="k", scopes=frozenset({"partners:read", "partners:write"}), owner="partner:so-noi-vu")
    with asked_by(own):
        listed = await run(hub, "list")
        assert [each["partner"] for each in listed["partners"]] == ["so-noi-vu"]
        assert (await run(hub, "show", partner="so-noi-vu"))["partner"] == "so-noi-vu"
        narrowed = [each for each in COMMANDS if each.rest is not None and each.rest.narrows and each.name != "list"]
        assert {each.name for each in narrowed} >= {
            "show",
            "endpoint",
            "rotate",
            "remove-endpoint",
            "test",
            "try-filter",
        }
        params = {"endpoint": "chinh", "url": "https://x.vn/", "filter": "a", "event": str(new_id())}
        for command in narrowed:
            wanted = {name: value for name, value in params.items() if name in command.params.model_fields}
            told = []
            for other in ("so-y-te", "bhxh", "khong-co"):
                with pytest.raises(NotFound) as raised:
                    await run(hub, command.name, partner=other, **wanted)
                told.append(str(raised.value))
            assert len(set(told)) == 1, "another's is as if absent"
    officers = {each.name for each in COMMANDS if each.rest is not None and not each.rest.narrows}
    assert officers == {"add", "grant", "end-grant"}


async def test_a_filter_is_tried_on_the_last_events_that_the_partner_may_see(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    await run(hub, "grant", partner="so-noi-vu", **{**GRANT, "begins": "2020-01-01"})
    for n in range(25):
        data = {"unit": f"U-{n % 2}", "phone": "0912000456"}
        await hub.commit(UnitOfWork(drafts=[Draft(type=TYPE, source="/t", dedupe_key=str(new_id()), data=data)]))
    tried = await run(hub, "try-filter", partner="so-noi-vu", filter="data.unit == 'U-1'")
    assert (tried["tried"], tried["matching"]) == (20, 10)
    assert {each["why"] for each in tried["events"]} == {"value: true", "value: false"}
    hidden = await run(hub, "try-filter", partner="so-noi-vu", filter="data.phone")
    assert (hidden["matching"], {each["why"] for each in hidden["events"]}) == (0, {"value: null"})
    assert "0912000456" not in repr((tried, hidden))
    with pytest.raises(InputError, match="JMESPath"):
        await run(hub, "try-filter", partner="so-noi-vu", filter="a ||")


async def test_a_test_event_is_signed_marked_and_goes_past_the_same_guard(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    async with listening(Listener(), "127.0.0.1") as partner:
        url = f"http://127.0.0.1:{partner.port}/hook"
        made = await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=url)
        sent = await run(hub, "test", partner="so-noi-vu", endpoint="chinh")
        assert (sent["failed"], sent["status"]) == (False, 200)
        assert b'"test":true' in partner.bodies[0]
        with pytest.raises(InputError, match="no grant"):
            await run(hub, "test", partner="so-noi-vu", endpoint="chinh", type="vn.congdoan.endpoint.disabled.v1")
        given = {**GRANT, "types": "vn.congdoan.endpoint.*", "fields": "partner,reason"}
        await run(hub, "grant", partner="so-noi-vu", **given)
        for mode in ("structured", "binary", "webhook"):
            await run(hub, "change-endpoint", partner="so-noi-vu", endpoint="chinh", mode=mode)
            await run(hub, "test", partner="so-noi-vu", endpoint="chinh", type="vn.congdoan.endpoint.disabled.v1")
            seen = json.loads(partner.bodies[-1])
            assert seen.get("data", seen) == {"partner": "so-noi-vu", "reason": "failing_too_long"}
            assert seen.get("test") is True or b"\r\nce-test: true\r\n" in partner.heads[-1]
        headers = dict(line.split(": ", 1) for line in partner.heads[0].decode().split("\r\n")[1:] if ": " in line)
        assert _takes(made, headers, partner.bodies[0])
    inside = tables.CHANGE_ENDPOINT(
        partner="so-noi-vu", name="chinh", url="https://10.0.0.1/", types=b"[]",
        settings=b'{"mode":"structured","filter":"","timeout_s":1,"concurrency":1,"rate_per_s":null}',
    )  # fmt: skip
    await hub.commit(UnitOfWork(statements=[inside]))
    with pytest.raises(InputError) as raised:
        await run(hub, "test", partner="so-noi-vu", endpoint="chinh")
    assert raised.value.problem == "url-not-public"


async def test_the_feed_shows_a_partners_key_the_granted_part_alone(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    view = PartnerFeed(hub)
    own = Principal(name="k", owner="partner:so-noi-vu")
    assert await view(own, event(unit="U", phone="P")) is None
    given = await run(hub, "grant", partner="so-noi-vu", **GRANT)
    one = event(unit="U", phone="P")
    shown = await view(own, one)
    assert shown is not None and (shown["data"], shown["id"]) == ({"unit": "U"}, str(one.id))
    assert await view(Principal(name="k", owner="partner:so-y-te"), one) is None
    assert await view(Principal(name="k", owner="so-noi-vu"), one) is None, "another plugin's owner of that name"
    await run(hub, "end-grant", partner="so-noi-vu", grant=given["grant"])
    assert await view(own, one) is None


# -- while the hub runs ------------------------------------------------------------------------------


async def emit(hub: HubApp, count: int) -> None:
    for n in range(count):
        data = {"unit": f"U-{n}", "phone": "0912000456"}
        await hub.commit(UnitOfWork(drafts=[Draft(type=TYPE, source="/t", dedupe_key=str(new_id()), data=data)]))


def states(hub: HubApp) -> Callable[[], Any]:
    async def found() -> list[str]:
        rows = await views.deliveries(hub.store, destination="doi-tac/so-noi-vu.chinh", limit=500)
        return sorted(f"{row['state']}({row['reason']})" if row["reason"] else row["state"] for row in rows)

    return found


def routed(hub: HubApp) -> bool:
    return any(one.name == "partners:so-noi-vu.chinh" for one in hub.router.subscriptions)


@ON_BOTH
async def test_what_is_granted_flows_without_a_restart_and_what_is_ended_stops(hub: HubApp) -> None:
    async with listening(Listener(), "127.0.0.1") as partner:
        await emit(hub, 1)  # nobody is there yet
        await run(hub, "add", partner="so-noi-vu")
        url = f"http://127.0.0.1:{partner.port}/hook"
        await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=url)
        given = await run(hub, "grant", partner="so-noi-vu", **GRANT)
        await eventually(lambda: routed(hub))
        await emit(hub, 3)

        async def three() -> bool:
            return await states(hub)() == ["delivered"] * 3

        await eventually(three)
        assert sorted(json.loads(body)["data"]["unit"] for body in partner.bodies) == ["U-0", "U-1", "U-2"]
        assert b"0912000456" not in b"".join(partner.bodies)

        partner.answer = b"HTTP/1.1 503 X\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        await emit(hub, 2)

        async def held() -> bool:
            [(until,)] = await hub.store.read("SELECT not_before FROM destination WHERE id = 'doi-tac/so-noi-vu.chinh'")
            return bool(until)

        await eventually(held)
        await run(hub, "end-grant", partner="so-noi-vu", grant=given["grant"])
        await eventually(lambda: not routed(hub))
        await emit(hub, 1)
        assert len(await states(hub)()) == 5, "nothing is owed any more"


async def test_a_delivery_that_is_still_owed_when_its_grant_ends_is_cancelled(hub: HubApp) -> None:
    await run(hub, "add", partner="so-noi-vu")
    async with listening(Listener(), "127.0.0.1") as gone:
        pass
    await run(hub, "endpoint", partner="so-noi-vu", endpoint="chinh", url=f"http://127.0.0.1:{gone.port}/hook")
    given = await run(hub, "grant", partner="so-noi-vu", **GRANT)
    await eventually(lambda: routed(hub))
    await emit(hub, 2)

    async def tried() -> bool:
        return all(state.startswith("pending(connect") for state in await states(hub)())

    await eventually(tried)
    await run(hub, "end-grant", partner="so-noi-vu", grant=given["grant"])
    await eventually(lambda: not routed(hub))

    async def cancelled() -> bool:
        assert hub.worker is not None
        hub.worker.wake()
        return await states(hub)() == ["cancelled(grant_ended)"] * 2

    await eventually(cancelled)
