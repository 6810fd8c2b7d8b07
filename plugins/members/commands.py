"""``unionhub members ...``: import a list, show a member, list members, coverage per unit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from hub.contract import Command, Hub, Report
from hub.errors import InputError, NotFound
from hub.model import Json
from plugins.members import importing, tables
from plugins.members.repair import Unusable, citizen_number, masked, phone
from plugins.members.schema import unit_code

_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
#: Problems shown in the terminal; the report file holds all of them.
_SHOWN = 20


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImportParams(_Params):
    file: Path = Field(
        description="Excel list (.xlsx)", title="Danh sách đoàn viên (.xlsx)", json_schema_extra={"argument": True}
    )
    report: Path | None = Field(
        None, description="Write the rows to correct to this .xlsx", title="Ghi các dòng cần sửa ra tệp này"
    )
    dry_run: bool = Field(False, description="Count only, write nothing", title="Chạy thử (không ghi)")
    unit: str | None = Field(
        None, description="Unit code for rows that name none", title="Mã đơn vị cho các dòng không ghi đơn vị"
    )


class ShowParams(_Params):
    who: str = Field(
        description="Member id, phone or citizen number",
        title="Mã đoàn viên, số điện thoại hoặc số CCCD",
        json_schema_extra={"argument": True},
    )


class ListParams(_Params):
    unit: str | None = Field(None, description="Only this unit", title="Chỉ đơn vị này")
    limit: int = Field(50, ge=1, le=500, description="At most so many", title="Số dòng tối đa")
    after: str = Field("", description="Members after this id (next page)", title="Từ sau mã này (trang tiếp)")


class NoParams(_Params):
    pass


async def import_list(hub: Hub, params: ImportParams, report: Report) -> Json:
    """Imports a list. A refused file fails; bad rows are counted and reported, the others are imported."""
    from plugins.members.reading import read_list
    from plugins.members.report import write_report

    report({"phase": "read", "done": 0, "total": 0})
    today = hub.now().astimezone(_ZONE).date()
    if params.unit is not None and not unit_code(params.unit):
        return _refused(InputError("Mã đơn vị không hợp lệ.\nThe unit code is not valid.", problem="unit-code"))
    if params.report is not None and params.report.resolve() == params.file.resolve():
        text = "Tệp báo cáo không được trùng tệp danh sách.\nThe report must not overwrite the list."
        return _refused(InputError(text, problem="report-is-input"))
    try:
        reading = await asyncio.to_thread(read_list, params.file, today, params.unit)
    except InputError as error:
        return _refused(error)
    counts = await importing.import_reading(hub, reading, report, dry_run=params.dry_run)
    if params.report is not None:
        await asyncio.to_thread(write_report, params.report, reading)
    problems = sorted(reading.problems)
    return {
        "dry_run": params.dry_run,
        "rows": reading.rows,
        "people": len(reading.people),
        "created": counts.created,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "duplicates": reading.duplicates,
        "bad_rows": reading.bad_rows,
        "notes": len(reading.notes),
        "problems": [p.as_json() for p in problems],
        "sheets_skipped": reading.skipped_sheets,
        "columns_not_read": reading.unread_columns,
        "report": str(params.report) if params.report else None,
    }


def _refused(error: InputError) -> Json:
    return {"failed": True, "problem": error.problem, "message": str(error)}


async def show(hub: Hub, params: ShowParams, report: Report) -> Json:
    """The member with this id, or everybody with this phone or citizen number."""
    who = params.who.strip()
    hashes = {"phone_hash": b"", "citizen_hash": b""}
    try:
        if e164 := phone(who).value:
            hashes["phone_hash"] = importing.phone_hash(hub, e164)
    except Unusable:
        pass
    try:
        if number := citizen_number(who, None, None).value:
            hashes["citizen_hash"] = importing.citizen_hash(hub, number)
    except Unusable:
        pass
    rows = await hub.fetch(tables.SHOW(subject=who, **hashes))
    if not rows:
        raise NotFound("Không có đoàn viên nào như vậy.\nThere is no such member.")
    return {"members": await _described(hub, rows)}


async def list_members(hub: Hub, params: ListParams, report: Report) -> Json:
    """Members by id, one page."""
    values: dict[str, Any] = {"after": params.after, "page_size": params.limit, "skip": 0}
    if params.unit is None:
        rows = await hub.fetch(tables.LIST(**values))
    else:
        rows = await hub.fetch(tables.LIST_OF_UNIT(unit_code=unit_code(params.unit), **values))
    return {"members": await _described(hub, rows), "next": rows[-1][0] if len(rows) == params.limit else None}


async def _described(hub: Hub, rows: list[tuple[Any, ...]]) -> list[Json]:
    """Members as operators may see them: the name, a masked phone, no citizen number."""
    profiles = await hub.unseal([(row[0], row[5]) for row in rows])
    answer: list[Json] = []
    for (subject, unit, has_app, status, version, _), profile in zip(rows, profiles, strict=True):
        known = importing.opened(profile, unit, has_app, status) if profile is not None else {}
        answer.append(
            {
                "id": subject,
                "unit": unit,
                "name": known.get("full_name"),
                "phone": masked(known.get("phone")) or None,
                "born": (known.get("birth_date") or "")[:4] or None,
                "card_number": known.get("card_number"),
                "has_app": bool(has_app),
                "status": status,
                "version": version,
                "erased": profile is None,
            }
        )
    return answer


async def units(hub: Hub, params: NoParams, report: Report) -> Json:
    """Per unit: active members, how many installed the app, how many have a phone."""
    names = {str(code): str(name) for code, name in await hub.fetch(tables.UNITS())}
    lines = {code: _unit_line(code, name) for code, name in names.items()}
    for code, status, members, with_app, with_phone in await hub.fetch(tables.COVERAGE()):
        line = lines.setdefault(str(code), _unit_line(str(code), ""))
        if status == "left":
            line["left"] = int(members)
        else:
            line |= {"members": int(members), "with_app": int(with_app), "with_phone": int(with_phone)}
    ordered = [lines[code] for code in sorted(lines)]
    totals = {k: sum(line[k] for line in ordered) for k in ("members", "with_app", "with_phone", "left")}
    return {"units": ordered, "total": totals}


def _unit_line(code: str, name: str) -> Json:
    return {"unit": code, "name": name, "members": 0, "with_app": 0, "with_phone": 0, "left": 0}


def _count(number: int) -> str:
    return f"{number:,}".replace(",", ".")


def render_import(answer: Json, lang: str) -> str:
    """A refused file: the reason. Else the counts, the first problems and where the rest is."""
    vi = lang != "en"
    if answer.get("failed"):
        return str(answer["message"])
    head = (
        ("Chạy thử, chưa ghi gì. " if answer["dry_run"] else "")
        + f"Đã đọc {_count(answer['rows'])} dòng: {_count(answer['created'])} đoàn viên mới, "
        f"{_count(answer['updated'])} thay đổi, {_count(answer['unchanged'])} không đổi, "
        f"{_count(answer['duplicates'])} dòng trùng, {_count(answer['bad_rows'])} dòng cần sửa (chưa nhập)."
        if vi
        else ("Dry run, nothing written. " if answer["dry_run"] else "")
        + f"Read {answer['rows']} rows: {answer['created']} created, {answer['updated']} updated, "
        f"{answer['unchanged']} unchanged, {answer['duplicates']} duplicates, {answer['bad_rows']} rows to correct "
        "(not imported)."
    )
    lines = [head]
    for problem in answer["problems"][:_SHOWN]:
        where = f"{problem['sheet']}!{problem['column']}{problem['row']}"
        lines.append(f"  {where}  {problem['vi' if vi else 'en']} ({problem['code']})")
    more = len(answer["problems"]) - _SHOWN
    if more > 0:
        lines.append(f"  … và {more} lỗi khác." if vi else f"  ... and {more} more.")
    if answer["report"] and answer["bad_rows"]:
        lines.append(
            f"Các dòng cần sửa: {answer['report']}. Sửa rồi nhập lại chính tệp này."
            if vi
            else f"Rows to correct: {answer['report']}. Correct them and import that file."
        )
    return "\n".join(lines)


COMMANDS = (
    Command(
        group="members",
        name="import",
        help_vi="Nhập danh sách đoàn viên từ tệp Excel.",
        help_en="Import a member list from an Excel file.",
        params=ImportParams,
        run=import_list,
        render=render_import,
    ),
    Command(
        group="members",
        name="show",
        help_vi="Xem một đoàn viên theo mã, số điện thoại hoặc số CCCD.",
        help_en="Show a member by id, phone or citizen number.",
        params=ShowParams,
        run=show,
        writes=False,
    ),
    Command(
        group="members",
        name="list",
        help_vi="Liệt kê đoàn viên.",
        help_en="List members.",
        params=ListParams,
        run=list_members,
        writes=False,
    ),
    Command(
        group="members",
        name="units",
        help_vi="Số đoàn viên, số đã cài app và có số điện thoại theo từng đơn vị.",
        help_en="Members, app and phone coverage per unit.",
        params=NoParams,
        run=units,
        writes=False,
    ),
)
