"""What the app's answers mean for a delivery.

Source: our REST profile (README.md); token errors RFC 6749 section 5.2; Retry-After RFC 9110 section 10.2.3.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import orjson

from hub.contract import Exchange, Outcome, Refused, RetryLater, Scope
from hub.http import Reply, outcome_of
from plugins.citizen_app.client import Seen


def outcome(seen: Seen[Reply], now: datetime) -> Outcome:
    """The outcome of one push, or of the login before it."""
    reply = seen.answer
    if seen.stage == "push":
        return outcome_of(reply, now, _PUSH)
    if not seen.token_readable:
        return RetryLater(reason="token_unreadable", exchange=Exchange(status=reply.status))
    common = outcome_of(reply, now, _TOKEN)
    # What a token endpoint answers may hold a token or repeat a secret: only its status is kept.
    shown = replace(common.exchange or Exchange(), answer=b"")
    if isinstance(common, RetryLater):
        # No push was sent, so nothing can have arrived.
        return replace(common, reason=f"token_{common.reason}", ambiguous=False, exchange=shown)
    return replace(common, exchange=shown)


def _error_code(seen: Exchange) -> str:
    """The app's own ``error`` code in an answer, "" when it has none."""
    try:
        found = orjson.loads(seen.answer)
    except orjson.JSONDecodeError:
        return ""
    code = found.get("error") if isinstance(found, dict) else None
    return code if isinstance(code, str) else ""


def _auth_failed(seen: Exchange) -> Outcome:
    # Every other delivery would fail the same way: one repair instead of a thousand dead deliveries.
    return Refused(reason="auth_failed", scope=Scope.CONNECTION, exchange=seen)


def _not_allowed(seen: Exchange) -> Outcome:
    return Refused(reason="not_allowed", scope=Scope.CONNECTION, exchange=seen)


def _not_found(seen: Exchange) -> Outcome:
    # Any server answers 404 to a wrong base_url; only the app's own code says that the person is unknown.
    if _error_code(seen) == "unknown_user":
        return Refused(reason="no_such_user", scope=Scope.RECIPIENT, exchange=seen)
    return Refused(reason="no_such_path", scope=Scope.CONNECTION, exchange=seen)


def _rejected(seen: Exchange) -> Outcome:
    reason = "idempotency_mismatch" if _error_code(seen) == "idempotency_mismatch" else "rejected"
    return Refused(reason=reason, exchange=seen)


_PUSH = {
    400: _rejected,
    401: _auth_failed,
    403: _not_allowed,
    404: _not_found,
    413: _rejected,
    422: _rejected,
}
_TOKEN = {
    400: _auth_failed,
    401: _auth_failed,
    403: _auth_failed,
    404: lambda seen: Refused(reason="no_such_path", scope=Scope.CONNECTION, exchange=seen),
}
