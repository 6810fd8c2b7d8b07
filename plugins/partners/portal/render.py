"""The portal's pages as text: templates, both languages, instants in Vietnamese time."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.contract import Hub, PageRequest, PageResponse
from hub.model import Json, from_us, to_us
from plugins.partners.access import OWNER
from plugins.partners.portal.sessions import csrf
from plugins.partners.settings import ZONE

LANGUAGES: Final = ("vi", "en")
LANGUAGE_COOKIE: Final = "unionhub_portal_lang"
_HERE = Path(__file__).parent
_MEDIA = {".css": "text/css", ".svg": "image/svg+xml"}
#: Controls, format characters (direction, zero width), separators, surrogates, private use.
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co"})
STATES: Final = {
    "waiting": ("chờ lượt trước", "waits for the one before"),
    "pending": ("chờ gửi", "to be sent"),
    "leased": ("đã nhận việc", "taken up"),
    "sending": ("đang gửi", "being sent"),
    "delivered": ("đã tới nơi", "delivered"),
    "dead": ("đã dừng gửi", "given up"),
    "unknown": ("không rõ kết quả", "unknown"),
    "cancelled": ("đã hủy", "cancelled"),
    "running": ("đang chạy", "running"),
    "stopped": ("đã dừng", "stopped"),
    "done": ("đã xong", "done"),
}
REASONS: Final = {
    "blocked_address": (
        "địa chỉ thuộc mạng nội bộ chưa được phép",
        "the address is on an inside network that is not allowed",
    ),
    "dns": ("không tìm thấy tên máy chủ", "the host name was not found"),
    "connect": ("không nối được tới máy chủ", "no connection could be made"),
    "tls": ("chứng thư TLS không hợp lệ", "the TLS certificate is not valid"),
    "dns_timeout": ("tìm tên máy chủ quá lâu", "looking the name up took too long"),
    "connect_timeout": ("nối tới máy chủ quá lâu", "connecting took too long"),
    "tls_timeout": ("bắt tay TLS quá lâu", "TLS took too long"),
    "timeout": ("máy chủ không trả lời kịp", "no answer came in time"),
    "too_slow": ("câu trả lời không đến hết kịp", "the answer did not end in time"),
    "disconnected": ("máy chủ ngắt giữa chừng", "the connection was closed half-way"),
    "bad_answer": ("câu trả lời không phải HTTP", "the answer was not HTTP"),
    "not_granted": ("chưa có quyền xem", "not granted"),
    "grant_ended": ("quyền xem đã kết thúc", "the grant has ended"),
    "filtered": ("bộ lọc nội dung bỏ qua", "the content filter left it out"),
    "expired": ("quá hạn", "expired"),
    "endpoint_removed": ("địa chỉ nhận đã bị bỏ", "the endpoint was removed"),
}


@dataclass(frozen=True, slots=True)
class Text:
    """One reader's language."""

    code: str
    now: datetime

    def __call__(self, vi: str, en: str) -> str:
        return vi if self.code == "vi" else en

    def half(self, text: str) -> str:
        """This language's half of "Vietnamese / English"."""
        vi, slash, en = text.partition(" / ")
        return self(vi, en) if slash else text

    def state(self, code: str) -> str:
        return self(*STATES[code]) if code in STATES else code

    def reason(self, code: str) -> str:
        if code.startswith("http_"):
            return self(f"máy chủ trả lời mã {code[5:]}", f"the server answered {code[5:]}")
        return self(*REASONS[code]) if code in REASONS else code

    def number(self, value: int) -> str:
        grouped = f"{value:,}"
        return grouped.replace(",", ".") if self.code == "vi" else grouped

    def instant(self, us: int | None) -> str:
        """14:05:09 ngày 23/11/2026; "–" for none."""
        if us is None:
            return "–"
        local = from_us(us).astimezone(ZONE)
        return local.strftime("%H:%M:%S ngày %d/%m/%Y" if self.code == "vi" else "%H:%M:%S on %Y-%m-%d")

    def iso(self, text: str) -> str:
        return self.instant(to_us(datetime.fromisoformat(text)))

    def ms(self, ms: float | None) -> str:
        return "–" if ms is None else f"{round(ms)} ms"

    def tcp(self, attempt: Json) -> float | None:
        """Of the time until a connection was there, what neither the name nor the handshake took."""
        whole: float | None = attempt["connect_ms"]
        return None if whole is None else max(whole - (attempt["dns_ms"] or 0) - (attempt["tls_ms"] or 0), 0)


def visible(value: object) -> object:
    """What a screen would hide or act upon is spelled out."""
    if type(value) is not str or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"[U+{ord(c):04X}]" if c != "\n" and unicodedata.category(c) in _UNSEEN else c for c in value)


_ENV = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
    finalize=visible,
)
_ASSETS = {
    f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}": path
    for path in sorted((_HERE / "static").iterdir())
}
_ENV.globals["css"], _ENV.globals["icon"] = (
    next(f"/portal/static/{name}" for name in _ASSETS if name.endswith(kind)) for kind in (".css", ".svg")
)


@dataclass(frozen=True, slots=True)
class View:
    """One request of one reader."""

    hub: Hub
    request: PageRequest
    #: "" before the reader has signed in.
    partner: str
    t: Text

    @staticmethod
    def of(hub: Hub, request: PageRequest) -> View:
        code = request.cookies.get(LANGUAGE_COOKIE, "")
        owner = hub.principal.owner
        partner = owner.removeprefix(OWNER) if owner.startswith(OWNER) else ""
        return View(hub, request, partner, Text(code if code in LANGUAGES else "vi", hub.now()))

    def page(self, template: str, /, status: int = 200, **values: Any) -> PageResponse:
        shown = _ENV.get_template(template).render(
            t=self.t,
            partner=self.partner,
            path=self.request.path,
            csrf=csrf(self.hub, self.request) if self.partner else "",
            **values,
        )
        return PageResponse(body=shown.encode(), status=status)

    def wrong(self, status: int, vi: str, en: str, **headers: str) -> PageResponse:
        answer = self.page("wrong.html", status=status, said=self.t(vi, en))
        return PageResponse(body=answer.body, status=status, headers=headers)


def see(path: str, **headers: str) -> PageResponse:
    return PageResponse(status=303, headers={"Location": path, **headers})


async def static(hub: Hub, request: PageRequest) -> PageResponse:
    path = _ASSETS.get(request.params["name"])
    if path is None:
        return View.of(hub, request).wrong(404, "Không có trang này.", "There is no such page.")
    immutable = {"Cache-Control": "public, max-age=31536000, immutable"}
    return PageResponse(body=path.read_bytes(), media=_MEDIA[path.suffix], headers=immutable)
