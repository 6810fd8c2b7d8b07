"""Segments whose receipt does not come, so that the carrier can be asked about each by query_sm.

In memory on purpose: after a restart the receipt time decides, as it does for carriers that cannot be asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

#: Older ones are forgotten: they are left to the receipt time.
_MOST: Final = 100_000


class Overdue:
    """References with the carrier's own notation of their ids; instants on the caller's monotonic clock."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        #: In the order in which they fall due, since all wait equally long.
        self._awaited: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._early: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._awaited)

    def await_receipt(self, ref: str, message_id: str, now: float) -> None:
        if ref in self._early:
            del self._early[ref]
            return
        self._awaited[ref] = now + self.after_s, message_id
        if len(self._awaited) > _MOST:
            self._awaited.popitem(last=False)

    def reported(self, ref: str) -> None:
        """A final receipt came, perhaps before the answer that brings the reference."""
        if self._awaited.pop(ref, None) is None:
            self._early[ref] = None
            if len(self._early) > _MOST:
                self._early.popitem(last=False)

    def due(self, now: float) -> Iterator[tuple[str, str]]:
        """Takes out what is due: (reference, message id)."""
        while self._awaited:
            ref, (at, message_id) = next(iter(self._awaited.items()))
            if at > now:
                return
            del self._awaited[ref]
            yield ref, message_id
