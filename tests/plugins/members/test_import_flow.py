"""A list goes into a real hub: once, again, changed, refused; and the Directory answers from what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import xlsxwriter

from hub.app import HubApp
from hub.contract import Committed, Connection, Hub, UnitOfWork
from hub.errors import Conflict, InputError, NotFound
from hub.model import Json
from hub.plugins import load_plugins
from hub.testing import RecordingSink, StandingClock, connector, eventually, registry_of, running_hub
from plugins.members import importing
from plugins.members.commands import ImportParams
from plugins.members.directory import MemberDirectory
from tests.engines import ON_BOTH, stored_bytes
from tests.flow.front_door import captured_log

from .conftest import Maker

HEADER = ["STT", "Họ và tên", "Ngày sinh", "Giới tính", "Số CCCD", "SĐT", "Mã đơn vị", "Cài app", "Tình trạng"]
HOA = [1, "Lê Thị Hoa", "05/03/1985", "Nữ", "019185001234", "0912555001", "U-1", "x", ""]
AN = [2, "Ma Văn An", "06/03/1986", "Nam", "019086001234", "0912555002", "U-1", "", ""]


def installed() -> Any:
    return load_plugins(points=[EntryPoint("members", "plugins.members", "unionhub.plugins")])


@asynccontextmanager
async def hub_in(folder: Path, database_url: str = "") -> AsyncIterator[HubApp]:
    registry = installed()
    assert not registry.broken
    settings = {"database_url": database_url}
    async with running_hub(
        folder, registry, connections={}, settings=settings, clock=StandingClock(), start=False
    ) as hub:
        yield hub


def written(path: Path, *rows: list[Any]) -> Path:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet("DS")
        for index, row in enumerate([HEADER, *rows]):
            sheet.write_row(index, 0, row)
    return path


async def call(hub: HubApp, name: str, **params: Any) -> Json:
    command = hub.registry.commands[f"members {name}"]
    return await command.run(hub, command.params.model_validate(params), lambda progress: None)


async def count(hub: HubApp, table: str) -> int:
    ((rows,),) = await hub.store.read(f"SELECT count(*) FROM {table}", ())
    return int(rows)


async def events(hub: HubApp) -> list[tuple[str, str]]:
    """Type and dedupe key's subject of every event, oldest first."""
    rows = await hub.store.read("SELECT type, subject FROM event ORDER BY id", ())
    return [(str(a), str(b)) for a, b in rows]


@ON_BOTH
async def test_the_sample_list_is_imported_as_expected_with_one_event_per_person(
    made: Maker, tmp_path: Path, database_url: str
) -> None:
    path, expected = made(7).path, made(7).expected
    seen: list[Any] = []
    async with hub_in(tmp_path, database_url) as hub:
        command = hub.registry.commands["members import"]
        report = tmp_path / "loi.xlsx"
        answer = await command.run(hub, ImportParams(file=path, report=report), seen.append)
        found = [{k: p[k] for k in ("sheet", "row", "column", "code")} for p in answer["problems"]]
        assert found == expected["errors"]
        assert (answer["created"], answer["duplicates"], answer["bad_rows"]) == (
            expected["created"], expected["duplicates"], expected["bad_rows"],
        )  # fmt: skip
        assert await count(hub, "members_member") == await count(hub, "event") == expected["created"]
        coverage = await call(hub, "units")
        assert {u.pop("unit"): u for u in coverage["units"]} == expected["units"]
        assert coverage["total"]["with_app"] == expected["members_with_app"]
        assert coverage["total"]["with_phone"] == expected["members_with_phone"]
        assert report.exists()
        assert seen[-1] == {"phase": "import", "done": expected["created"], "total": expected["created"]}


async def test_the_same_rows_in_another_order_and_file_change_nothing(made: Maker, tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        await call(hub, "import", file=made(7).path)
        before = await hub.store.read("SELECT * FROM members_member ORDER BY subject", ())
        answer = await call(hub, "import", file=made(7, True).path)
        assert (answer["created"], answer["updated"], answer["unchanged"]) == (0, 0, made(7).expected["created"])
        assert await hub.store.read("SELECT * FROM members_member ORDER BY subject", ()) == before
        assert await count(hub, "event") == made(7).expected["created"]


@ON_BOTH
async def test_one_edited_cell_gives_exactly_one_event(made: Maker, tmp_path: Path, database_url: str) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=made(7).path)
        answer = await call(hub, "import", file=made(7, False, 3).path)
        assert (answer["created"], answer["updated"]) == (0, 1)
        last = (await events(hub))[-1]
        assert last[0] == "vn.congdoan.member.updated.v1"
        assert await count(hub, "event") == made(7).expected["created"] + 1
        ((version,),) = await hub.store.read("SELECT version FROM members_member WHERE subject = ?", (last[1],))
        assert version == 2


async def test_a_dry_run_counts_the_same_and_writes_nothing(made: Maker, tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        tried = await call(hub, "import", file=made(7).path, dry_run=True)
        assert await count(hub, "members_member") == await count(hub, "members_unit") == await count(hub, "event") == 0
        done = await call(hub, "import", file=made(7).path)
        assert {**tried, "dry_run": False} == done


async def test_an_event_carries_what_changed_and_a_subscriber_sees_ids_unless_it_names_a_field(tmp_path: Path) -> None:
    thin, named = RecordingSink(), RecordingSink()
    registry = registry_of(
        installed(),
        connector_types=[connector("thin", Connection(sink=thin)), connector("named", Connection(sink=named))],
    )
    subscriptions = [
        {"name": "a", "types": ["vn.congdoan.member.*"], "to": "thin"},
        {"name": "b", "types": ["vn.congdoan.member.*"], "to": "named", "fields": ["member_id", "values.phone"]},
    ]
    connections: dict[str, dict[str, Any]] = {"thin": {}, "named": {}}
    async with running_hub(tmp_path, registry, connections=connections, subscriptions=subscriptions) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA))
        await call(hub, "import", file=written(tmp_path / "b.xlsx", [*HOA[:5], "0912555009", *HOA[6:]]))
        await eventually(lambda: len(thin.shipments) == len(named.shipments) == 2)
    bodies = [orjson.loads(s.body) for s in thin.shipments]
    assert [set(b) for b in bodies] == [{"member_id", "unit_id", "changed"}] * 2
    assert bodies[1]["changed"] == ["phone"]
    assert [orjson.loads(s.body)["values"] for s in named.shipments] == [
        {"phone": "+84912555001"}, {"phone": "+84912555009"},
    ]  # fmt: skip


@ON_BOTH
async def test_nothing_about_a_person_is_readable_in_the_database(tmp_path: Path, database_url: str) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA))
        stored = await stored_bytes(hub)
    assert b"U-1" in stored
    for secret in ("Lê Thị Hoa", "912555001", "019185001234", "1985-03-05"):
        assert secret.encode() not in stored


async def test_an_empty_cell_says_nothing_and_an_absent_mark_says_no(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA))
        await call(hub, "import", file=written(tmp_path / "b.xlsx", [*HOA[:5], "", "U-2", "", ""]))
        ((member,),) = [(await call(hub, "show", who="019185001234"))["members"]]
        assert (member["phone"], member["unit"], member["has_app"], member["version"]) == (
            "0912***001",
            "U-2",
            False,
            2,
        )


@ON_BOTH
async def test_a_person_known_by_name_gains_a_citizen_number_and_stays_the_same_member(
    tmp_path: Path, database_url: str
) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", [*HOA[:4], "", *HOA[5:]]))
        answer = await call(hub, "import", file=written(tmp_path / "b.xlsx", HOA))
        assert (answer["created"], answer["updated"]) == (0, 1)
        answer = await call(hub, "import", file=written(tmp_path / "c.xlsx", [*HOA[:4], "", *HOA[5:]]))
        assert (answer["created"], answer["updated"], answer["unchanged"]) == (0, 0, 1)
        namesake = [*HOA[:4], "019185009999", *HOA[5:]]
        answer = await call(hub, "import", file=written(tmp_path / "d.xlsx", HOA, namesake))
        assert (answer["created"], answer["unchanged"]) == (1, 1)
        answer = await call(hub, "import", file=written(tmp_path / "e.xlsx", [*HOA[:4], "", *HOA[5:]]))
        assert [p["code"] for p in answer["problems"]] == ["person_ambiguous"]


@ON_BOTH
async def test_two_imports_at_once_make_each_person_once(made: Maker, tmp_path: Path, database_url: str) -> None:
    with captured_log() as lines:
        async with hub_in(tmp_path, database_url) as hub:
            answers = await asyncio.gather(
                call(hub, "import", file=made(7).path), call(hub, "import", file=made(7, True).path)
            )
            total = made(7).expected["created"]
            assert sum(a["created"] for a in answers) == total
            assert sum(a["unchanged"] for a in answers) == total
            assert await count(hub, "event") == await count(hub, "members_member") == total
    assert b"DeadlockDetectedError" not in lines.getvalue()


class Counting:
    """A hub that counts what is asked of it."""

    def __init__(self, hub: HubApp) -> None:
        self._hub, self.commits, self.unsealed = hub, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    async def commit(self, unit: UnitOfWork) -> Committed:
        self.commits += 1
        return await self._hub.commit(unit)

    async def unseal(self, sealed: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
        self.unsealed += len(sealed)
        return await self._hub.unseal(sealed)


async def test_a_repeated_list_writes_nothing_and_decrypts_nobody(made: Maker, tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        await call(hub, "import", file=made(7).path)
        counting = Counting(hub)
        command = hub.registry.commands["members import"]
        await command.run(cast(Hub, counting), ImportParams(file=made(7, True).path), lambda progress: None)
        assert (counting.commits, counting.unsealed) == (0, 0)


class Racing:
    """A hub on which somebody else always commits first, ``times`` times."""

    def __init__(self, hub: HubApp, times: int) -> None:
        self._hub, self.left = hub, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    async def commit(self, unit: UnitOfWork) -> Committed:
        if self.left and unit.guards:
            self.left -= 1
            raise Conflict
        return await self._hub.commit(unit)


@pytest.mark.parametrize(
    ("times", "stands"), [(1, True), (importing.MAX_TRIES - 1, True), (importing.MAX_TRIES, False)]
)
async def test_a_page_that_lost_a_race_is_planned_anew_a_few_times(tmp_path: Path, times: int, stands: bool) -> None:
    path = written(tmp_path / "a.xlsx", HOA, AN)
    async with hub_in(tmp_path) as hub:
        racing = cast(Hub, Racing(hub, times))
        command = hub.registry.commands["members import"]
        try:
            await command.run(racing, ImportParams(file=path), lambda progress: None)
        except Conflict:
            assert not stands
        assert await count(hub, "event") == (2 if stands else 0)


@pytest.mark.parametrize("content", [b"PK\x03\x04broken", b"no workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
async def test_a_refused_file_fails_with_the_reason_and_changes_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hỏng.xlsx"
    path.write_bytes(content)
    async with hub_in(tmp_path) as hub:
        answer = await call(hub, "import", file=path)
        render = hub.registry.commands["members import"].render
        assert answer["failed"] is True
        assert render is not None
        assert "Chưa có gì được ghi" in render(answer, "vi")
        assert await count(hub, "members_member") == await count(hub, "event") == 0


async def test_the_report_never_overwrites_the_list(tmp_path: Path) -> None:
    path = written(tmp_path / "a.xlsx", HOA)
    before = path.read_bytes()
    async with hub_in(tmp_path) as hub:
        assert (await call(hub, "import", file=path, report=path))["failed"] is True
    assert path.read_bytes() == before


@ON_BOTH
async def test_operators_see_a_name_and_a_masked_phone_and_no_citizen_number(tmp_path: Path, database_url: str) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA, AN))
        by_phone = await call(hub, "show", who="0912 555 001")
        (member,) = by_phone["members"]
        assert (member["name"], member["phone"]) == ("Lê Thị Hoa", "0912***001")
        assert await call(hub, "show", who=member["id"]) == await call(hub, "show", who="019185001234") == by_phone
        assert "019185001234" not in str(by_phone)
        with pytest.raises(NotFound) as absent:
            await call(hub, "show", who="0912555999")
        assert "0912555999" not in str(absent.value)
        page = await call(hub, "list", limit=1)
        rest = await call(hub, "list", limit=1, after=page["next"], unit="u-1")
        assert {m["name"] for m in page["members"] + rest["members"]} == {"Lê Thị Hoa", "Ma Văn An"}


@ON_BOTH
async def test_the_directory_lists_active_members_once_in_pages_and_by_unit(
    made: Maker, tmp_path: Path, database_url: str
) -> None:
    expected = made(7).expected
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=made(7).path)
        directory = MemberDirectory(hub)
        pages = [list(page) async for page in directory.recipients({})]
        everybody = [s for page in pages for s in page]
        active = sum(u["members"] for u in expected["units"].values())
        assert [len(p) for p in pages] == [500, 500, active - 1000]
        assert everybody == sorted(set(everybody))
        one = [s async for page in directory.recipients({"unit": "CDCS-03"}) for s in page]
        assert len(one) == expected["units"]["CDCS-03"]["members"]
        assert [p async for p in directory.recipients({"unit": "CDCS-99"})] == []
        phones = await directory.addresses(everybody, "phone")
        apps = await directory.addresses(everybody, "app")
        assert len(phones) == expected["members_with_phone"]
        assert len(set(phones.values())) == expected["distinct_phones"]
        assert apps.keys() <= phones.keys()
        with_both = [m for m in expected["members"] if m["has_app"] and m["phone"] and m["status"] == "active"]
        assert len(apps) == len(with_both)
        assert await directory.addresses(everybody[:3], "email") == {}


@pytest.mark.parametrize("selector", [{"units": "CDCS-01"}, {"unit": 3}, {"unit": "U-1", "sex": "male"}])
async def test_a_selector_the_directory_does_not_know_is_refused(tmp_path: Path, selector: Json) -> None:
    async with hub_in(tmp_path) as hub:
        with pytest.raises(InputError):
            [page async for page in MemberDirectory(hub).recipients(selector)]


@ON_BOTH
async def test_who_left_the_union_is_not_contacted_any_more(tmp_path: Path, database_url: str) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA))
        directory = MemberDirectory(hub)
        ((subject,),) = [list(page) async for page in directory.recipients({})]
        assert await directory.may_contact(subject, "care", "phone") is None
        await call(hub, "import", file=written(tmp_path / "b.xlsx", [*HOA[:8], "Nghỉ hưu"]))
        assert await directory.may_contact(subject, "care", "phone") == "left_the_union"
        assert [page async for page in directory.recipients({})] == []
        assert await directory.may_contact("nobody", "care", "phone") == "not_a_member"
