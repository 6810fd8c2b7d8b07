"""Before the first byte where a resend is unsafe: what is committed, asked again, and left in doubt by a crash."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from hub.contract import ASK_AGAIN, Accepted, Admission, Admit, Cancel, Guard, Outcome, Shipment
from hub.sql import query
from tests.flow.conftest import Site, emit, reach

#: Touches no row.
NEVER = query(text("UPDATE ledger SET sequence = sequence WHERE 1 = 0"))


async def test_an_admission_without_a_look_is_asked_again_before_anything_is_sent(site: Site) -> None:
    sink = site.sink("alpha", resend_is_safe=False)
    asked = 0

    def admit(shipment: Shipment) -> Admission:
        nonlocal asked
        asked += 1
        return Admit([Guard(NEVER(), otherwise=ASK_AGAIN)]) if asked == 1 else Admit()

    sink.admit_with = admit
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
        assert await hub.store.read("SELECT count(*) FROM attempt") == [(1,)]
    assert (asked, len(sink.shipments)) == (2, 1)


@pytest.mark.parametrize("safe", [True, False])
async def test_what_the_second_answer_forbids_is_not_sent(site: Site, safe: bool) -> None:
    sink = site.sink("alpha", resend_is_safe=safe)
    answers: list[Admission] = [Admit([Guard(NEVER(), otherwise=ASK_AGAIN)]), Cancel("opted_out")]
    sink.admit_with = lambda shipment: answers.pop(0)
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["cancelled(opted_out)"])
    assert sink.shipments == []


async def test_who_never_gets_a_clear_answer_waits_and_spends_no_try(site: Site) -> None:
    sink = site.sink("alpha", resend_is_safe=False)
    sink.admit_with = lambda shipment: Admit([Guard(NEVER(), otherwise=ASK_AGAIN)])
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["pending(ask_again)"])
        assert await hub.store.read("SELECT tries FROM queue") == [(0,)]
    assert sink.shipments == []


async def test_a_crash_never_leaves_more_in_doubt_than_may_be_sent_at_once(site: Site) -> None:
    """A slot is free when the end of its try is on record, not when the partner has answered."""
    sink = site.sink("alpha", resend_is_safe=False, concurrency=3)
    in_doubt: list[int] = []

    async def look(shipment: Shipment) -> Outcome:
        in_doubt.append((await hub.store.read("SELECT count(*) FROM queue WHERE state = 'sending'"))[0][0])
        return Accepted(refs=(shipment.id.hex(),), receipt_within=timedelta(hours=1))

    sink.script = [look] * 60
    async with site.running() as hub:
        await emit(hub, 60)
        await reach(hub, ["accepted"] * 60)
    assert max(in_doubt) <= 3
