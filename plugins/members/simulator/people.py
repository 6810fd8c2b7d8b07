"""Invented people and the ways an office types them, kept apart from everything that reads them."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass, field
from datetime import date
from typing import Any

UNIT_NAMES = (
    "Công ty CP May Sông Công", "Công ty TNHH Điện tử Yên Bình", "Công ty CP Gang thép Lưu Xá",
    "Trường Mầm non Hoa Sen", "Bệnh viện Đa khoa Phú Lương", "Công ty TNHH Bao bì Điềm Thụy",
    "Công ty CP Chè Tân Cương Xanh", "Nhà máy Cơ khí Phổ Yên", "Công ty TNHH Linh kiện Sao Mai",
    "Hợp tác xã Vận tải Ba Bể", "Công ty CP Xi măng Quán Triều Mới", "Công ty TNHH Giày da Đại Từ",
)  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SURNAMES = _words("Nguyễn Trần Lê Phạm Hoàng Phan Vũ Đặng Bùi Đỗ Hồ Ngô Dương Lý Nông Ma Triệu Hà Tống Đồng Lường")
_MIDDLES = {"male": _words("Văn Đức Quang Minh Hữu Xuân Thế Duy"), "female": _words("Thị Thu Ngọc Thanh Mỹ Hồng")}
_GIVEN = {
    "male": _words("An Bình Cường Dũng Đạt Giang Hải Hiếu Hùng Khánh Long Mạnh Nam Phong Quân Sơn Thắng Tuấn Vinh Hoà"),
    "female": _words("Ánh Bích Chi Dung Duyên Hạnh Hoa Huệ Hương Lan Liên Mai Nga Oanh Quỳnh Thảo Thúy Trang Yến"),
}
#: Real mobile prefixes; the subscriber block 555xxx is what invented people get.
_PREFIXES = _words(
    "032 033 034 035 036 037 038 039 070 076 077 078 079 081 082 083 084 085 086 088 090 091 093 094 096 097 098"
)
#: The 11-digit prefixes some of these were until 2018.
_BEFORE_2018 = {"032": "0162", "035": "0165", "038": "0168", "070": "0120", "076": "0126", "083": "0123", "084": "0124"}
_PROVINCES = ("019", "019", "019", "019", "006", "004", "024", "001", "038")
_JOBS = ("Công nhân", "Công nhân", "Tổ trưởng", "Kế toán", "Kỹ thuật viên", "Chủ tịch CĐCS", "")


@dataclass
class Truth:
    """A person as they are, in the forms the reader must arrive at."""

    unit: str
    full_name: str
    birth_date: str | None
    sex: str
    citizen_number: str | None
    phone: str | None
    has_app: bool
    status: str = "active"


@dataclass
class Line:
    """One row to be typed: cells by field, and what the reader must say about it."""

    truth: Truth
    cells: dict[str, Any]
    reasons: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    is_copy: bool = False
    #: Nobody else depends on its phone: a test may edit it.
    editable: bool = False


def national(phone: str) -> str:
    return "0" + phone.removeprefix("+84")


class Inventor:
    """Makes people who exist once each: no two share name and birth date, or a citizen number."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self._known: set[tuple[str, str]] = set()
        self._numbers: set[str] = set()
        self._phones: set[str] = set()

    def name(self, sex: str) -> str:
        pick = self.dice.choice
        return f"{pick(_SURNAMES)} {pick(_MIDDLES[sex])} {pick(_GIVEN[sex])}"

    def phone(self) -> str:
        while True:
            number = f"+84{self.dice.choice(_PREFIXES)[1:]}{self.dice.randrange(10)}555{self.dice.randrange(1000):03}"
            if number not in self._phones:
                self._phones.add(number)
                return number

    def citizen_number(self, sex: str, year: int, province: str | None = None) -> str:
        century = (2 if year >= 2000 else 0) + (sex == "female")
        while True:
            number = (
                f"{province or self.dice.choice(_PROVINCES)}{century}{year % 100:02}{self.dice.randrange(10**6):06}"
            )
            if number not in self._numbers:
                self._numbers.add(number)
                return number

    def person(self, unit: str) -> Truth:
        sex = self.dice.choice(("female", "female", "male"))
        while True:
            name = self.name(sex)
            born = date.fromordinal(self.dice.randrange(date(1964, 1, 1).toordinal(), date(2006, 12, 31).toordinal()))
            if (name, born.isoformat()) not in self._known:
                self._known.add((name, born.isoformat()))
                break
        phone = self.phone() if self.dice.random() > 0.06 else None
        return Truth(
            unit,
            name,
            born.isoformat(),
            sex,
            self.citizen_number(sex, born.year) if self.dice.random() > 0.05 else None,
            phone,
            self.dice.random() < (0.53 if phone else 0.03),
        )


class Typist:
    """Types a person the way different offices do: damage included, meaning kept."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def line(self, truth: Truth, like: Line | None = None) -> Line:
        """Types ``truth``; with ``like``, the same facts as that line once more."""
        line = Line(truth, {})
        line.cells = {
            "name": self.name(truth.full_name),
            "birth": like.cells["birth"] if like else self.birth(truth),
            "sex": "Nam" if truth.sex == "male" else "Nữ",
            "citizen": self.citizen(truth.citizen_number),
            "phone": self.phone(truth.phone),
            "job": self.dice.choice(_JOBS),
            "app": self.dice.choice(("x", "x", "X", "có", "✓")) if truth.has_app else "",
            "status": {"active": self.dice.choice(("", "Đang sinh hoạt")), "left": "Đã thôi việc"}[truth.status],
        }
        if like:
            line.cells |= {k: like.cells[k] for k in ("job", "status")}
        return line

    def name(self, name: str) -> str:
        way = self.dice.random()
        if way < 0.10:
            return name.upper()
        if way < 0.15:
            return unicodedata.normalize("NFD", name)
        return name.replace(" ", "  ", 1) + " " if way < 0.20 else name

    def birth(self, truth: Truth) -> Any:
        """The cell; for a person known by citizen number perhaps the year alone, and the truth shrinks with it."""
        if truth.birth_date is None:
            return ""
        born = date.fromisoformat(truth.birth_date)
        way = self.dice.random()
        if way < 0.35:
            return born.strftime("%d/%m/%Y")
        if way < 0.50:
            return f"{born.day}.{born.month}.{born.year}"
        if way < 0.75:
            return born
        if way < 0.85:
            # A serial in a cell without a date format.
            return (born - date(1899, 12, 30)).days
        if way < 0.90 and born.year < 2000:
            return born.strftime("%d-%m-%y")
        if truth.citizen_number is not None and way > 0.92:
            truth.birth_date = str(born.year)
            return born.year if way < 0.96 else str(born.year)
        return born.strftime(" %d / %m / %Y")

    def citizen(self, number: str | None) -> Any:
        if number is None:
            return ""
        way = self.dice.random()
        if way < 0.45:
            return int(number)
        return f"{number[:3]} {number[3:6]} {number[6:]}" if way < 0.5 else number

    def phone(self, phone: str | None) -> Any:
        if phone is None:
            return self.dice.choice(("", "", "không có", "-"))
        number = national(phone)
        way = self.dice.random()
        if way < 0.35:
            return number
        if way < 0.65:
            return int(number)
        if way < 0.75:
            return f"{number[:4]} {number[4:7]} {number[7:]}"
        if way < 0.82:
            return f"{number[:4]}.{number[4:7]}.{number[7:]}"
        if way < 0.88:
            return phone
        if way < 0.92:
            return phone[1:]
        if number[:3] in _BEFORE_2018:
            old = _BEFORE_2018[number[:3]] + number[3:]
            return old if way < 0.96 else int(old)
        return number[1:]


class Spoiler:
    """Makes the rows an office must correct, each kind with its reason code and the field to point at."""

    def __init__(self, inventor: Inventor, typist: Typist) -> None:
        self.inventor, self.typist = inventor, typist
        self.dice = inventor.dice

    def lines(self, units: list[str], merged_units: list[str], column_units: list[str]) -> list[Line]:
        """``merged_units`` have the birth date under Nam|Nữ, ``column_units`` name their unit in each row."""
        made: list[Line] = []
        for change, field_, code in (
            (lambda t: {"name": ""}, "name", "name_missing"),
            (lambda t: {"name": "NguyÔn V¨n ¸nh"}, "name", "name_invalid"),
            (lambda t: {"phone": national(t.phone)[:8]}, "phone", "phone_invalid"),
            (lambda t: {"phone": "0412555" + national(t.phone)[-3:]}, "phone", "phone_invalid"),
            (lambda t: {"phone": "0208 3555 " + national(t.phone)[-3:]}, "phone", "phone_not_mobile"),
            (lambda t: {"phone": "gọi vợ"}, "phone", "phone_invalid"),
            (lambda t: {"birth": "31/02/1990", "citizen": ""}, "birth", "birth_date_invalid"),
            (lambda t: {"birth": "13/13/1985"}, "birth", "birth_date_invalid"),
            (lambda t: {"birth": "khoảng 1980"}, "birth", "birth_date_invalid"),
            (lambda t: {"birth": "01/09/2024", "citizen": ""}, "birth", "birth_date_range"),
            (lambda t: {"citizen": t.citizen_number + "7"}, "citizen", "citizen_number_length"),
            (lambda t: {"citizen": t.citizen_number[:8]}, "citizen", "citizen_number_length"),
            (lambda t: {"citizen": "09" + t.citizen_number[5:]}, "citizen", "citizen_number_old"),
            (lambda t: {"citizen": t.citizen_number[:11] + "O"}, "citizen", "citizen_number_invalid"),
            (lambda t: {"citizen": self._other_sex(t.citizen_number)}, "citizen", "citizen_number_sex"),
            (lambda t: {"citizen": self._other_year(t.citizen_number)}, "citizen", "citizen_number_birth_year"),
            (lambda t: {"citizen": "", "birth": ""}, "name", "identity_missing"),
            (lambda t: {"app": "?"}, "app", "app_mark_unclear"),
        ):  # fmt: skip
            # Without a birth date the merged layout cannot tell the sex, nor a wrong one from none.
            for unit in self.dice.sample(units, self.dice.randint(1, 2)):
                line = self._good(unit)
                line.cells |= change(line.truth)
                line.reasons.append((field_, code))
                made.append(line)
        for unit in merged_units:
            line = self._good(unit)
            line.cells["both_sexes"] = True
            line.reasons.append(("birth_male", "sex_twice"))
            made.append(line)
        for unit in column_units:
            line = self._good(unit)
            line.cells |= {"unit_code": "", "unit_name": ""}
            line.reasons.append(("unit_code", "unit_missing"))
            made.append(line)
        two = [self._good(u) for u in self.dice.sample(units, 2)]
        two[1].truth.sex = two[0].truth.sex
        two[1].cells["name"] = two[0].cells["name"].strip() + " Anh"
        two[1].cells |= {k: two[0].cells[k] for k in ("birth", "sex", "citizen")}
        for line in two:
            line.reasons.append(("citizen", "citizen_number_reused"))
        wrong_twice = self._good(units[0])
        wrong_twice.cells |= {"phone": "12345", "app": "chưa rõ"}
        wrong_twice.reasons += [("phone", "phone_invalid"), ("app", "app_mark_unclear")]
        return [*made, *two, wrong_twice]

    def _good(self, unit: str) -> Line:
        """A line right in everything, with a full birth date, a phone and a citizen number."""
        truth = self.inventor.person(unit)
        born = truth.birth_date or ""
        truth.phone = self.inventor.phone()
        truth.citizen_number = self.inventor.citizen_number(truth.sex, int(born[:4]))
        line = self.typist.line(truth)
        line.cells |= {"birth": date.fromisoformat(born).strftime("%d/%m/%Y"), "citizen": truth.citizen_number}
        return line

    @staticmethod
    def _other_sex(number: str | None) -> str:
        assert number is not None
        return number[:3] + str(int(number[3]) ^ 1) + number[4:]

    @staticmethod
    def _other_year(number: str | None) -> str:
        assert number is not None
        return number[:4] + f"{(int(number[4:6]) + 7) % 100:02}" + number[6:]
