"""Answers of ``unionhub sms`` as an officer reads them in the terminal."""

from __future__ import annotations

from hub.model import Json, from_us

from .rules import ZONE

_SHOWN = 20


def time_of(us: int) -> str:
    return from_us(us).astimezone(ZONE).isoformat(timespec="seconds")


def _count(number: int) -> str:
    return f"{number:,}".replace(",", ".")


def money(dong: int | None, vi: bool) -> str:
    if dong is None:
        return "chưa có đơn giá" if vi else "no price is set"
    return f"{_count(dong)} đ"


def render_preview(answer: Json, lang: str) -> str:
    vi = lang != "en"
    lines = []
    for key, title in (("as_written", "Có dấu" if vi else "As written"),
                       ("without_diacritics", "Không dấu" if vi else "Without diacritics")):  # fmt: skip
        way = answer[key]
        lines += [
            f"{title}: {way['segments']} {'tin tính cước' if vi else 'segments'}, {way['encoding']}, "
            f"{way['units']} {'ký tự tính' if vi else 'units'}, {way['messages']} {'tin' if vi else 'messages'}, "
            f"{money(way['dong'], vi)}",
            f"  {way['text']}",
        ]
        if way["refusal"]:
            lines.append(f"  {'Không gửi được' if vi else 'Cannot be sent'}: {way['refusal']}")
    if answer["saved_segments"]:
        saved = money(answer["saved_dong"], vi)
        lines.append(
            f"Bỏ dấu bớt {answer['saved_segments']} tin tính cước mỗi người ({saved}). Người gửi quyết định."
            if vi
            else f"Without diacritics: {answer['saved_segments']} segments fewer each ({saved}). You decide."
        )
    if answer["label_added"]:
        lines.append(f"{'Thêm nhãn' if vi else 'Label added'}: {answer['label_added']}")
    for each in answer["replaced"]:
        lines.append(f"{'Thay' if vi else 'Replaced'} {each['found']} → {each['sent'] or '∅'} ({each['times']})")
    return "\n".join(lines + _problems(answer, vi))


def render_sent(answer: Json, lang: str) -> str:
    vi = lang != "en"
    if "preview" in answer:
        head = render_preview({**answer["preview"], "problems": []}, lang)
        done = (f"Đã mở đợt {answer['name']}." if vi else f"Sending {answer['name']} is open.") if answer["sent"] else (
            "Chạy thử, chưa gửi gì." if vi else "Dry run, nothing was sent."
        )  # fmt: skip
        return f"{head}\n{done}"
    facts = (
        f"{_count(answer['messages'])} tin, {_count(answer['segments'])} tin tính cước, {money(answer['dong'], vi)}; "
        f"{_count(answer['duplicates'])} dòng trùng số, {_count(answer['bad_rows'])} dòng sai."
        if vi
        else f"{answer['messages']} messages, {answer['segments']} segments, {money(answer['dong'], vi)}; "
        f"{answer['duplicates']} repeated phones, {answer['bad_rows']} bad rows."
    )
    lines = [facts]
    if answer["example"]:
        lines.append(f"{'Tin đầu tiên' if vi else 'The first one'}: {answer['example']}")
    lines += _problems(answer, vi)
    lines.append(_end_of(answer, vi))
    return "\n".join(lines)


def _end_of(answer: Json, vi: bool) -> str:
    name = answer["name"]
    if answer.get("nowhere"):
        return (
            "Chưa gửi: subscriptions.toml không có đăng ký nhận nào cho vn.congdoan.sms.requested.v1."
            if vi
            else "Not sent: subscriptions.toml has no subscription for vn.congdoan.sms.requested.v1."
        )
    if answer["sent"]:
        return f"Đã nhận gửi. Theo dõi: unionhub sms show {name}" if vi else f"Taken. Follow: unionhub sms show {name}"
    if answer.get("failed"):
        return (
            "Chưa gửi tin nào. Sửa các dòng sai rồi chạy lại, hoặc thêm --skip-bad."
            if vi
            else "Nothing was sent. Correct the bad rows and run it again, or add --skip-bad."
        )
    return "Chạy thử, chưa gửi gì." if vi else "Dry run, nothing was sent."


def _problems(answer: Json, vi: bool) -> list[str]:
    rows = [
        f"  {'dòng' if vi else 'row'} {p['row']}: {p['vi' if vi else 'en']} ({p['code']})"
        for p in answer["problems"][:_SHOWN]
    ]
    more = len(answer["problems"]) - _SHOWN
    if more > 0:
        rows.append(f"  … và {more} dòng khác." if vi else f"  ... and {more} more.")
    return rows


_STATES = {
    "waiting": ("chờ lượt trước", "waiting"),
    "pending": ("chờ gửi", "pending"),
    "leased": ("đã nhận việc", "leased"),
    "sending": ("đang gửi", "sending"),
    "accepted": ("nhà mạng đã nhận", "taken by the carrier"),
    "delivered": ("đã tới máy", "on the phone"),
    "dead": ("đã dừng gửi", "given up"),
    "unknown": ("không rõ kết quả", "outcome unknown"),
    "cancelled": ("đã hủy", "cancelled"),
}


def render_sending(answer: Json, lang: str) -> str:
    """Counts that add up, the reasons, what it cost, and what to do about the unknown ones."""
    vi = lang != "en"
    which = 0 if vi else 1
    head = f"{answer['name']} ({answer['purpose']})"
    if answer["paused_at"]:
        head += ", tạm dừng" if vi else ", paused"
    if answer.get("paused_by") == "budget":
        head += " vì hết hạn mức" if vi else ": its budget is spent"
    progress = answer["progress"]
    if progress is None:
        return f"{head}: {'chưa có tin nào' if vi else 'no message yet'}"
    if progress["state"] == "stopped":
        head += ", đã dừng hẳn" if vi else ", stopped"
    lines = [f"{head}: {_count(progress['total'])} {'người' if vi else 'people'}"]
    if answer.get("budget") is not None:
        spent, budget = _count(answer["spent"]), _count(answer["budget"])
        lines.append(f"  đã dùng {spent} đ trong hạn mức {budget} đ" if vi else f"  {spent} of {budget} đ spent")
    for each in answer["urgent"]:
        night = "gửi cả trong giờ yên lặng" if vi else "goes in quiet hours too"
        lines.append(f"  {night}: {each['reason']} ({each['asked_by']}, {each['given_at']})")
    for state, words in _STATES.items():
        if state in progress["counts"]:
            reasons = progress["reasons"].get(state, {})
            why = ", ".join(f"{reason} {_count(n)}" for reason, n in sorted(reasons.items(), key=lambda r: -r[1]))
            lines.append(f"  {words[which]}: {_count(progress['counts'][state])}" + (f" ({why})" if why else ""))
    for key, words in (("unreachable", ("không có số", "no phone")), ("unmade", ("chưa tạo lượt gửi", "not owed yet"))):
        if progress[key]:
            lines.append(f"  {words[which]}: {_count(progress[key])}")
    for line in answer["costs"]:
        lines.append(
            f"  {line['connection']} · {line['network'] or '?'}: {_count(line['segments'])} "
            f"{'tin tính cước' if vi else 'segments'}, {_count(line['dong'])} đ"
        )
    if progress["counts"].get("unknown"):
        lines.append(
            "Tin không rõ kết quả không tự gửi lại. Xem: docs/how-to/sms.md, mục «Không rõ»."
            if vi
            else "Unknown ones are not sent again by themselves. See docs/how-to/sms.md."
        )
    return "\n".join(lines)
