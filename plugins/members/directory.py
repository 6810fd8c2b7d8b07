"""The Directory: who belongs to the union, where they can be reached, and whether they still may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import orjson

from hub.contract import Hub
from hub.errors import InputError
from hub.model import Json
from plugins.members import tables

PAGE_SIZE = 500


class MemberDirectory:
    """Answers from the members table at the moment of asking; keeps no address."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        """Active members of ``{"unit": code}`` or, with ``{}``, of all units, by id in pages of 500."""
        if selector.keys() - {"unit"} or not isinstance(selector.get("unit", ""), str):
            raise InputError('the members directory knows the selectors {} and {"unit": CODE}', problem="selector")
        unit = selector.get("unit")
        after = ""
        while True:
            values = {"status": "active", "after": after, "page_size": PAGE_SIZE, "skip": 0}
            if unit is None:
                rows = await self._hub.fetch(tables.RECIPIENTS(**values))
            else:
                rows = await self._hub.fetch(tables.RECIPIENTS_OF_UNIT(unit_code=unit, **values))
            if rows:
                yield [str(subject) for (subject,) in rows]
            if len(rows) < PAGE_SIZE:
                return
            after = str(rows[-1][0])

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        """E.164 phones: on "phone" of everybody who has one, on "app" of those who installed the app."""
        if channel not in ("phone", "app"):
            return {}
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(subjects))
        for start in range(0, len(wanted), tables.CHUNK):
            rows = await self._hub.fetch(tables.PROFILES(**tables.padded(wanted[start : start + tables.CHUNK])))
            sealed = [
                (str(subject), profile)
                for subject, has_app, has_phone, profile in rows
                if has_phone and (has_app or channel == "phone")
            ]
            opened = await self._hub.unseal(sealed)
            for (subject, _), profile in zip(sealed, opened, strict=True):
                if profile is not None and (phone := orjson.loads(profile).get("phone")):
                    found[subject] = str(phone)
        return found

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        """None, ``left_the_union`` or ``not_a_member``. Purpose and channel do not matter yet."""
        rows = await self._hub.fetch(tables.STATUS(subject=subject))
        if not rows:
            return "not_a_member"
        return "left_the_union" if rows[0][0] == "left" else None
