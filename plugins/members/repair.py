"""Reads one cell the way the typist meant it: phones, citizen numbers, dates, names, marks.

Pure functions of the cell (and today's date where an age is judged).
``Unusable`` carries a code of ``codes.ROW_REASONS``.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

Cell = int | float | str | bool | date | datetime | time | timedelta | None

#: 11-digit mobile prefixes and what they became in 2018. Source: github.com/KingDarkness/phone11to10.
OLD_PREFIXES = {
    "0162": "032", "0163": "033", "0164": "034", "0165": "035", "0166": "036", "0167": "037", "0168": "038",
    "0169": "039", "0120": "070", "0121": "079", "0122": "077", "0126": "076", "0128": "078", "0123": "083",
    "0124": "084", "0125": "085", "0127": "081", "0129": "082", "0186": "056", "0188": "058", "0199": "059",
}  # fmt: skip

#: The 63 provinces as they were before the mergers of 2025. Source: Thông tư 07/2016/TT-BCA.
PROVINCES = frozenset({
    "001", "002", "004", "006", "008", "010", "011", "012", "014", "015", "017", "019", "020", "022", "024", "025",
    "026", "027", "030", "031", "033", "034", "035", "036", "037", "038", "040", "042", "044", "045", "046", "048",
    "049", "051", "052", "054", "056", "058", "060", "062", "064", "066", "067", "068", "070", "072", "074", "075",
    "077", "079", "080", "082", "083", "084", "086", "087", "089", "091", "092", "093", "094", "095", "096",
})  # fmt: skip

_NOTHING = frozenset({"", "khong", "khongco", "ko", "kc", "chuaco", "k", "none", "null", "na"})
_YES = frozenset({"x", "v", "co", "yes", "true", "1", "roi", "da", "dacai", "dacaidat", "ok"})
_NO = frozenset({"", "khong", "ko", "chua", "chuacai", "no", "false", "0", "k"})
_LEFT = frozenset(
    {"chuyen", "chuyendi", "dachuyen", "nghihuu", "danghihuu", "thoi", "thoiviec", "dathoi", "dathoiviec", "nghiviec"}
    | {"danghiviec", "roi", "darakhoi", "dara", "rakhoicongdoan"}
)
_ACTIVE = frozenset({"dangsinhhoat", "danglamviec", "dangcongtac", "hoatdong", "danghoatdong"})
_SEXES = {"nam": "male", "m": "male", "male": "male", "nu": "female", "f": "female", "female": "female"}
_TONES = frozenset("\u0300\u0301\u0303\u0309\u0323")
#: Excel's day 0 as everybody computes it: its day 60 (29/2/1900) does not exist, and nobody here is that old.
_EXCEL_EPOCH = date(1899, 12, 30)


class Unusable(Exception):
    """The cell cannot be read; ``code`` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Repaired(NamedTuple):
    """What a cell means (None: it says nothing), and a note for the operator."""

    value: str | None
    note: str | None = None


def key(text: str) -> str:
    """Letters and digits without diacritics, for comparing labels: "Số ĐT" -> "sodt"."""
    plain = unicodedata.normalize("NFD", text.lower().replace("đ", "d").replace("Đ", "d"))
    return "".join(c for c in plain if c.isascii() and c.isalnum())


def name_key(name: str) -> str:
    """Folds case, spaces and tone placement ("Hoà" = "Hòa"), but keeps "Hoa" and "Hòa" apart."""
    words = []
    for word in unicodedata.normalize("NFD", name.lower()).split():
        tones = "".join(sorted(c for c in word if c in _TONES))
        words.append("".join(c for c in word if c not in _TONES) + tones)
    return " ".join(words)


def text_of(cell: Cell) -> str:
    """The cell as NFC text with single spaces; 912345678.0 reads "912345678"."""
    if cell is None or isinstance(cell, bool):
        return "x" if cell else ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime | date):
        return cell.strftime("%d/%m/%Y")
    # Zero-width characters come along when people copy from web pages and chats.
    text = re.sub("[\u200b-\u200d\u2060\ufeff]", "", str(cell))
    return " ".join(unicodedata.normalize("NFC", text).split())


def _says_nothing(text: str) -> bool:
    """Empty, a dash, or the word for it; "?" says something, only not what."""
    word = key(text)
    return word in _NOTHING and bool(word or not text.strip("-–—./ "))


def _number_text(cell: Cell) -> str:
    """Text of a cell that should hold a long number: undoes "9.12E+08", a trailing ".0" and a leading apostrophe."""
    text = text_of(cell).removeprefix("'").strip()
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", text):
        try:
            exact = Decimal(text)
        except InvalidOperation:
            return text
        return str(int(exact)) if exact == exact.to_integral_value() else text
    return re.sub(r"^(\d{8,12})\.0+$", r"\1", text)


def phone(cell: Cell) -> Repaired:
    """A Vietnamese mobile number as E.164. Repairs lost zeros, +84, spaces, dots, and 11-digit numbers of before 2018.

    Raises: Unusable(phone_invalid | phone_not_mobile).
    """
    if isinstance(cell, datetime | date | time | timedelta):
        raise Unusable("phone_invalid")
    text = _number_text(cell)
    if _says_nothing(text):
        return Repaired(None)
    pieces = [p for p in re.split(r"[/;,\n]| - | và | hoặc ", text) if p.strip()]
    several = len(pieces) > 1 and all(sum(c.isdigit() for c in p) >= 9 for p in pieces)
    return Repaired(_e164(pieces[0] if several else text), "phone_two_numbers" if several else None)


def _e164(text: str) -> str:
    import phonenumbers

    if not re.fullmatch(r"\+?[0-9 .,()/-]+", text):
        raise Unusable("phone_invalid")
    digits = re.sub(r"[^0-9]", "", text)
    if text.startswith("+") and not digits.startswith("84"):
        raise Unusable("phone_invalid")
    digits = digits.removeprefix("00") if digits.startswith("0084") else digits
    if digits.startswith("84") and len(digits) >= 11:
        digits = digits[2:]
    national = digits if digits.startswith("0") else "0" + digits
    if len(national) == 11 and national[:4] in OLD_PREFIXES:
        national = OLD_PREFIXES[national[:4]] + national[4:]
    try:
        number = phonenumbers.parse(national, "VN")
    except phonenumbers.NumberParseException:
        raise Unusable("phone_invalid") from None
    if not phonenumbers.is_valid_number(number) or len(national) > 11:
        raise Unusable("phone_invalid")
    if phonenumbers.number_type(number) != phonenumbers.PhoneNumberType.MOBILE:
        raise Unusable("phone_not_mobile")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def citizen_number(cell: Cell, sex: str | None, birth_year: int | None) -> Repaired:
    """A 12-digit citizen number, its lost zeros put back, cross-checked with sex and year of birth.

    It is province(3) + century and sex(1) + year(2) + serial(6), with no check digit. An unknown province is a
    note only: people born abroad have codes of their own. Raises: Unusable(citizen_number_*).
    """
    if isinstance(cell, datetime | date | time | timedelta):
        raise Unusable("citizen_number_invalid")
    text = _number_text(cell)
    if _says_nothing(text):
        return Repaired(None)
    number = re.sub(r"[ .\-]", "", text)
    if not (number.isascii() and number.isdigit()):
        raise Unusable("citizen_number_invalid")
    if len(number) in (10, 11):
        number = _with_zeros(number, isinstance(cell, int | float), sex, birth_year)
    if len(number) == 9:
        raise Unusable("citizen_number_old")
    if len(number) != 12:
        raise Unusable("citizen_number_length")
    if sex is not None and sex_in(number) != sex:
        raise Unusable("citizen_number_sex")
    if birth_year is not None and year_in(number) != birth_year:
        raise Unusable("citizen_number_birth_year")
    return Repaired(number, None if number[:3] in PROVINCES else "citizen_number_province")


def _with_zeros(number: str, typed_as_number: bool, sex: str | None, birth_year: int | None) -> str:
    """Excel eats zeros of numbers; in a text they may as well be a typing mistake, so there all must agree."""
    padded = number.zfill(12)
    if padded[:3] not in PROVINCES:
        return number
    agrees = birth_year is not None and year_in(padded) == birth_year and sex in (None, sex_in(padded))
    return padded if typed_as_number or agrees else number


def sex_in(citizen_number: str) -> str:
    return "female" if int(citizen_number[3]) % 2 else "male"


def year_in(citizen_number: str) -> int:
    return 1900 + 100 * (int(citizen_number[3]) // 2) + int(citizen_number[4:6])


def calendar_date(cell: Cell, today: date) -> str | None:
    """An ISO date, "1985-03" or "1985" as far as the cell knows it; None for an empty cell.

    Reads dd/mm/yyyy with / . - or spaces, two-digit years, mm/yyyy, a year alone and Excel serials.
    Raises: ValueError.
    """
    if isinstance(cell, datetime | date):
        return (cell.date() if isinstance(cell, datetime) else cell).isoformat()
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return _date_of_number(cell)
    text = text_of(cell)
    if _says_nothing(text):
        return None
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})(?: 00:00:00)?", text):
        year, month, day = map(int, match.groups())
        return date(year, month, day).isoformat()
    parts = re.split(r"\s*[/.\-\s]\s*", text.strip("./- "))
    if not all(p.isascii() and p.isdigit() for p in parts) or len(parts) > 3:
        raise ValueError("not a date")
    if len(parts) == 1:
        return _date_of_number(int(parts[0]))
    year = _full_year(parts[-1], today)
    if len(parts) == 2:
        return date(year, int(parts[0]), 1).isoformat()[:7]
    return date(year, int(parts[1]), int(parts[0])).isoformat()


def _date_of_number(number: float) -> str:
    if 1880 <= number <= 2200 and number == int(number):
        return str(int(number))
    if 3000 <= number <= 80000:
        return (_EXCEL_EPOCH + timedelta(days=int(number))).isoformat()
    raise ValueError("neither a year nor an Excel serial")


def _full_year(text: str, today: date) -> int:
    if len(text) == 4:
        return int(text)
    if len(text) != 2:
        raise ValueError("not a year")
    # Nobody under 15 is a member, so "12" said in 2026 is 1912 and refused by its age, never a guess at 2012.
    century = 2000 if int(text) <= (today.year - 15) % 100 else 1900
    return century + int(text)


def birth_date(cell: Cell, today: date) -> str | None:
    """As ``calendar_date``. Raises: Unusable(birth_date_invalid | birth_date_range)."""
    try:
        found = calendar_date(cell, today)
    except ValueError:
        raise Unusable("birth_date_invalid") from None
    if found is not None and not 15 <= today.year - int(found[:4]) <= 100:
        raise Unusable("birth_date_range")
    return found


def joined_on(cell: Cell, today: date) -> str | None:
    try:
        found = calendar_date(cell, today)
    except ValueError:
        raise Unusable("joined_on_invalid") from None
    if found is not None and not 1929 <= int(found[:4]) <= today.year:
        raise Unusable("joined_on_invalid")
    return found


def full_name(text: str) -> str:
    """NFC with single spaces; a name all in capitals or all in small letters gets its capitals.

    Raises: Unusable(name_missing | name_invalid).
    """
    name = text_of(text)
    if not name:
        raise Unusable("name_missing")
    if len(name) > 100 or not all(c.isalpha() or c in " '.-" for c in name):
        raise Unusable("name_invalid")
    if name.isupper() or name.islower():
        name = " ".join(word.capitalize() for word in name.split(" "))
    return name


def sex(cell: Cell) -> str | None:
    """male | female | None. Raises: Unusable(sex_unclear)."""
    text = text_of(cell)
    if _says_nothing(text):
        return None
    word = key(text)
    if word not in _SEXES:
        raise Unusable("sex_unclear")
    return _SEXES[word]


def mark(cell: Cell, code: str) -> bool:
    """Whether a box is ticked: x, v, ✓, có, 1. Raises: Unusable(code)."""
    text = text_of(cell)
    word = key(text)
    if word in _YES or text in {"✓", "✔", "☑", "√", "×", "✗", "✘"}:
        return True
    if word in _NO and (word or text in {"", "-", "–", "☐"}):
        return False
    raise Unusable(code)


def status(cell: Cell) -> str | None:
    """active | left | None. Raises: Unusable(status_unclear)."""
    text = text_of(cell)
    if _says_nothing(text):
        return None
    word = key(text)
    if word in _LEFT:
        return "left"
    if word in _ACTIVE:
        return "active"
    raise Unusable("status_unclear")


def masked(e164: str | None) -> str:
    """A phone as operators may see it: 0912***456."""
    if not e164:
        return ""
    national = "0" + e164.removeprefix("+84")
    return f"{national[:4]}***{national[-3:]}"
