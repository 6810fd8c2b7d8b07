"""From what a carrier's code means to what the ledger does: one place for every kind of carrier."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from hub.contract import Exchange, Outcome, Refused, RetryLater, Scope

from ..codes import Meaning, Verdict

#: Reasons that say something about the whole stream, not about this message: no try is spent.
WHOLE_STREAM: Final = frozenset(
    {
        "throttled",
        "carrier_queue_full",
        "not_bound",
        "window_full",
        "link_busy",
        "paced",
        "no_time",
        "not_reached",
        "token_unavailable",
    }
)
#: How long the stream rests before it is tried again.
REST_S: Final = 1.0
_RESTED: Final = WHOLE_STREAM | {"already_bound", "bind_failed"}


def later(reason: str, exchange: Exchange | None = None) -> RetryLater:
    return RetryLater(
        reason=reason,
        after=timedelta(seconds=REST_S) if reason in _RESTED else None,
        scope=Scope.DESTINATION if reason in WHOLE_STREAM else Scope.DELIVERY,
        exchange=exchange,
    )


def refused(meaning: Meaning, exchange: Exchange | None = None) -> Outcome:
    """For a carrier that has not taken anything of the message."""
    if meaning.verdict in (Verdict.LATER, Verdict.AGAIN_SOON):
        return later(meaning.reason, exchange)
    scopes = {Verdict.BAD_NUMBER: Scope.RECIPIENT, Verdict.STOP: Scope.CONNECTION}
    return Refused(reason=meaning.reason, scope=scopes.get(meaning.verdict, Scope.DELIVERY), exchange=exchange)
