"""Why a signature does not fit: a pure function that tries people's usual mistakes and names the one it was."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hub.contract import Hub, Report
from hub.errors import ConfigError, Unauthenticated
from hub.model import Json
from hub.signing import TOLERANCE, parse_public_key, parse_secret, verify
from plugins.partners import params as p

BOM = b"\xef\xbb\xbf"
_FOR_EVER = timedelta(days=365 * 400)


@dataclass(frozen=True, slots=True)
class Finding:
    """The rule that failed: a code, and what to do, in Vietnamese and English."""

    code: str
    vi: str
    en: str

    @property
    def ok(self) -> bool:
        return self.code == "ok"


def diagnose(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    *,
    computed: str = "",
    sent: bytes | None = None,
) -> Finding:
    """Never raises, whatever it is given.

    Args:
        secret: ``whsec_...`` or ``whpk_...`` as the receiver holds it.
        body: as the receiver saw it.
        computed: the signature that the receiver worked out itself, where it has one.
        sent: the body as it left, where that is known.
    """
    named = {name.strip().lower(): value.strip() for name, value in headers.items()}
    problem = _headers(named)
    if problem is not None:
        return problem
    try:
        key = parse_public_key(secret.strip()) if secret.strip().startswith("whpk_") else parse_secret(secret.strip())
    except ConfigError:
        return Finding(
            "secret_malformed",
            "khóa không đúng dạng: whsec_ (hoặc whpk_) rồi base64, chép thiếu hoặc thừa ký tự",
            "the secret is not whsec_ (or whpk_) and base64: characters are missing or too many",
        )

    def fits(content: bytes) -> bool:
        try:
            verify([key], named, content, now, _FOR_EVER)
        except (Unauthenticated, OverflowError, ValueError):
            return False
        return True

    kind = "v1" if isinstance(key, bytes) else "v1a"
    if kind not in {entry.partition(",")[0] for entry in named["webhook-signature"].split(" ")}:
        return Finding(
            "other_algorithm",
            f"yêu cầu không có chữ ký loại {kind} mà khóa này kiểm được",
            f"the request has no {kind} signature, the only one this key can check",
        )
    if fits(body):
        return _mistaken(computed, secret.strip(), key, named, body) or _clock(named, now)
    return _changed(body, sent, fits) or Finding(
        "wrong_secret",
        "khóa không phải khóa của địa chỉ nhận này (đã đổi khóa, hoặc nhầm địa chỉ); nội dung thì nguyên vẹn"
        if sent == body
        else "khóa không đúng, hoặc nội dung đã bị thay đổi theo cách không đoán được",
        "the secret is another endpoint's, or was changed; the body is as it was sent"
        if sent == body
        else "the secret is wrong, or the body was changed in a way that cannot be guessed",
    )


def _headers(named: Mapping[str, str]) -> Finding | None:
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not named.get(name):
            return Finding(
                "header_missing",
                f"thiếu tiêu đề {name}; máy chủ trung gian có thể đã bỏ đi",
                f"the header {name} is missing; a proxy may have dropped it",
            )
    if not re.fullmatch(r"[0-9]{1,12}", named["webhook-timestamp"]):
        return Finding(
            "timestamp_malformed",
            "webhook-timestamp phải là số giây kể từ 1970, chỉ chữ số 0-9",
            "webhook-timestamp is whole seconds since 1970, digits 0-9 only",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", named["webhook-id"]):
        return Finding("id_malformed", "webhook-id có ký tự lạ", "webhook-id has characters it may not have")
    return None


def _clock(named: Mapping[str, str], now: datetime) -> Finding:
    off = round(now.timestamp() - int(named["webhook-timestamp"]))
    if abs(off) <= TOLERANCE.total_seconds():
        return Finding("ok", "chữ ký đúng", "the signature fits")
    late, early = (f"muộn {off}", f"{off} s late") if off > 0 else (f"sớm {-off}", f"{-off} s early")
    return Finding(
        "clock_off",
        f"chữ ký đúng, nhưng đồng hồ lệch: yêu cầu đến {late} giây; chỉnh giờ máy (NTP), hoặc đây là yêu cầu cũ",
        f"the signature fits, but the clock is off: the request is {early}; set the clock (NTP), or it is an old one",
    )


def _mistaken(computed: str, secret: str, key: object, named: Mapping[str, str], body: bytes) -> Finding | None:
    """Which mistake leads to the signature that the receiver worked out, while the request is right."""
    given = computed.strip().removeprefix("v1,")
    if not given or not isinstance(key, bytes):
        return None
    signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + body
    for wrong in (secret.encode(), secret.removeprefix("whsec_").encode()):
        if given in _spelled(wrong, signed):
            return Finding(
                "secret_not_decoded",
                "khóa chưa giải mã base64: bỏ whsec_, giải mã phần còn lại rồi mới dùng làm khóa HMAC",
                "the secret was not base64-decoded: take off whsec_, decode the rest, use those bytes as the HMAC key",
            )
    if given in _spelled(key, body):
        return Finding(
            "signed_content",
            "chỉ ký phần nội dung: phải ký webhook-id, dấu chấm, webhook-timestamp, dấu chấm, nội dung",
            "only the body was signed: sign webhook-id, a dot, webhook-timestamp, a dot, the body",
        )
    if given == hmac.new(key, signed, hashlib.sha256).hexdigest():
        return Finding(
            "hex_not_base64", "so sánh bằng hex: chữ ký viết bằng base64", "compared in hex: signatures are in base64"
        )
    return None


def _spelled(key: bytes, content: bytes) -> set[str]:
    digest = hmac.new(key, content, hashlib.sha256)
    return {digest.hexdigest(), b2a_base64(digest.digest(), newline=False).decode()}


def _changed(body: bytes, sent: bytes | None, fits: Callable[[bytes], bool]) -> Finding | None:
    """How the body that was signed differs from the one that was seen."""
    if body.startswith(BOM) and fits(body.removeprefix(BOM)):
        return Finding(
            "bom_added",
            "nội dung bị thêm BOM (EF BB BF) ở đầu; đọc và ghi dạng byte, không qua tệp văn bản",
            "a BOM (EF BB BF) was put in front of the body; read and write bytes, not text files",
        )
    if sent is not None and sent != body and fits(sent):
        return _reencoded(sent, body)
    for guess in _rewritten(body):
        if fits(guess):
            return _reencoded(guess, body)
    return None


def _reencoded(signed: bytes, seen: bytes) -> Finding:
    """``Units:`` bytes, counted from 0."""
    at = next((n for n, (a, b) in enumerate(zip(signed, seen, strict=False)) if a != b), min(len(signed), len(seen)))
    was, is_now = (_byte(each, at) for each in (signed, seen))
    return Finding(
        "body_reencoded",
        f"nội dung đã bị viết lại trước khi kiểm: khác từ byte {at} (đã ký {was}, nhận được {is_now}; {len(signed)} và"
        f" {len(seen)} byte); kiểm trên byte gốc, trước khi phân tích JSON",
        f"the body was written anew before it was checked: it differs from byte {at} on (signed {was}, seen {is_now};"
        f" {len(signed)} and {len(seen)} bytes); check the raw bytes, before any JSON parser",
    )


def _byte(content: bytes, at: int) -> str:
    return f"0x{content[at]:02x}" if at < len(content) else "end"


def _rewritten(body: bytes) -> Iterator[bytes]:
    """What frameworks make of a body, undone: line ends, blanks at the ends, JSON written in other ways."""
    yield body.rstrip(b"\r\n \t")
    yield body + b"\n"
    yield body.replace(b"\r\n", b"\n")
    yield body.replace(b"\n", b"\r\n")
    try:
        parsed = json.loads(body.removeprefix(BOM))
    except (ValueError, RecursionError):
        return
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            for sort in (False, True):
                try:
                    text = json.dumps(parsed, ensure_ascii=ascii_only, separators=separators, sort_keys=sort)
                    yield text.encode()
                except (ValueError, TypeError, RecursionError):
                    return


# -- the command -----------------------------------------------------------------------------------


async def run(hub: Hub, given: p.DoctorParams, report: Report) -> Json:
    lines = given.headers_file.read_text("utf-8", "replace").splitlines()
    headers = {name: value for name, _, value in (line.partition(":") for line in lines)}
    found = diagnose(
        given.secret_file.read_text("utf-8", "replace"),
        headers,
        given.body_file.read_bytes(),
        hub.now(),
        computed=given.computed,
        sent=None if given.sent_body_file is None else given.sent_body_file.read_bytes(),
    )
    return {"failed": not found.ok, "rule": found.code, "vi": found.vi, "en": found.en}
