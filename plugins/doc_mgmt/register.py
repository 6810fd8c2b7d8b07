"""Đăng ký văn bản đến: gives a received document its arrival number and owes the sender status 03."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from hub.contract import Guard, Hub, Outcome, Refused, UnitOfWork
from hub.model import Event, to_us

from . import tables
from .edxml import VIETNAM, BusinessType, Code, ResponseFor, StatusCode
from .schema import Reference, status_draft

#: A revocation or an update speaks about a document that has its number already.
_GETS_A_NUMBER = frozenset({BusinessType.NEW, BusinessType.REPLACE})


async def register(event: Event, hub: Hub) -> UnitOfWork | Outcome:
    """Registers the document of a received event; a second time changes nothing.

    The number is the next of the year in Viet Nam's time zone. It is taken inside the transaction: a counter read
    here and compared there would make every registration at once but one fail and come again.
    """
    try:
        document_id = UUID(str(event.data.get("document_id")))
    except ValueError:
        return Refused(reason="document_id_missing")
    rows = await hub.fetch(tables.REGISTRATION(document_id=document_id.bytes))
    if not rows:
        return Refused(reason="document_unknown")
    (state, business_type, doc_id, own_organ_id, own_organ_name, from_organ_id, number, notation, promulgated_on,
     partner_document_id, connection) = rows[0]  # fmt: skip
    if state != "received" or business_type not in _GETS_A_NUMBER:
        return UnitOfWork()
    now = hub.now()
    year = now.astimezone(VIETNAM).year
    registered = tables.REGISTER(
        document_id=document_id.bytes,
        old_state="received",
        new_state="registered",
        in_year=year,
        of_year=year,
        at_us=to_us(now),
    )
    reference = Reference(
        document_id=document_id,
        doc_id=doc_id,
        connection=connection,
        own_organ_id=own_organ_id,
        own_organ_name=own_organ_name,
        response_for=ResponseFor(
            organ_id=from_organ_id,
            code=Code(number, notation),
            promulgated_on=date.fromisoformat(promulgated_on),
            document_id=partner_document_id,
        ),
    )
    return UnitOfWork(
        guards=(
            Guard(tables.NEXT_NUMBER(year=year, value=1, one=1)),
            Guard(registered, otherwise="registered_already"),
        ),
        drafts=(status_draft(reference, StatusCode.REGISTERED, now, event.correlation_id),),
    )
