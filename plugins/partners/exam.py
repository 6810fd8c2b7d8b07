"""A receiver's exam: eight requests as they happen in real life, and what a good receiver answers to each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from yarl import URL

from hub.contract import Hub, Report
from hub.http import Reply, Session, exchange, open_session
from hub.model import Event, Json
from hub.signing import new_secret, parse_secret, sign
from plugins.partners import params as p
from plugins.partners.access import checked, the_guard
from plugins.partners.schema import request
from plugins.partners.trial import made_up

DEADLINE_S = 15.0
LARGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Task:
    """One request of the exam, and whether a good receiver takes it (2xx) or refuses it (4xx)."""

    name: str
    vi: str
    en: str
    taken: bool = True


TASKS = (
    Task("ok", "yêu cầu đúng: trả lời 2xx", "a good request: answer 2xx"),
    Task(
        "duplicate",
        "gửi lại cùng webhook-id: trả lời 2xx, không xử lý lần nữa",
        "the same webhook-id again: 2xx, not done twice",
    ),
    Task("out_of_order", "sự kiện cũ đến sau sự kiện mới: trả lời 2xx", "an older event after a newer one: 2xx"),
    Task(
        "late", "ký đúng nhưng 10 phút trước: từ chối (4xx)", "signed well ten minutes ago: refuse (4xx)", taken=False
    ),
    Task("bad_signature", "chữ ký sai: từ chối (4xx)", "a wrong signature: refuse (4xx)", taken=False),
    Task("rotated_secret", "hai chữ ký, khóa mới trước khóa cũ: trả lời 2xx", "two signatures, the new key first: 2xx"),
    Task("one_megabyte", "nội dung 1 MB: trả lời 2xx", "a body of 1 MB: 2xx"),
    Task("unknown_type", "loại sự kiện lạ: trả lời 2xx và bỏ qua", "an unknown type: 2xx, and leave it aside"),
)


async def examine(hub: Hub, given: p.ExamParams, report: Report) -> Json:
    """Sends the eight requests, one after the other; each verdict says what was answered."""
    guard = the_guard(hub)
    url = await checked(guard, given.url)
    key = parse_secret(given.secret_file.read_text("utf-8").strip())
    results = []
    async with open_session(allowed=guard.allows) as session:
        async for task, reply in _replies(hub, session, url, key):
            passed, why = _verdict(task, reply)
            results.append({"task": task.name, "passed": passed, "why": why, "vi": task.vi, "en": task.en})
            report({"phase": "exam", "done": len(results), "total": len(TASKS)})
    passed_count = sum(1 for each in results if each["passed"])
    return {"failed": passed_count < len(TASKS), "passed": passed_count, "of": len(TASKS), "tasks": results}


async def _replies(hub: Hub, session: Session, url: URL, key: bytes) -> AsyncIterator[tuple[Task, Reply]]:
    async def post(event: Event, *, at: datetime | None = None, keys: tuple[bytes, ...] = (key,)) -> Reply:
        headers, body = request(event, "structured", test=True)
        timestamp = int((at or hub.now()).timestamp())
        signed: Mapping[str, str] = {
            **headers,
            "webhook-id": str(event.id),
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(keys[0], str(event.id), timestamp, body, *keys[1:]),
        }
        return await exchange(session, "POST", url, headers=signed, data=body, deadline_s=DEADLINE_S)

    def event(kind: str = p.TEST_TYPE, **data: Any) -> Event:
        return made_up(hub, kind, data)

    stranger = parse_secret(new_secret())
    older, newer = event(n=1), event(n=2)
    yield TASKS[0], await post(newer)
    yield TASKS[1], await post(newer)
    yield TASKS[2], await post(older)
    yield TASKS[3], await post(event(), at=hub.now() - timedelta(minutes=10))
    yield TASKS[4], await post(event(), keys=(stranger,))
    yield TASKS[5], await post(event(), keys=(stranger, key))
    filled = event(filler="")
    filler = "x" * (LARGE_BYTES - len(request(filled, "structured", test=True)[1]))
    yield TASKS[6], await post(event(filler=filler))
    yield TASKS[7], await post(event("vn.congdoan.nobody.knows_this.v1"))


def _verdict(task: Task, reply: Reply) -> tuple[bool, str]:
    if reply.failure is not None:
        return False, reply.failure
    good = 200 <= reply.status < 300 if task.taken else 400 <= reply.status < 500 and reply.status != 410
    return good, f"http_{reply.status}"


def render(answer: Json, lang: str) -> str:
    """A line per task: passed or not, what was answered, what is expected."""
    vi = lang != "en"
    words = ("đạt", "KHÔNG ĐẠT") if vi else ("pass", "FAIL")
    lines = [
        f"{words[not each['passed']]:<10} {each['task']:<15} {each['why']:<18} {each['vi' if vi else 'en']}"
        for each in answer["tasks"]
    ]
    end = f"Đạt {answer['passed']}/{answer['of']} bài." if vi else f"Passed {answer['passed']} of {answer['of']}."
    return "\n".join([*lines, end])
