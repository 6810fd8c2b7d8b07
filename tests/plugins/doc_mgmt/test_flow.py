"""Documents through a whole hub: pulled, stored once, registered, both statuses sent back in order."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import bindparam, update

from hub import views
from hub.app import HubApp
from hub.contract import Sealed, UnitOfWork
from hub.errors import NotFound
from hub.model import Event, Json, new_id
from hub.plugins import Registry
from hub.sql import query
from hub.testing import START, eventually, running_hub
from plugins.doc_mgmt import tables
from plugins.doc_mgmt.register import register
from plugins.doc_mgmt.schema import RECEIVED, STATUS_ISSUED
from plugins.doc_mgmt.simulator.packets import Packet, broken_packet
from tests.engines import ON_BOTH, stored_bytes
from tests.plugins.doc_mgmt.support import Partner, StartAxis

SUBSCRIPTIONS: list[dict[str, Any]] = [
    {"name": "dang-ky", "types": [RECEIVED], "to": "handler:doc_mgmt.register"},
    {"name": "trang-thai", "types": [STATUS_ISSUED], "to": "axis"},
]
REPLACE_RAW = query(
    update(tables.QUARANTINE).where(tables.QUARANTINE.c.id == bindparam("of")).values(raw_sealed=bindparam("raw"))
)
OpenHub = Callable[..., AbstractAsyncContextManager[HubApp]]


@pytest.fixture
def open_hub(tmp_path: Path, registry: Registry, database_url: str) -> OpenHub:
    @asynccontextmanager
    async def opened(partner: Partner, **changes: Any) -> AsyncIterator[HubApp]:
        async with running_hub(
            tmp_path,
            registry,
            connections={"axis": partner.connection(**changes)},
            subscriptions=SUBSCRIPTIONS,
            settings={"retry": {"schedule_s": [0.05] * 10}, "database_url": database_url},
        ) as hub:
            yield hub

    return opened


async def pulled(hub: HubApp) -> Json:
    """One whole run; its line."""
    before = len(await views.runs(hub.store, 1000))
    await hub.pull_now("axis")

    async def finished() -> Json | None:
        runs = await views.runs(hub.store, 1000)
        return runs[0] if len(runs) > before and runs[0]["state"] in ("done", "failed") else None

    line: Json = await eventually(finished)
    return line


async def settled(hub: HubApp) -> None:
    async def nothing_left() -> bool:
        return not await views.unsettled(hub.store)

    await eventually(nothing_left)


async def count(hub: HubApp, table: str) -> int:
    return int((await hub.store.read(f"SELECT count(*) FROM {table}"))[0][0])


async def run(hub: HubApp, command: str, **params: Any) -> Json:
    found = hub.registry.commands[f"documents {command}"]
    return await found.run(hub, found.params.model_validate(params), lambda _: None)


async def repairs(hub: HubApp) -> set[str]:
    return {item["kind"] for item in await views.repairs(hub.store)}


@ON_BOTH
async def test_every_document_is_stored_registered_and_answered_in_order(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=9)
    async with open_hub(partner, page_size=4) as hub:
        line = await pulled(hub)
        await settled(hub)
        assert (line["state"], line["pages"]) == ("done", 3)
        documents = (await run(hub, "list"))["documents"]
        assert len(documents) == 9
        assert {item["state"] for item in documents} == {"registered"}
        assert sorted(int(item["arrival"].split("/")[0]) for item in documents) == list(range(1, 10))
        assert await count(hub, "doc_mgmt_attachment") == 10
    readable = {packet.document_id for packet in partner.axis.packets.values()} - {""}
    assert sorted(partner.taken()) == sorted(
        f"{document_id}:{code}" for document_id in readable for code in ("01", "03")
    )
    state = partner.axis.state()
    assert (state["repeats"], state["out_of_order"], state["unmarked"]) == (0, 0, 0)
    assert state["marked"] == {"done": 10, "fail": 1}


@ON_BOTH
async def test_a_second_pull_brings_nothing_new(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=3, only_readable=True)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        events = await count(hub, "event")
        partner.axis.marks.clear()  # the axis shows everything again
        await pulled(hub)
        await settled(hub)
        assert await count(hub, "event") == events
        assert await count(hub, "doc_mgmt_document") == 3
        await partner.put(add=2)
        assert (await pulled(hub))["items"] == 4
    assert len(partner.axis.marks) == 5
    assert partner.axis.state()["repeats"] == 0


@ON_BOTH
async def test_the_same_document_under_another_id_is_counted_and_acknowledged(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=1)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        (document,) = (await run(hub, "list"))["documents"]
        shown = await run(hub, "show", id=document["id"])
        assert (shown["repeats"], shown["differing_repeats"]) == (1, 0)
        original = partner.axis.packets["SIM7-000000"].content
        other = original.replace(b"<edXML:Subject>", b"<edXML:Subject>Sua ")
        partner.axis.packets["SIM7-9"] = Packet("SIM7-9", "", "", "differing", other)
        await pulled(hub)
        shown = await run(hub, "show", id=document["id"])
        assert (shown["repeats"], shown["differing_repeats"]) == (2, 1)
    assert partner.axis.marks["SIM7-900001"] == partner.axis.marks["SIM7-9"] == "done"


@ON_BOTH
async def test_a_packet_nobody_can_read_is_kept_and_the_others_go_on(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=2)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        assert await repairs(hub) == {"packets_quarantined"}
        (kept,) = (await run(hub, "quarantine"))["quarantine"]
        broken = broken_packet(7)
        assert (kept["doc_id"], kept["reason"], kept["state"]) == (broken.doc_id, "xml_malformed", "kept")
        (sealed,) = (await hub.store.read("SELECT raw_sealed FROM doc_mgmt_quarantine"))[0]
        assert await hub.unseal([(kept["id"], sealed)]) == [broken.content]
        assert broken.content[:200] not in sealed
        assert partner.axis.marks[broken.doc_id] == "fail"
        assert await run(hub, "reparse", id=kept["id"]) == {"failed": True, "reason": "xml_malformed"}
        assert await run(hub, "resolve", id=kept["id"]) == {"resolved": True}
        assert (await run(hub, "resolve", id=kept["id"]))["failed"]
        await pulled(hub)
        assert await repairs(hub) == set()


@ON_BOTH
async def test_a_kept_packet_that_reads_today_is_stored_and_answered(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    async with open_hub(partner) as hub:
        good = partner.axis.packets["SIM7-000000"]
        partner.axis.packets["SIM7-000000"] = Packet(good.doc_id, good.document_id, "", "", b"<edXML>")
        await pulled(hub)
        (kept,) = (await run(hub, "quarantine"))["quarantine"]
        # as if the reader had learnt to read it: the sealed bytes are replaced by readable ones
        repaired = query(
            update(tables.QUARANTINE)
            .where(tables.QUARANTINE.c.id == bindparam("of"))
            .values(raw_sealed=bindparam("raw"))
        )
        await hub.commit(
            UnitOfWork(statements=[repaired(of=UUID(kept["id"]).bytes, raw=Sealed(kept["id"], good.content))])
        )
        assert await run(hub, "reparse", id=kept["id"]) == {"stored": True}
        assert (await run(hub, "reparse", id=kept["id"]))["reason"] == "already_resolved"
        await settled(hub)
    assert partner.taken() == [f"{good.document_id}:01", f"{good.document_id}:03"]


async def test_a_secret_document_is_refused_and_nothing_of_it_is_kept(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    packet = partner.axis.packets["SIM7-000000"]
    secret = packet.content.replace(b"<edXML:Subject>", "<edXML:Subject>[TỐI MẬT] ".encode())
    partner.axis.packets[packet.doc_id] = Packet(packet.doc_id, packet.document_id, "", "", secret)
    async with open_hub(partner) as hub:
        await pulled(hub)
        assert await repairs(hub) == {"secret_document_refused"}
        assert await hub.store.read("SELECT reason, raw_sealed FROM doc_mgmt_quarantine") == [("secrecy_mark", None)]
        assert await count(hub, "event") == 0
        (kept,) = (await run(hub, "quarantine"))["quarantine"]
        assert (await run(hub, "reparse", id=kept["id"]))["reason"] == "content_not_kept"
    assert partner.axis.marks == {packet.doc_id: "fail"}


@ON_BOTH
async def test_the_attachment_is_sealed_on_disk_and_saved_under_our_own_name(
    start_axis: StartAxis, open_hub: OpenHub, tmp_path: Path
) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    out = tmp_path / "ra"
    async with open_hub(partner) as hub:
        await pulled(hub)
        (document,) = (await run(hub, "list"))["documents"]
        shown = await run(hub, "show", id=document["id"])
        assert shown["attachments"][0]["name"] == "Văn bản số 1 (bản ký).pdf"
        assert await run(hub, "save", id=document["id"], out=out) == {
            "failed": True, "reason": "folder_missing", "out": str(out),
        }  # fmt: skip
        out.mkdir()
        planted = tmp_path / "khac"
        planted.write_text("khac")
        digest = shown["attachments"][0]["sha256"]
        name = f"{document['id']}-1-{digest[:12]}.pdf"
        (out / name).symlink_to(planted)
        (saved,) = (await run(hub, "save", id=document["id"], out=out))["saved"]
        content = (out / name).read_bytes()
        assert saved["file"] == str(out / name)
        assert hashlib.sha256(content).hexdigest() == digest
        assert ((out / name).stat().st_mode & 0o777, planted.read_text()) == (0o600, "khac")
        with pytest.raises(NotFound):
            await run(hub, "show", id=str(new_id()))
        ledger = await stored_bytes(hub)
    assert content.startswith(b"%PDF")
    for readable in (content[:20], document["subject_line"].encode(), b"Minh H", "bản ký".encode()):
        assert readable not in ledger


async def test_the_thin_event_holds_codes_and_never_the_subject_line(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        thin = hub.registry.event_types[RECEIVED].thin
        (event,) = [e for e in await views.events(hub.store) if e["type"] == RECEIVED]
    assert event["subject"] and event["source"].endswith("/connections/axis")
    assert set(thin) == {"document_id", "doc_id", "from_organ_id", "code", "promulgated_on", "attachment_count"}


async def test_statuses_wait_while_the_axis_answers_errors_and_each_arrives_once(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=5, only_readable=True, fail_share=1.0)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        states = {item["state"] for item in await views.deliveries(hub.store)}
    assert states == {"delivered"}
    state = partner.axis.state()
    assert (state["statuses_taken"], state["repeats"], state["out_of_order"], state["failed_first"]) == (10, 0, 0, 10)


async def test_an_answer_withheld_is_an_ambiguous_attempt_and_the_same_bytes_go_again(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    async with open_hub(partner, timeout_s=0.3) as hub:
        await partner.put(withhold=True)
        await pulled(hub)
        await eventually(lambda: len(partner.lines()) >= 2)
        await partner.put(withhold=False)
        await settled(hub)
        deliveries = await views.deliveries(hub.store, destination="axis")
        first = await views.delivery(hub.store, UUID(deliveries[-1]["id"]).bytes)
        assert first is not None and first["attempts"][0]["outcome"] == "ambiguous"
        assert {item["state"] for item in deliveries} == {"delivered"}
    assert partner.axis.state()["repeats"] >= 1
    assert partner.axis.state()["out_of_order"] == 0


async def test_an_axis_that_is_down_fails_the_run_and_the_next_one_catches_up(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=2, only_readable=True)
    async with open_hub(partner) as hub:
        await partner.put(down=True)
        assert (await pulled(hub))["state"] == "failed"
        await partner.put(down=False)
        assert (await pulled(hub))["state"] == "done"
        await settled(hub)
        assert await count(hub, "doc_mgmt_document") == 2


async def test_an_axis_that_marks_nothing_does_not_keep_a_run_going_for_ever(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=3, only_readable=True)
    async with open_hub(partner, page_size=1) as hub:
        await partner.put(refuse_marks=True)
        line = await pulled(hub)
        assert (line["state"], line["pages"]) == ("done", 3)
        await partner.put(refuse_marks=False)
        assert (await pulled(hub))["items"] == 0
        assert await count(hub, "doc_mgmt_document") == len(partner.axis.marks) == 3


async def test_a_dead_credential_opens_one_repair_and_is_cleared_by_the_first_success(
    start_axis: StartAxis, open_hub: OpenHub
) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    async with open_hub(partner) as hub:
        right = partner.axis.secret
        partner.axis.secret = b"doi-roi"
        assert (await pulled(hub))["state"] == "failed"
        assert await repairs(hub) == {"login_refused"}
        partner.axis.secret = right
        assert (await pulled(hub))["state"] == "done"
        assert await repairs(hub) == set()


async def test_a_packet_too_large_stays_on_the_axis_with_a_repair(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=2, only_readable=True)
    small = partner.axis.packets["SIM7-000000"]
    partner.axis.packets["SIM7-000000"] = Packet(small.doc_id, "", "", "", b" " * (3 << 20))
    async with open_hub(partner, max_packet_mb=1) as hub:
        await pulled(hub)
        assert await repairs(hub) == {"packet_too_large"}
        assert list(partner.axis.marks) == ["SIM7-000001"]
        partner.axis.packets["SIM7-000000"] = small
        await pulled(hub)
        assert await repairs(hub) == set()
        assert await count(hub, "doc_mgmt_document") == 2


@ON_BOTH
async def test_registering_many_at_once_leaves_no_gap_and_no_double(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=40, only_readable=True)
    async with open_hub(partner, page_size=40) as hub:
        await pulled(hub)
        await settled(hub)
        rows = await hub.store.read("SELECT arrival_number FROM doc_mgmt_document ORDER BY arrival_number")
        assert [number for (number,) in rows] == list(range(1, 41))


@ON_BOTH
async def test_registering_twice_changes_nothing(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        (document,) = (await run(hub, "list"))["documents"]
        assert await register(_event(document_id=document["id"]), hub) == UnitOfWork()
        unknown = await register(_event(document_id=str(new_id())), hub)
        missing = await register(_event(), hub)
        assert [getattr(item, "reason", None) for item in (unknown, missing)] == [
            "document_unknown",
            "document_id_missing",
        ]


def _event(**data: str) -> Event:
    return Event(
        id=new_id(), type=RECEIVED, source="/t", subject=None, occurred_at=START, data=data, scope="",
        correlation_id=new_id(),
    )  # fmt: skip


async def test_a_revocation_is_kept_but_gets_no_arrival_number(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    new = partner.axis.packets["SIM7-000000"]
    revocation = new.content.replace(b"BussinessDocType>0", b"BussinessDocType>1")
    partner.axis.packets["SIM7-000001"] = Packet("SIM7-000001", new.document_id, new.sender, "revoke", revocation)
    async with open_hub(partner) as hub:
        await pulled(hub)
        await settled(hub)
        rows = await hub.store.read("SELECT business_type, state FROM doc_mgmt_document ORDER BY business_type")
        assert rows == [(0, "registered"), (1, "received")]


async def test_each_axis_is_told_only_about_its_own_documents(
    start_axis: StartAxis, registry: Registry, tmp_path: Path
) -> None:
    partner = await start_axis(documents=1, only_readable=True)
    subscriptions = [*SUBSCRIPTIONS, {"name": "truc-hai", "types": ["vn.congdoan.document.*"], "to": "axis-2"}]
    connections = {"axis": partner.connection(), "axis-2": partner.connection()}
    async with running_hub(tmp_path, registry, connections=connections, subscriptions=subscriptions) as hub:
        await pulled(hub)
        await settled(hub)
        ended = {(item["destination"], item["state"], item["reason"]) for item in await views.deliveries(hub.store)}
    assert ended == {
        ("axis", "delivered", ""),
        ("handler:doc_mgmt.register", "delivered", ""),
        ("axis-2", "cancelled", "other_axis"),
        ("axis-2", "cancelled", "event_type_not_sendable"),
    }


async def test_check_tells_each_step_apart(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=2, only_readable=True)
    async with open_hub(partner) as hub:
        check = hub.connections["axis"].check
        assert check is not None
        steps = [(step.step, step.ok, step.detail) async for step in check()]
        assert steps == [
            ("dns", True, "addresses=1"), ("tcp", True, f"port={partner.port}"), ("tls", True, "not_used"),
            ("login", True, "waiting=2"),
        ]  # fmt: skip
        partner.axis.secret = b"khac"
        assert [(step.step, step.ok, step.detail) async for step in check()][-1] == ("login", False, "login_refused")


@ON_BOTH
async def test_the_hub_killed_between_commit_and_mark_repeats_nothing(start_axis: StartAxis, open_hub: OpenHub) -> None:
    partner = await start_axis(documents=3, only_readable=True)
    async with open_hub(partner) as hub:
        source = hub.connections["axis"].source
        assert source is not None
        page = await source.page(None)
        await hub.commit(page.unit)  # and no acknowledge: as after a crash
    async with open_hub(partner) as hub:
        assert (await pulled(hub))["items"] == 0
        await settled(hub)
        assert await count(hub, "doc_mgmt_document") == 3
    assert len(partner.axis.marks) == 3
