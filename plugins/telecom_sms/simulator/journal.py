"""What the simulator's log says: one line per short message taken or refused, and nobody's phone or text in it.

The id of a taken part is ``<phone>:<text>:<part>``: HMAC-SHA-256 of the phone under the key and SHA-256 of the joined
text, 16 hex digits each, and the part's number from 1. A long message is written when its last part has come.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

from . import wire

#: Joined messages kept to recognise a part that is sent again after its message was complete.
_REMEMBERED = 20_000


def phone_hash(key: bytes, phone: str) -> str:
    """``phone`` as it stands on the wire: 84 and nine digits."""
    return hmac.new(key, phone.encode(), hashlib.sha256).hexdigest()[:16]


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def taken_id(key: bytes, phone: str, text: str, part: int) -> str:
    """The id under which a part of ``text`` to ``phone`` stands in the log."""
    return f"{phone_hash(key, phone)}:{text_hash(text)}:{part}"


@dataclass
class Taken:
    """One submit_sm that was processed; ``answered`` may turn true while its message is still incomplete."""

    part: int
    data: bytes
    message_id: str
    answered: bool


@dataclass
class Long:
    """A long message on its way in. A part that came twice is there twice."""

    total: int
    coding: int
    phone: str
    reference: int
    parts: dict[int, list[Taken]] = field(default_factory=dict)
    #: When its last part came, on the monotonic clock.
    touched: float = 0.0

    def text(self) -> str:
        return wire.text_of(b"".join(self.parts[number][0].data for number in sorted(self.parts)), self.coding)


_Key = tuple[bytes, bytes, int, int]


class Journal:
    def __init__(self, file: IO[str], key: bytes) -> None:
        self._file = file
        self._key = key
        self._open: dict[_Key, Long] = {}
        self._joined: OrderedDict[_Key, tuple[str, dict[int, bytes]]] = OrderedDict()

    @property
    def incomplete_count(self) -> int:
        """Long messages of which a part is missing."""
        return len(self._open)

    def take(self, submit: wire.Submit, message_id: str, answered: bool) -> Taken:
        """Notes a processed part, and writes its line or, with the last part, the lines of the whole message."""
        reference, total, part, data = wire.read_part(submit)
        phone = submit.phone.decode("ascii", "replace")
        taken = Taken(part, data, message_id, answered)
        if total == 1:
            self._write_taken(phone, text_hash(wire.text_of(data, submit.coding)), taken)
            return taken
        key = (submit.source, submit.phone, reference, total)
        joined = self._joined.get(key)
        if joined is not None and key not in self._open and joined[1].get(part) == data:
            self._write_taken(phone, joined[0], taken)
            return taken
        long = self._open.setdefault(key, Long(total, submit.coding, phone, reference))
        long.parts.setdefault(part, []).append(taken)
        long.touched = time.monotonic()
        if len(long.parts) == total:
            self._join(key, self._open.pop(key))
        return taken

    def refuse(self, submit: wire.Submit, status: int) -> None:
        reference, total, part, data = wire.read_part(submit)
        shown = text_hash(wire.text_of(data, submit.coding)) if total == 1 else f"refused-{reference}"
        phone = phone_hash(self._key, submit.phone.decode("ascii", "replace"))
        self._write(f"{phone}:{shown}:{part}", "refused", status, True, None)

    def give_up_incomplete(self, idle_s: float = 0.0) -> None:
        """Writes what came of messages of which nothing more came for so long.

        Their ids are ``<phone>:incomplete:<reference>:<part>``.
        """
        for key, long in list(self._open.items()):
            if time.monotonic() - long.touched < idle_s:
                continue
            for taken in _in_order(long):
                name = f"{phone_hash(self._key, long.phone)}:incomplete:{long.reference}:{taken.part}"
                self._write(name, "taken", 0, taken.answered, taken.message_id)
            del self._open[key]

    def _join(self, key: _Key, long: Long) -> None:
        shown = text_hash(long.text())
        for taken in _in_order(long):
            self._write_taken(long.phone, shown, taken)
        self._joined[key] = shown, {number: parts[0].data for number, parts in long.parts.items()}
        if len(self._joined) > _REMEMBERED:
            self._joined.popitem(last=False)

    def _write_taken(self, phone: str, shown: str, taken: Taken) -> None:
        name = f"{phone_hash(self._key, phone)}:{shown}:{taken.part}"
        self._write(name, "taken", 0, taken.answered, taken.message_id)

    def _write(self, name: str, verdict: str, status: int, answered: bool, message_id: str | None) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "id": name, "verdict": verdict, "status": status, "answered": answered}
        print(json.dumps(line | {"message_id": message_id}), file=self._file, flush=True)


def _in_order(long: Long) -> Iterable[Taken]:
    return (taken for number in sorted(long.parts) for taken in long.parts[number])
