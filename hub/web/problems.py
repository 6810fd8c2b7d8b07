"""RFC 9457 problem documents: a stable ``type`` per problem, never an echo of the input."""

from __future__ import annotations

from typing import Any

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
    "key-invalid": ("Khóa API không đúng hoặc đã thu hồi", "The API key is not valid, or was revoked"),
    "key-expired": ("Khóa API đã hết hạn; hãy xin khóa mới", "The API key has expired: ask for a new one"),
    "scope-missing": ("Khóa API không có quyền này", "The API key does not have this scope"),
    "test-key-refused": (
        "Khóa thử không gọi được lệnh này; chưa có gì được gửi đi",
        "A test key cannot call this; nothing was sent",
    ),
    "rate-limited": ("Gọi quá nhanh; hãy thử lại sau", "Too many requests: try again later"),
    "cross-site": ("Không nhận lệnh gọi từ trang khác", "Requests from another site are not accepted"),
    "idempotency-key-invalid": (
        "Idempotency-Key là 1 đến 200 ký tự ASCII in được",
        "An Idempotency-Key is 1 to 200 printable ASCII characters",
    ),
    "idempotency-key-reused": (
        "Idempotency-Key này đã dùng cho yêu cầu khác",
        "This Idempotency-Key was used for another request",
    ),
    "request-in-flight": (
        "Yêu cầu có Idempotency-Key này đang chạy; hãy thử lại sau",
        "The request with this Idempotency-Key is still running: try again later",
    ),
    "payload-invalid": (
        "Nội dung không đúng lược đồ của loại sự kiện",
        "The payload does not fit the schema of its event type",
    ),
    "not-understood": (
        "Không đọc được nội dung, chưa lưu gì",
        "The content cannot be read, nothing was stored",
    ),
    "url-not-public": ("Địa chỉ thuộc mạng nội bộ không được phép", "The address is on a network that is not allowed"),
    "url-invalid": ("Địa chỉ nhận không dùng được", "The address cannot be posted to"),
    "filter-invalid": (
        "Bộ lọc không phải biểu thức JMESPath dùng được",
        "The filter is not a usable JMESPath expression",
    ),
    "managed-by-file": ("Mục này do một tệp quản lý", "A file manages this"),
    "host-not-allowed": ("Tên máy chủ không được phép", "This host name is not allowed"),
    "brandname-required": ("Loại tin này phải gửi bằng tên định danh", "This class of messages needs a brandname"),
    "class-unknown": ("Chưa có quy định cho loại tin này", "No rule holds for this class of messages"),
    "field-missing": ("Mẫu tin còn thiếu giá trị", "The template lacks a value"),
    "label-missing": ("Tin quảng cáo phải bắt đầu bằng nhãn", "An advertisement has to begin with its label"),
    "name-taken": ("Tên này đã dùng với nội dung khác", "The name was used with other content"),
    "no-override": ("Loại tin này không được gửi trong giờ yên lặng", "This class never goes in quiet hours"),
    "no-recipients": ("Chưa có người nhận", "There is nobody to send to"),
    "no-sms-connection": ("Không có kết nối SMS này", "There is no such SMS connection"),
    "no-subscription": (
        "Không có đăng ký nhận nào cho loại tin này",
        "The configuration sends such messages nowhere",
    ),
    "recipients-bad": ("Có người nhận chưa đúng, chưa gửi gì", "Some recipients are not right, nothing was sent"),
    "no-template": ("Không có mẫu tin này", "There is no such template"),
    "phone-invalid": ("Không phải số di động", "Not a mobile number"),
    "sms-too-long": ("Tin quá dài", "The text is too long"),
    "template-braces": ("Chỗ trống của mẫu tin chưa đúng", "A gap of the template is not well written"),
    "template-not-registered": (
        "Nội dung khác mẫu đã đăng ký với nhà mạng",
        "The carrier has no such text on file",
    ),
    "text-missing": ("Không có nội dung", "There is no text"),
    "time-passed": ("Giờ hẹn đã qua", "That time has passed"),
    "wording": ("Cần đúng một trong hai: text hoặc template", "Give either text or template"),
    "outdated": (
        "Nút này ở bản cũ hơn bảng dữ liệu, đang dừng",
        "This node is older than the tables and is stopping",
    ),
    "busy": ("Sổ cái đang bận, chưa lưu gì; hãy thử lại sau", "The ledger is busy, nothing was stored; try again"),
    "internal": ("Lỗi trong hệ thống; chưa lưu gì thêm", "Something broke inside; see the log"),
}


def problem(
    slug: str, status: int, detail: str = "", headers: dict[str, str] | None = None, at: str = ""
) -> web.Response:
    """One problem document. ``detail`` carries ids and limits only; ``at``: a JSON pointer or a parameter's name."""
    vi, en = PROBLEMS[slug]
    title = f"{vi} / {en}"
    body: dict[str, Any] = {"type": f"/problems/{slug}", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    if at:
        body["errors"] = [{"pointer" if at.startswith("#") else "parameter": at, "detail": detail or title}]
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
        return problem(
            error.problem if error.problem in PROBLEMS else "input-invalid", error.http_status, str(error), at=error.at
        )
    slug = error.code.replace("_", "-")
    if slug in PROBLEMS:
        return problem(slug, error.status)
    return problem("internal", 500)
