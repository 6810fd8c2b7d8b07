"""How long each endpoint has been failing, who was told, and when enough is enough.

An outage is told at its first failure, half-way, and when the endpoint is switched off after five days. Each word is an
``endpoint.*`` event that the ledger keeps once, whichever node says it first; mail and portal read those events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hub.contract import ConnectionContext, EventType, UnitOfWork
from hub.errors import HubError
from hub.model import Draft, Json, from_us, to_us
from plugins.partners import tables

DISABLE_AFTER = timedelta(days=5)
HALF_WAY = DISABLE_AFTER / 2
#: An endpoint that fails now and then is not told of each time: once an hour, unless it has lasted this long.
QUIET, LASTING = timedelta(hours=1), timedelta(minutes=1)
#: Reasons of a switched-off endpoint (the destination's pause).
TOO_LONG, GONE, STOPPED = "failing_too_long", "gone", "stopped_by_partner"
REPAIR = "endpoint_failing"

FAILING, DISABLED, RECOVERED = (f"vn.congdoan.endpoint.{each}.v1" for each in ("failing", "disabled", "recovered"))
_WORDS: Mapping[str, Json] = {
    "destination": {"type": "string", "description": "connection, or connection/partner.endpoint"},
    "partner": {"type": "string"},
    "since": {"type": "string", "format": "date-time", "description": "first failure after the last success"},
    "reason": {"type": "string", "description": "of the last failure, as on the attempt"},
    "stage": {"enum": ["first", "half_way"]},
    "disabled_at": {"type": "string", "format": "date-time", "description": "when it will be switched off"},
}


def _event_type(name: str, vi: str, en: str, *fields: str, **example: str) -> EventType:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": list(fields),
        "properties": {field: _WORDS[field] for field in fields},
    }
    shown = {
        "destination": "doi-tac/so-noi-vu.chinh",
        "partner": "so-noi-vu",
        "since": "2026-11-18T00:00:00Z",
        **example,
    }
    return EventType(
        name=name, title_vi=vi, title_en=en, personal=False, thin=fields, schema=schema,
        example={field: shown[field] for field in fields},
    )  # fmt: skip


EVENT_TYPES = (
    _event_type(
        FAILING, "Địa chỉ nhận đang lỗi", "An endpoint is failing", "destination", "partner", "since", "reason",
        "stage", "disabled_at", reason="http_500", stage="first", disabled_at="2026-11-23T00:00:00Z",
    ),
    _event_type(
        DISABLED, "Địa chỉ nhận đã tắt", "An endpoint was switched off", "destination", "partner", "since", "reason",
        reason=TOO_LONG,
    ),
    _event_type(
        RECOVERED, "Địa chỉ nhận đã hoạt động lại", "An endpoint works again", "destination", "partner", "since",
    ),
)  # fmt: skip


@dataclass(slots=True)
class _Outage:
    since: datetime
    #: Whether the ledger knows of it, and how much was told: 1 first, 2 half-way.
    saved: bool = False
    told: int = 0


class Health:
    """The outages of one connection's endpoints as this node knows them; ``refresh`` reads what others wrote."""

    def __init__(self, context: ConnectionContext, partner_of: Callable[[str], str]) -> None:
        self._context = context
        self._partner_of = partner_of
        self._outages: dict[str, _Outage] = {}
        self._last_told: dict[str, datetime] = {}

    @property
    def failing(self) -> Mapping[str, object]:
        """By destination; asked at each success, so it is a plain look-up."""
        return self._outages

    async def refresh(self) -> None:
        """Takes over what other nodes saved or cleared."""
        saved = {
            str(destination): _Outage(from_us(since), True, told)
            for destination, since, told in await self._context.hub.fetch(tables.OUTAGES(of=self._context.name))
        }
        for destination, outage in list(self._outages.items()):
            if outage.saved and destination not in saved:
                del self._outages[destination]
        self._outages.update(saved)

    async def failed(self, destination: str, reason: str, now: datetime) -> bool:
        """One more failure; True once the endpoint has failed for so long that it is to be switched off."""
        outage = self._outages.get(destination)
        if outage is None:
            outage = self._outages[destination] = _Outage(now)
        lasted = now - outage.since
        if outage.told >= 2 and lasted >= DISABLE_AFTER:
            return True
        if lasted >= HALF_WAY and outage.told < 2:
            # Nobody is switched off without the warning, whatever an idle endpoint or a stopped hub left behind.
            outage.since = max(outage.since, now - HALF_WAY)
            await self._tell(destination, outage, 2, "half_way", reason, now)
        elif not outage.told:
            last = self._last_told.get(destination)
            if last is None or now - last >= QUIET or lasted >= LASTING:
                await self._tell(destination, outage, 1, "first", reason, now)
        return False

    async def _tell(self, destination: str, outage: _Outage, told: int, stage: str, reason: str, now: datetime) -> None:
        save = tables.SAVE_OUTAGE(
            destination=destination, connection=self._context.name, failing_since=to_us(outage.since), told=told
        )
        data = self._data(destination, outage, reason=reason, stage=stage, disabled_at=outage.since + DISABLE_AFTER)
        if await self._commit(UnitOfWork(statements=[save], drafts=[self._draft(FAILING, stage, data)])):
            outage.saved, outage.told = True, told
            self._last_told[destination] = now
            if self._outages.get(destination) is outage:
                await self._context.open_repair(REPAIR, destination)
            else:  # it has worked while this was being written down
                await self._end(destination, outage)

    async def worked(self, destination: str) -> None:
        """A success: what was told is taken back."""
        outage = self._outages.pop(destination, None)
        if outage is not None and outage.saved and not await self._end(destination, outage):
            self._outages.setdefault(destination, outage)

    async def _end(self, destination: str, outage: _Outage) -> bool:
        draft = self._draft(RECOVERED, "", self._data(destination, outage))
        done = await self._commit(UnitOfWork(statements=[tables.END_OUTAGE(destination=destination)], drafts=[draft]))
        if done:
            await self._clear_repair()
        return done

    async def disabled(self, destination: str, reason: str, now: datetime) -> None:
        """It is switched off now; once it is resumed, its days are counted anew."""
        outage = self._outages.pop(destination, None) or _Outage(now)
        draft = self._draft(DISABLED, reason, self._data(destination, outage, reason=reason))
        if await self._commit(UnitOfWork(statements=[tables.END_OUTAGE(destination=destination)], drafts=[draft])):
            await self._clear_repair()  # the pause has a repair of its own

    async def _clear_repair(self) -> None:
        if not any(outage.saved for outage in self._outages.values()):
            await self._context.clear_repair(REPAIR)

    async def _commit(self, unit: UnitOfWork) -> bool:
        try:
            await self._context.hub.commit(unit)
        except HubError as error:  # the try's own outcome stands; the next failure says it again
            self._context.log("endpoint.not_told", reason=error.code)
            return False
        return True

    def _data(self, destination: str, outage: _Outage, **more: str | datetime) -> Json:
        given = {"destination": destination, "partner": self._partner_of(destination), "since": outage.since, **more}
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in given.items()}

    def _draft(self, kind: str, word: str, data: Json) -> Draft:
        key = f"{kind}:{data['destination']}:{data['since']}:{word}"
        # Nodes that see one outage may word it differently: the first word stands.
        return Draft(type=kind, source="/partners", dedupe_key=key, data=data, same_as=key.encode())
