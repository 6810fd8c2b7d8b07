"""Whether a carrier gets on with what it is given: a bind that is up while nothing moves is an outage too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hub.contract import ConnectionContext

_REPAIR: Final = "carrier_stalled"


class Progress:
    """Counts what is handed over and what is answered. Instants are of the event loop's clock."""

    def __init__(self, stall_after_s: float) -> None:
        self._stall_after_s = stall_after_s
        #: Messages handed over and not yet settled.
        self.waiting = 0
        #: Since when something was waiting and nothing was answered; None while all is well.
        self._waiting_since: float | None = None
        self._asked_at = float("-inf")
        self._ever_moved = False

    def asked(self, now: float) -> None:
        self.waiting += 1
        self._asked_at = now
        if self._waiting_since is None:
            self._waiting_since = now

    def settled(self) -> None:
        self.waiting -= 1

    def moved(self) -> None:
        """The carrier answered one segment, with whatever code: it is at work."""
        self._waiting_since = None
        self._ever_moved = True

    def idle_s(self, now: float) -> float:
        """Seconds without an answer while there was work; 0 when nothing is asked any more."""
        if self._waiting_since is None or (not self.waiting and now - self._asked_at > self._stall_after_s):
            return 0.0
        return now - self._waiting_since

    def stalled(self, now: float) -> bool:
        return self.idle_s(now) >= self._stall_after_s

    async def watch(self, ctx: ConnectionContext, bound: Callable[[], bool]) -> None:
        """For ever: one repair and one log line when it stalls, and again when it moves."""
        clock, told = asyncio.get_running_loop().time, False
        # The process before this one may have left it open.
        may_be_open = True
        while True:
            await asyncio.sleep(self._stall_after_s / 8)
            if self.stalled(clock()) and not told:
                told = may_be_open = True
                ctx.log("carrier.stalled", bound=bound(), waiting=self.waiting, idle_s=round(self.idle_s(clock()), 1))
                await ctx.open_repair(
                    _REPAIR,
                    "Có tin chờ gửi nhưng nhà mạng không trả lời tin nào. Tin được giữ lại, chưa tin nào mất; tin đã "
                    "gửi mà chưa có trả lời thì không gửi lại. Thử kết nối rồi gọi nhà mạng. / Messages wait and the "
                    "carrier answers none. They are kept, none is lost; what was sent without an answer is not sent "
                    "again. Check the connection, then call the carrier.",
                )
            elif may_be_open and self._ever_moved and self._waiting_since is None:
                if told:
                    ctx.log("carrier.moving")
                told = may_be_open = False
                await ctx.clear_repair(_REPAIR)
