"""The numbers by which a phone joins the parts of a long message, counted in the ledger."""

from __future__ import annotations

import asyncio
from typing import Final

from hub.contract import Guard, Hub, UnitOfWork
from hub.errors import Conflict

from .. import tables

#: Taken from the ledger at once: no multiple of 256, so that a restart does not begin with those that were just used.
_AT_ONCE: Final = 100
#: Phones of which the last reference is remembered, so that the next message never has the same.
_REMEMBERED: Final = 10_000
#: Whose counter it is: one row for all phones.
_ALL_PHONES: Final = bytes(16)


class References:
    """Of one sender. A commit for each long message would cost more than the message."""

    def __init__(self, hub: Hub, sender: str, bits: int) -> None:
        self._hub = hub
        self._names = {"sender": sender, "phone_hash": _ALL_PHONES}
        self._mask = (1 << bits) - 1
        self._taking = asyncio.Lock()
        self._left: list[int] = []
        #: By a hash of the phone.
        self._last_of: dict[int, int] = {}

    async def next(self, msisdn: str) -> int:
        """A reference that neither a restart nor another node gives again soon, nor this phone got last.

        Raises: Busy, Conflict (the ledger could not be asked; nothing was sent).
        """
        phone = hash(msisdn)
        last = self._last_of.pop(phone, None)
        reference = last
        while reference == last:
            if not self._left:
                async with self._taking:
                    if not self._left:
                        self._left = await self._take()
            reference = self._left.pop() & self._mask
        assert reference is not None
        self._last_of[phone] = reference
        if len(self._last_of) > _REMEMBERED:
            del self._last_of[next(iter(self._last_of))]
        return reference

    async def _take(self) -> list[int]:
        """The next ones, the first of them last."""
        for _ in range(20):
            rows = await self._hub.fetch(tables.LAST_REFERENCE(**self._names))
            seen = int(rows[0][0]) if rows else None
            first = 1 if seen is None or seen + _AT_ONCE > 0xFFFF else seen + 1
            last = first + _AT_ONCE - 1
            try:
                await self._hub.commit(
                    UnitOfWork(guards=[Guard(tables.COUNT_ON(**self._names, reference=last, seen=seen))])
                )
            except Conflict:
                continue  # another node took them
            return list(range(last, first - 1, -1))
        raise Conflict
