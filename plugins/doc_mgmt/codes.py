"""From what the axis answered to what the hub does about it.

Source: numbers 10 to 23 are the provincial axis's ("Hướng dẫn kết nối liên thông văn bản" v2.2, as quoted in
public code). The national axis's own table is not public, so an unknown number is tried again: a status packet
repeated has no further effect.
"""

from __future__ import annotations

from datetime import timedelta

from hub.contract import Exchange, Outcome, Refused, RetryLater, Scope

#: ErrorCode -> (reason, scope) of what no repetition will cure.
_REFUSED: dict[str, tuple[str, Scope]] = {
    "10": ("packet_refused", Scope.DELIVERY),
    "15": ("login_refused", Scope.CONNECTION),
    "18": ("receiver_unknown", Scope.DELIVERY),
    "19": ("sender_not_registered", Scope.CONNECTION),
    "22": ("packet_not_to_standard", Scope.DELIVERY),
    "23": ("receiver_locked", Scope.DELIVERY),
    "401": ("login_refused", Scope.CONNECTION),
    "403": ("login_refused", Scope.CONNECTION),
}
_RETRIED = {"20": "axis_error", "21": "file_processing_error"}


def login_was_refused(http_status: int | None, error_code: str) -> bool:
    """Whether the answer says that system id or secret are wrong: nothing will pass until a person acts."""
    return http_status in (401, 403) or error_code in ("15", "401", "403")


def outcome(
    *,
    code: str,
    http_status: int | None,
    error_code: str,
    bytes_left: bool,
    retry_after_s: float | None,
) -> Outcome:
    """The outcome of one failed try; arguments are those of the wire client's error."""
    exchange = None if http_status is None else Exchange(status=http_status, answer=error_code.encode())
    if login_was_refused(http_status, error_code):
        return Refused(reason="login_refused", scope=Scope.CONNECTION, exchange=exchange)
    if error_code in _REFUSED:
        reason, scope = _REFUSED[error_code]
        return Refused(reason=reason, scope=scope, exchange=exchange)
    if http_status == 429 or retry_after_s is not None:
        after = None if retry_after_s is None else timedelta(seconds=retry_after_s)
        return RetryLater(reason="axis_throttled", after=after, scope=Scope.DESTINATION, exchange=exchange)
    if code == "parameter_not_sendable":
        return Refused(reason=code)
    if http_status is None:
        # "It may have arrived" is worth a note even where a repetition does no harm.
        return RetryLater(reason=code, ambiguous=bytes_left)
    if http_status == 413:
        return Refused(reason="packet_too_large", exchange=exchange)
    if 400 <= http_status < 500 and http_status not in (408, 425):
        return Refused(reason=f"http_{http_status}", exchange=exchange)
    if http_status == 200:
        reason = _RETRIED.get(error_code, "axis_error_code_unknown" if error_code else code)
        return RetryLater(reason=reason, exchange=exchange)
    return RetryLater(reason=f"http_{http_status}", exchange=exchange)
