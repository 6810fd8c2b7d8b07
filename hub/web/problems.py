"""RFC 9457 problem documents: a stable ``type`` per problem, never an echo of the input."""

from __future__ import annotations

import orjson
from aiohttp import web

from hub.errors import Busy, HubError, InputError, Unauthenticated

#: slug -> (Vietnamese, English) title. One entry per problem a caller can meet; the docs list them.
PROBLEMS: dict[str, tuple[str, str]] = {
    "not-found": ("Không có địa chỉ này", "There is nothing at this address"),
    "method-not-allowed": ("Cách gọi không được phép ở địa chỉ này", "This method is not allowed here"),
    "media-type-unsupported": (
        "Chỉ nhận application/json, mã UTF-8",
        "Only application/json in UTF-8 is accepted",
    ),
    "content-encoding-unsupported": (
        "Không nhận nội dung nén; hãy gửi không nén",
        "Compressed bodies are not accepted; send it as it is",
    ),
    "body-too-large": ("Nội dung quá lớn", "The body is too large"),
    "body-too-slow": ("Nội dung đến quá chậm", "The body took too long to arrive"),
    "request-malformed": ("Yêu cầu không đúng giao thức HTTP", "This is not well-formed HTTP"),
    "headers-invalid": ("Tiêu đề yêu cầu không hợp lệ", "The request's headers are not valid"),
    "signature-invalid": (
        "Yêu cầu không được ký đúng như thỏa thuận",
        "The request is not signed as agreed",
    ),
    "idempotency-conflict": (
        "Mã này đã dùng với nội dung khác",
        "This id was used before with another content",
    ),
    "json-invalid": ("Nội dung không phải JSON chặt chẽ", "The body is not strict JSON"),
    "json-too-deep": ("JSON lồng quá sâu", "The JSON is nested too deeply"),
    "json-duplicate-key": ("JSON có khóa trùng", "The JSON has a duplicate key"),
    "json-number-range": ("JSON có số ngoài phạm vi", "The JSON has a number out of range"),
    "json-nul": ("JSON có ký tự NUL", "The JSON has a NUL character"),
    "json-too-many-items": ("JSON có quá nhiều phần tử", "The JSON has too many items"),
    "id-invalid": ("Mã không hợp lệ", "This is not an id"),
    "input-invalid": ("Dữ liệu không hợp lệ", "The input is not valid"),
    "not-settled": ("Lượt gửi chưa kết thúc", "The delivery is not settled"),
    "content-gone": (
        "Nội dung đã hết thời hạn lưu, không gửi lại được",
        "The content was kept long enough and is gone: it cannot be sent again",
    ),
    "not-unknown": ("Lượt gửi không ở trạng thái không rõ", "The delivery is not unknown"),
    "event-type-unknown": ("Loại sự kiện không có trong danh mục", "The event type is not in the catalogue"),
    "conflict": ("Người khác vừa thay đổi; hãy đọc lại", "Somebody else changed it; read it again"),
    "token-required": (
        "Cần mã truy cập (in ra khi khởi động)",
        "The access token is needed (printed at start)",
    ),
    "host-not-allowed": ("Tên máy chủ không được phép", "This host name is not allowed"),
    "busy": ("Sổ cái đang bận, chưa lưu gì; hãy thử lại sau", "The ledger is busy, nothing was stored; try again"),
    "internal": ("Lỗi trong hệ thống; chưa lưu gì thêm", "Something broke inside; see the log"),
}


def problem(slug: str, status: int, detail: str = "", headers: dict[str, str] | None = None) -> web.Response:
    """One problem document. ``detail`` carries ids and limits only."""
    vi, en = PROBLEMS[slug]
    body = {"type": f"/problems/{slug}", "title": f"{vi} / {en}", "status": status}
    if detail:
        body["detail"] = detail
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/problem+json", headers=headers
    )


def problem_of(error: HubError) -> web.Response:
    """What a caller is told about an error of ours."""
    if isinstance(error, Busy):
        return problem("busy", 503, headers={"Retry-After": str(error.retry_after_s)})
    if isinstance(error, Unauthenticated):
        return problem("signature-invalid", 401)
    if isinstance(error, InputError):
        return problem(error.problem if error.problem in PROBLEMS else "input-invalid", error.http_status, str(error))
    slug = error.code.replace("_", "-")
    if slug in PROBLEMS:
        return problem(slug, error.status)
    return problem("internal", 500)
