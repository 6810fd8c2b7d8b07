"""What an officer asks for, judged before anything is sent: texts, templates, lists, costs."""

from __future__ import annotations

import gc
import math
from datetime import date, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hub.contract import Committed, Principal, UnitOfWork
from hub.errors import InputError, NotFound
from hub.model import Json
from plugins.telecom_sms.commands import COMMANDS
from plugins.telecom_sms.numbers import Number, masked, read_number
from plugins.telecom_sms.preview import preview
from plugins.telecom_sms.recipients import PAGE, Recipient, of_file, of_table
from plugins.telecom_sms.rules import Price
from plugins.telecom_sms.settings import SmsSettings
from plugins.telecom_sms.templates import fields_of, stray_braces
from plugins.telecom_sms.text import without_diacritics

from .support import PHONE, MemoryHub, settings

BY_NAME = {command.name: command for command in COMMANDS}
PRICES = (
    Price(dong=300, since=date(2026, 1, 1), source="hợp đồng 7/2026"),
    Price(network="viettel", dong=350, since=date(2026, 1, 1), source="hợp đồng 7/2026"),
)


class Office:
    """An officer's commands over a ledger in memory."""

    def __init__(self, **changes: Any) -> None:
        self.hub = MemoryHub()
        self.hub.connections = {"nha-mang": settings(2775, prices=PRICES, **changes)}

    async def do(self, command: str, **params: Any) -> Json:
        found = BY_NAME[command]
        return await found.run(self.hub, found.params.model_validate(params), lambda progress: None)

    async def show(self, command: str, lang: str = "vi", **params: Any) -> str:
        render = BY_NAME[command].render
        assert render is not None
        return render(await self.do(command, **params), lang)

    def texts(self) -> list[str]:
        return [draft.data["text"] for draft in self.hub.drafts]


# -- preview -------------------------------------------------------------------------------------------

#: Septets of GSM 03.38, counted apart from the plugin's own table.
TWO = set("^{}\\[~]|€\f")
ONE = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)


def counted(text: str) -> tuple[str, int]:
    if set(text) <= ONE | TWO:
        return "GSM-7", sum(2 if c in TWO else 1 for c in text)
    return "UCS-2", sum(2 if ord(c) > 0xFFFF else 1 for c in text)


@given(st.text(st.sampled_from([*sorted(ONE | TWO), *"ăâđêôơưạỹ🙏"]), min_size=1, max_size=400))
def test_lengths_and_segments_are_those_of_an_independent_count(text: str) -> None:
    shown = preview(text, settings(2775), care(settings(2775)), MemoryHub().now(), {})["as_written"]
    encoding, units = counted(shown["text"])
    single, part = (160, 153) if encoding == "GSM-7" else (70, 67)
    assert (shown["encoding"], shown["units"]) == (encoding, units)
    least = 1 if units <= single else math.ceil(units / part)
    # A pair that is not cut in two can leave one unit of a part unused.
    most = least if units <= single else math.ceil(units / (part - 1))
    assert least <= shown["segments"] <= most


def care(of: SmsSettings) -> Any:
    return of.rule("care", MemoryHub().now())


async def test_both_ways_of_writing_stand_side_by_side_with_the_money_saved() -> None:
    text = "Công đoàn Thái Nguyên mời đoàn viên dự họp lúc 8h ngày 05/12 tại hội trường."
    shown = await Office().do("preview", text=text, purpose="care", to=f"{PHONE}, 0962555123; 0962555124, 8788")
    written, plain = shown["as_written"], shown["without_diacritics"]
    assert (written["encoding"], written["segments"], written["messages"]) == ("UCS-2", 2, 3)
    assert (plain["encoding"], plain["segments"], plain["segments_in_all"]) == ("GSM-7", 1, 3)
    assert plain["text"] == "Cong doan Thai Nguyen moi doan vien du hop luc 8h ngay 05/12 tai hoi truong."
    assert (written["dong"], plain["dong"], shown["saved_dong"]) == (2 * 1000, 1000, 1000)
    assert [p["code"] for p in shown["problems"]] == ["number_premium"]
    assert {p["source"] for p in shown["prices"]} == {"hợp đồng 7/2026"}


async def test_what_is_replaced_is_shown_and_nothing_else_changes() -> None:
    shown = await Office().do("preview", text="“Mời”\u00a0họp…", purpose="care")
    assert shown["as_written"]["text"] == '"Mời" họp...'
    assert shown["replaced"] == [
        {"found": "“", "sent": '"', "times": 1},
        {"found": "”", "sent": '"', "times": 1},
        {"found": "U+00A0", "sent": " ", "times": 1},
        {"found": "…", "sent": "...", "times": 1},
    ]


async def test_a_label_that_the_law_asks_for_is_added_in_sight() -> None:
    shown = await Office().do("preview", text="Giảm giá 10%", purpose="advertising")
    assert shown["label_added"] == "[QC]" and shown["as_written"]["text"] == "[QC] Giảm giá 10%"
    again = await Office().do("preview", text="[QC] Giảm giá 10%", purpose="advertising")
    assert again["label_added"] == "" and again["as_written"]["text"] == "[QC] Giảm giá 10%"


async def test_without_a_price_no_cost_is_made_up() -> None:
    office = Office()
    office.hub.connections = {"nha-mang": settings(2775)}
    assert (await office.do("preview", text="a", purpose="care"))["as_written"]["dong"] is None
    assert "chưa có đơn giá" in await office.show("preview", text="a", purpose="care")


@pytest.mark.parametrize("lang", ["vi", "en"])
async def test_a_preview_reads_well_in_both_languages(lang: str) -> None:
    shown = await Office().show("preview", lang, text="Mời “anh” họp " * 8, purpose="care", to=PHONE)
    assert ("tin tính cước" in shown) == (lang == "vi") and "U+" not in shown and "→" in shown


@given(st.text(max_size=200))
def test_without_diacritics_twice_is_once_and_vietnamese_becomes_plain(text: str) -> None:
    once = without_diacritics(text)
    assert without_diacritics(once) == once
    assert without_diacritics("Đặng Thị Mỹ Phượng đến Bắc Kạn") == "Dang Thi My Phuong den Bac Kan"


# -- a text or a template --------------------------------------------------------------------------------


async def test_a_message_keeps_the_version_of_the_template_it_was_made_from() -> None:
    office = Office()
    first = await office.do("template", name="moi-hop", text="Moi {ho_ten} hop {gio}", purpose="operations")
    assert (first["version"], first["fields"]) == (1, ["ho_ten", "gio"])
    same = await office.do("template", name="moi-hop", text="Moi {ho_ten} hop {gio}", purpose="operations")
    assert same["version"] == 1
    await office.do("template", name="moi-hop", text="Kinh moi {ho_ten} hop {gio}", purpose="operations")
    given = {"purpose": "operations", "to": PHONE, "values": "ho_ten=anh Nam; gio=8h"}
    await office.do("send", name="mot", template="moi-hop@1", **given)
    await office.do("send", name="hai", template="moi-hop", **given)
    assert office.texts() == ["Moi anh Nam hop 8h", "Kinh moi anh Nam hop 8h"]
    assert [d.data["template"]["version"] for d in office.hub.drafts] == [1, 2]
    assert [t["version"] for t in (await office.do("templates"))["templates"]] == [2, 1]


async def test_a_missing_field_refuses_the_row_and_nothing_is_sent() -> None:
    office = Office()
    await office.do("template", name="moi", text="Moi {ho_ten} hop", purpose="care")
    with pytest.raises(InputError, match=r"field_missing.*ho_ten") as refused:
        await office.do("send", name="a", template="moi", purpose="care", to=PHONE, values="ho_ten= ")
    assert (refused.value.problem, refused.value.http_status) == ("recipients-bad", 422)
    assert office.hub.drafts == []


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "wording"),
        ({"text": "a", "template": "b"}, "wording"),
        ({"text": "Chào {ho_ten}"}, "wording"),
        ({"template": "nobody"}, "no-template"),
        ({"template": "moi@7"}, "no-template"),
        ({"text": "a", "to": ""}, "no-recipients"),
        ({"text": "a", "at": "2026-11-23T06:00:00+07:00"}, "time-passed"),
        ({"text": "a", "via": "nobody"}, "no-sms-connection"),
        ({"text": "a", "purpose": "advertising", "urgent": "gấp"}, "no-override"),
        ({"text": "ạ" * 2001, "members": True}, "sms-too-long"),
        ({"text": "x" * 10_000, "members": True}, "sms-too-long"),
        ({"template": "moi", "members": True}, "wording"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_reason(params: Json, problem: str) -> None:
    office = Office()
    await office.do("template", name="moi", text="Moi {ho_ten} hop", purpose="care")
    with pytest.raises(InputError) as refused:
        await office.do("send", **{"name": "a", "purpose": "care", "to": PHONE, **params})
    assert refused.value.problem == problem and office.hub.drafts == []
    if problem == "sms-too-long":
        assert refused.value.http_status == 422


def test_gaps_are_small_letters_and_nothing_else_may_look_like_one() -> None:
    assert fields_of("a {ho_ten} {ho_ten} {x1}") == ("ho_ten", "x1")
    for body in ("{Ho ten}", "{", "{}", "a } b"):
        assert fields_of(body) == () and stray_braces(body)


async def test_a_template_with_other_braces_is_refused() -> None:
    with pytest.raises(InputError, match="ho_ten"):
        await Office().do("template", name="moi", text="Chào {Họ tên}", purpose="care")


@pytest.mark.parametrize("params", [{"name": "Có Dấu"}, {"purpose": "answer"}, {"text": "x" * 10_001}])
async def test_names_classes_and_lengths_nobody_may_use_do_not_get_in(params: Json) -> None:
    with pytest.raises(ValidationError):
        await Office().do("send", **{"name": "a", "purpose": "care", "text": "a", "to": PHONE, **params})


# -- numbers ---------------------------------------------------------------------------------------------

RENUMBERED = {
    "0162": "032", "0163": "033", "0164": "034", "0165": "035", "0166": "036", "0167": "037", "0168": "038",
    "0169": "039", "0120": "070", "0121": "079", "0122": "077", "0126": "076", "0128": "078", "0123": "083",
    "0124": "084", "0125": "085", "0127": "081", "0129": "082", "0186": "056", "0188": "058", "0199": "059",
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), RENUMBERED.items())
@pytest.mark.parametrize("form", ["{}", "84{}", "+84{}"])
def test_a_number_of_before_2018_is_todays(old: str, new: str, form: str) -> None:
    address = form.format(old if form == "{}" else old[1:]) + "5551234"
    number = read_number(address)
    assert isinstance(number, Number) and number.msisdn == "84" + new[1:] + "5551234" and number.network


@given(st.text(max_size=30))
def test_whatever_is_written_in_place_of_a_number_is_a_number_or_a_reason(text: str) -> None:
    answer = read_number(text)
    assert answer in ("address_invalid", "number_premium", "country_not_allowed") or isinstance(answer, Number)


def test_operators_see_a_number_with_its_middle_hidden() -> None:
    assert masked("84912555123") == "0912***123"


# -- lists -----------------------------------------------------------------------------------------------

HEAD = ["STT", "Họ tên", "Số điện thoại", "Giờ"]


def workbook(path: Path, rows: list[list[Any]]) -> Path:
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate(rows):
            sheet.write_row(at, 0, row)
    return path


def test_a_workbook_with_a_title_and_numbers_that_lost_their_zero_is_read(tmp_path: Path) -> None:
    rows = [
        ["CÔNG ĐOÀN CƠ SỞ A"], [], HEAD,
        [1, "Nguyễn Văn An", 912555001, "8h"], [2, "Trần Thị Bình", "0912 555 002", 9],
        [], [3, "Lê Văn Cường", "84912555003", ""], [4, "Trùng số", "+84912555001", "8h"],
        [5, "Không số", "", ""], [6, "Hai số", "0912555004 / 0912555005", ""], [7, "Mũ", "9.12E+08", ""],
    ]  # fmt: skip
    found = of_file(workbook(tmp_path / "a.xlsx", rows), ("VN",)).whole()
    assert [p.number.msisdn for p in found.people] == ["84912555001", "84912555002", "84912555003"]
    assert found.people[1].values == {"stt": "2", "ho_ten": "Trần Thị Bình", "gio": "9"}
    assert (found.duplicates, found.rows) == (1, 7)
    assert found.problems == [(9, "phone_missing", ""), (10, "two_numbers", ""), (11, "address_invalid", "")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_is_read_whatever_parts_its_columns(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(separator.join(HEAD) + "\n" + separator.join(["1", "An", PHONE, "8h"]) + "\n", "utf-8-sig")
    (person,) = of_file(path, ("VN",)).whole().people
    assert person.values["ho_ten"] == "An" and person.number.msisdn == "84912555123"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"ten,tuoi\nAn,30\n", "file-no-phone-column"),
        ("a.csv", b"sdt\n\xff\xfd", "file-encoding"),
        ("a.csv", b"", "file-no-phone-column"),
        ("a.xlsx", b"PK\x03\x04 broken", "file-broken"),
        ("missing.csv", None, "file-missing"),
    ],
)
def test_a_file_that_is_no_list_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        of_file(tmp_path / name, ("VN",)).whole()
    assert refused.value.problem == problem


async def test_ten_thousand_rows_with_37_bad_ones_are_37_reasons_and_nothing_sent(tmp_path: Path) -> None:
    lines = [f"0962{n:06}" if n % 270 else f"8{n:03}" for n in range(1, 10_000)]
    path = tmp_path / "a.csv"
    path.write_text("sdt\n" + "\n".join(lines) + "\n")
    office = Office()
    answer = await office.do("send-file", name="tet", text="Chuc mung nam moi", purpose="care", file=path)
    assert answer["failed"] and (answer["rows"], answer["bad_rows"], len(answer["problems"])) == (9999, 37, 37)
    assert answer["problems"][0]["row"] == 271 and office.hub.drafts == []
    assert (answer["messages"], answer["segments"], answer["dong"]) == (9962, 9962, 9962 * 350)
    shown = BY_NAME["send-file"].render
    assert shown is not None and "… và 17 dòng khác." in shown(answer, "vi")
    assert "0962" not in str(answer["problems"])


async def test_a_long_list_is_gone_through_in_pages_and_never_held_as_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ho ten,sdt\n" + "".join(f"Nguoi {n},0962{n:06}\n" for n in range(3000)))
    office, held, units = Office(), [], []
    commit = office.hub.commit

    async def counted(unit: UnitOfWork) -> Committed:
        units.append(len(unit.drafts))
        held.append(sum(type(thing) is Recipient for thing in gc.get_objects()))
        return await commit(unit)

    office.hub.commit = counted  # type: ignore[method-assign]
    await office.do("template", name="moi", text="Moi {ho_ten} hop", purpose="care")
    answer = await office.do("send-file", name="tet", template="moi", purpose="care", file=path)
    assert answer["sent"] and answer["messages"] == len(office.hub.drafts) == 3000
    assert max(units) == PAGE and max(held) <= 2 * PAGE


async def test_bad_rows_are_left_out_only_when_somebody_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sdt\n0962555001\nabc\n0962555002\n")
    office = Office()
    answer = await office.do(
        "send-file", name="a", text="Chao", purpose="care", file=path, skip_bad=True, dry_run=True
    )  # fmt: skip
    assert not answer["sent"] and office.hub.drafts == []
    answer = await office.do("send-file", name="a", text="Chao", purpose="care", file=path, skip_bad=True)
    assert answer["sent"] and len(office.hub.drafts) == 2


def test_a_list_may_not_be_longer_than_a_hundred_thousand_rows() -> None:
    with pytest.raises(InputError, match="100000"):
        of_table(lambda: chain([["sdt"]], repeat(["x"], 100_001)), ("VN",)).whole()


# -- names -----------------------------------------------------------------------------------------------


async def test_the_same_sending_again_adds_nothing_and_another_under_its_name_is_refused() -> None:
    office = Office()
    given = {"name": "tet", "purpose": "care", "to": f"{PHONE}, 0912 555 124, +84912555123"}
    first = await office.do("send", text="Chuc mung", **given)
    assert (first["messages"], first["duplicates"]) == (2, 1)
    again = await office.do("send", text="Chuc mung", **given)
    assert again["batch"] == first["batch"] and len(office.hub.drafts) == 2
    with pytest.raises(InputError) as refused:
        await office.do("send", text="Khac", **given)
    assert (refused.value.problem, refused.value.http_status) == ("name-taken", 409)


async def test_who_sends_without_diacritics_chose_so() -> None:
    office = Office()
    await office.do("send", name="a", text="Chào anh", purpose="care", to=PHONE)
    await office.do("send", name="b", text="Chào anh", purpose="care", to=PHONE, plain=True)
    assert office.texts() == ["Chào anh", "Chao anh"]


async def test_a_test_keys_sending_is_marked_and_who_asked_is_kept() -> None:
    office = Office()
    office.hub.principal = Principal(name="khoa-thu", test=True)
    await office.do("send", name="a", text="Chao", purpose="care", to=PHONE)
    (line,) = (await office.do("list"))["sendings"]
    assert line["test"] and line["asked_by"] == "khoa-thu"


async def test_an_override_is_shown_with_its_reason_and_who_gave_it_and_stays() -> None:
    office = Office()
    await office.do("send", name="bao", text="Bao so 9", purpose="operations", to=PHONE, urgent="bão số 9")
    await office.do("urgent", name="bao", reason="lần nữa")
    (line,) = (await office.do("show", name="bao"))["urgent"]
    assert (line["reason"], line["asked_by"]) == ("bão số 9", "operator")


@pytest.mark.parametrize("lang", ["vi", "en"])
def test_how_far_a_sending_is_reads_well(lang: str) -> None:
    urgent = {"reason": "bão số 9", "asked_by": "operator", "given_at": "2026-11-23T22:00:00+07:00"}
    progress = {
        "state": "stopped", "total": 1200, "unreachable": 3, "unmade": 0,
        "counts": {"delivered": 1100, "unknown": 2, "cancelled": 95},
        "reasons": {"cancelled": {"opted_out": 5, "batch_stopped": 90}, "unknown": {"no_answer": 2}},
    }  # fmt: skip
    cost = {"connection": "nha-mang", "network": "viettel", "segments": 1102, "dong": 385_700}
    answer = {
        "name": "bao", "purpose": "operations", "paused_at": None, "urgent": [urgent], "progress": progress,
        "costs": [cost],
    }  # fmt: skip
    render = BY_NAME["show"].render
    assert render is not None
    lines = render(answer, lang).splitlines()
    assert lines[0] == ("bao (operations), đã dừng hẳn: 1.200 người" if lang == "vi" else lines[0])
    assert "bão số 9" in lines[1] and lines[4].endswith("95 (batch_stopped 90, opted_out 5)")
    assert lines[-2].endswith("385.700 đ") and "docs/how-to/sms.md" in lines[-1]


async def test_a_sending_nobody_made_is_not_found() -> None:
    for command in ("show", "pause", "resume", "stop"):
        with pytest.raises(NotFound):
            await Office().do(command, name="nobody")


# -- people ----------------------------------------------------------------------------------------------


async def test_refusals_consents_and_lists_are_entered_by_officers_too(tmp_path: Path) -> None:
    office = Office()
    await office.do("optout", phone=PHONE, reason="gọi điện ngày 20/11")
    (line,) = (await office.do("optouts"))["optouts"]
    assert (line["phone"], line["purpose"], line["said"]) == ("0912***123", "*", "operator: gọi điện ngày 20/11")
    await office.do("optin", phone=PHONE, reason="đơn ngày 22/11")
    assert (await office.do("optouts"))["optouts"] == []
    path = tmp_path / "a.csv"
    path.write_text(f"sdt\n{PHONE}\n0962555001\n")
    assert (await office.do("consent", file=path, evidence="phiếu đăng ký 2026"))["consents"] == 2
    assert (await office.do("do-not-call", file=path))["listed"] == 2
    office.hub.at += timedelta(days=30)
    path.write_text("sdt\n0962555001\n")
    await office.do("do-not-call", file=path)
    assert office.hub.db.execute("SELECT count(*) FROM telecom_sms_do_not_call").fetchone() == (1,)
    path.write_text("sdt\n0962555001\nabc\n")
    assert (await office.do("do-not-call", file=path))["failed"]
    with pytest.raises(InputError):
        await office.do("optout", phone="1900561252", reason="abc")


async def test_carriers_are_shown_with_what_holds_today() -> None:
    (line,) = (await Office().do("carriers"))["carriers"]
    assert line["connection"] == "nha-mang" and [rule["purpose"] for rule in line["rules"]] == [
        "care", "operations", "advertising"
    ]  # fmt: skip
    assert {rule["source"] for rule in line["rules"]} and line["rules"][2]["per_day"] == 3
    assert {p["dong"] for p in line["prices"]} == {300, 350}


def test_what_reads_a_file_of_this_machine_is_not_offered_over_http() -> None:
    for command in COMMANDS:
        reads_files = any("Path" in str(f.annotation) for f in command.params.model_fields.values())
        assert not (reads_files and command.rest), command.name
        assert command.rest is None or command.rest.takes_test_keys == (command.name == "send")
