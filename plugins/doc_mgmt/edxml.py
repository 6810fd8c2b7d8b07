"""Vocabulary of edXML packets: the records, the code tables and the errors of reader and writer.

Source: QCVN 102:2016/BTTTT, element names and cardinalities as the axis SDK and its samples use them.
Misspelt names (``Bussiness``) are the wire's own.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import IntEnum, StrEnum

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
#: Packets carry times without a zone; Viet Nam has had +07:00 without summer time since 1975.
VIETNAM = timezone(timedelta(hours=7))


class EdxmlError(Exception):
    """The packet cannot be read or written as edXML."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        #: snake_case, stable, without anything from the packet.
        self.code = code


class SecretDocument(EdxmlError):
    """The packet bears a secrecy mark; such documents must not travel through this hub, nor be kept by it."""

    def __init__(self) -> None:
        super().__init__("secrecy_mark")


class BusinessType(IntEnum):
    """``Bussiness/BussinessDocType``: what the packet does to the document."""

    NEW = 0
    REVOKE = 1
    UPDATE = 2
    REPLACE = 3


class StatusCode(StrEnum):
    """``StatusCode`` of a status packet, in the receiver's order 01 → (02 | 03 → 04 → 05 → 06)."""

    ARRIVED = "01"
    REFUSED = "02"
    REGISTERED = "03"
    ASSIGNED = "04"
    IN_PROGRESS = "05"
    COMPLETED = "06"
    RECALLED = "13"
    RECALL_AGREED = "15"
    RECALL_REFUSED = "16"


PRIORITIES = range(5)
STEERING_TYPES = range(1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Organ:
    organ_id: str
    in_charge: str = ""
    name: str = ""
    address: str = ""
    email: str = ""
    telephone: str = ""
    fax: str = ""
    website: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Số và ký hiệu; travels as one text ``number/notation`` inside ``ResponseFor``."""

    number: str
    notation: str

    @property
    def text(self) -> str:
        return f"{self.number}/{self.notation}"

    @classmethod
    def from_text(cls, text: str) -> Code:
        """Splits at the first slash: the notation has slashes of its own (``7816/VPCP-TTĐT``)."""
        number, _, notation = text.partition("/")
        return cls(number.strip(), notation.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFor:
    """Which document another packet speaks about; an empty element on the wire is read as absent."""

    organ_id: str
    code: Code
    promulgated_on: date | None
    document_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    full_name: str = ""
    competence: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherInfo:
    #: 0 thường, 1 khẩn, 2 thượng khẩn, 3 hỏa tốc, 4 hỏa tốc hẹn giờ.
    priority: int = 0
    sphere: str = ""
    typer_notation: str = ""
    promulgation_amount: int | None = None
    page_amount: int | None = None
    appendixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """One relay; each appends its own. ``organ_id`` is "" where the relay wrote nothing or "null"."""

    organ_id: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    name: str = ""
    staff_id: str = ""
    department: str = ""
    department_id: str = ""
    email: str = ""
    mobile: str = ""


@dataclass(frozen=True, slots=True)
class ReceiverChange:
    organ_id: str
    #: False: taken off the receivers; True: newly added.
    added: bool


@dataclass(frozen=True, slots=True)
class Replacement:
    document_id: str
    organ_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Business:
    doc_type: BusinessType = BusinessType.NEW
    reason: str = ""
    document_id: str = ""
    paper: str = ""
    staff: tuple[Staff, ...] = ()
    #: Of an update: what changed about the document and its receivers.
    document_info: str = ""
    document_receiver: str = ""
    receivers: tuple[ReceiverChange, ...] = ()
    replacements: tuple[Replacement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    #: The sender's file name: shown to people, never used as a path.
    name: str
    content: bytes
    content_id: str = ""
    description: str = ""
    #: As the sender wrote it; samples say text/plain for a zipped PDF, so nothing is decided by it.
    content_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A packet of message type ``edoc``."""

    sender: Organ
    receivers: tuple[Organ, ...] = ()
    document_id: str
    code: Code
    place: str = ""
    promulgated_on: date
    #: Samples write type 1 for letters and circulars alike: people and filters go by the name.
    type_number: int | None = None
    type_detail: int | None = None
    type_name: str = ""
    subject: str
    content: str = ""
    signer: Signer | None = None
    due_on: date | None = None
    to_places: tuple[str, ...] = ()
    other: OtherInfo | None = None
    response_for: tuple[ResponseFor, ...] = ()
    steering: int | None = None
    traces: tuple[Trace, ...] = ()
    business: Business = Business()
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A packet of message type ``status``; its receiver is ``response_for.organ_id``."""

    sender: Organ
    response_for: ResponseFor
    code: StatusCode
    at: datetime
    description: str = ""
    staff: Staff | None = None


#: A mark that stands alone, or opens a text and is set off from it, as in ``[TỐI MẬT] Về việc…``;
#: some clerks type it without diacritics.
_MARK = r"(?:độ\s+mật\s*[:\-–]\s*)?(?:(?:tuy[ệe]t|t[ốo]i)\s+)?m[ậa]t"
_MARK_ALONE = re.compile(rf"\W*{_MARK}\W*")
_MARK_FIRST = re.compile(rf"\s*(?:[\[(<{{*]+\s*{_MARK}\s*[\])>}}*]|{_MARK}\s*[:\-–—|])")


def bears_secrecy_mark(text: str) -> bool:
    """Whether ``text`` is or opens with mật, tối mật or tuyệt mật; "bảo mật" and "mật ong" are no marks."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return bool(_MARK_ALONE.fullmatch(folded) or _MARK_FIRST.match(folded))
