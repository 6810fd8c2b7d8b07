"""What the app sends and takes, and the event a worker's question becomes: pure mappings."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from hub.contract import EventType
from hub.errors import NotUnderstood
from hub.model import Draft, Event, Json

QUESTION_ASKED = "vn.congdoan.question.asked.v1"


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _e164(text: str) -> str:
    """``0912555123`` and ``+84912555123`` are one phone."""
    return "+84" + text[1:] if text.startswith("0") else text


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_nfc), Field(min_length=1)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]


class _Wire(BaseModel):
    # The app may say more one day; what we do not know we do not need.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Worker(_Wire):
    name: Line
    phone: Annotated[str, Field(pattern=r"^(\+84|0)[0-9]{9}$"), AfterValidator(_e164)]


class Question(_Wire):
    """The body of ``POST /in/<connection>``."""

    type: Literal["question"]
    id: Code
    worker: Worker
    text: Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_nfc), Field(min_length=1)]
    asked_at: AwareDatetime
    #: Code of the union unit, when the worker chose one.
    unit_id: Code | None = None
    topic: Code | None = None


def question_draft(body: Any, dedupe_key: str, source: str, subject_of: Callable[[str], str]) -> Draft:
    """The event of one question. ``subject_of`` makes an opaque subject out of the app's id.

    Raises: NotUnderstood, without any of the body in its text.
    """
    try:
        question = Question.model_validate(body)
    except ValidationError as error:
        places = sorted({".".join(map(str, detail["loc"])) for detail in error.errors(include_input=False)})
        raise NotUnderstood(f"not a question: {', '.join(places)[:200]}") from None
    data: Json = {
        "question_id": question.id,
        "asked_at": question.asked_at.isoformat(),
        "text": question.text,
        "worker": {"name": question.worker.name, "phone": question.worker.phone},
    }
    if question.unit_id is not None:
        data["unit_id"] = question.unit_id
    if question.topic is not None:
        data["topic"] = question.topic
    return Draft(
        type=QUESTION_ASKED,
        source=source,
        dedupe_key=dedupe_key,
        data=data,
        subject=subject_of(question.id),
        occurred_at=question.asked_at,
    )


def notice_of(event: Event) -> bytes:
    """Title and text of a notice: what is pinned as the delivery's body. Address and id join it when sent."""
    data = event.data
    notice = {"text": str(data.get("text") or ""), "title": str(data.get("title") or "")}
    return orjson.dumps(notice, option=orjson.OPT_SORT_KEYS)


_WORKER_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "phone"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "phone": {"type": "string", "pattern": r"^\+84\d{9}$"},
    },
}

EVENT_TYPES = (
    EventType(
        name=QUESTION_ASKED,
        title_vi="Công nhân hỏi công đoàn",
        title_en="A worker asked the union",
        personal=True,
        thin=("question_id", "unit_id", "topic"),
        schema={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": False,
            "required": ["question_id", "asked_at", "text", "worker"],
            "properties": {
                "question_id": {"type": "string", "description": "The app's own id of the question."},
                "asked_at": {"type": "string", "format": "date-time"},
                "unit_id": {"type": "string", "description": "Code of the union unit the worker chose."},
                "topic": {"type": "string"},
                "text": {"type": "string", "minLength": 1, "maxLength": 4000},
                "worker": _WORKER_SCHEMA,
            },
        },
        example={
            "question_id": "q-20261123-0001",
            "asked_at": datetime.fromisoformat("2026-11-23T14:05:09+07:00").isoformat(),
            "unit_id": "CDCS-01",
            "topic": "luong",
            "text": "Công ty chậm trả lương tháng 10, công đoàn giúp chúng tôi với.",
            "worker": {"name": "Nguyễn Thị Mẫu", "phone": "+84912555123"},
        },
    ),
)
