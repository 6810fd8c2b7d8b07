"""One suite for every carrier behind the interface: SMPP, JSON, SOAP, a token before each message, a template."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from hub.contract import Accepted, Connection, Outcome, Refused, RetryLater, Scope, Sink, Unknown
from hub.model import new_id
from plugins.telecom_sms.simulator.journal import taken_id

from .conftest import Carrier
from .http_support import FIELDS, NAMES, opened_http
from .support import KEY, MSISDN, Context, shipment, until
from .test_connector import opened

EVERY = ("smpp", *NAMES)


@dataclass(frozen=True)
class Account:
    """An open account at a simulated carrier, and what the carrier can be told to do."""

    connection: Connection
    context: Context
    #: Takes our names of behaviour, whatever the simulator calls them.
    behave: Callable[..., None]
    taken: Callable[[], list[str]]

    @property
    def sink(self) -> Sink:
        assert self.connection.sink is not None
        return self.connection.sink


@asynccontextmanager
async def account(name: str, carrier: Carrier, **changes: Any) -> AsyncIterator[Account]:
    if name == "smpp":
        async with opened(carrier.port, **changes) as running:

            def behave(lose: float = 0.0, too_fast: bool = False) -> None:
                carrier.smsc.change({"lose_share": lose, "throttle_share": float(too_fast)})

            yield Account(running.connection, running.context, behave, carrier.taken)
        return
    async with opened_http(name, **changes) as open_account:
        simulator = open_account.simulator

        def tell(lose: float = 0.0, too_fast: bool = False) -> None:
            simulator.change(
                {"lose_share": lose, "refuse_share": float(too_fast), "refuse_code": simulator.TOO_FAST * too_fast}
            )

        yield Account(open_account.connection, open_account.context, tell, open_account.taken)


@pytest.mark.parametrize("name", EVERY)
async def test_what_is_accepted_is_what_the_carrier_took_letter_by_letter(name: str, carrier: Carrier) -> None:
    texts = ["Chao anh chi", "Chào anh chị đoàn viên", 'Ký tự [€] <&> "" 🎉', "Dòng một\nDòng hai", "ạ" * 150]
    async with account(name, carrier) as open_account:
        outcomes = await asyncio.gather(*(open_account.sink.send(shipment(text)) for text in texts))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        seen = {line for line in open_account.taken() if line.endswith(":1")}
    assert seen == {taken_id(KEY, MSISDN, text, 1) for text in texts}


@pytest.mark.parametrize("name", EVERY)
async def test_no_answer_is_never_a_second_message(name: str, carrier: Carrier) -> None:
    times = {"response_timeout_s": 0.3} if name == "smpp" else {}
    async with account(name, carrier, **times) as open_account:
        open_account.behave(lose=1.0)
        delivery = new_id()
        outcome = await open_account.sink.send(shipment("Chào", delivery_id=delivery))
        # The ledger makes another try of the one, and never of the other.
        assert isinstance(outcome, RetryLater if open_account.sink.resend_is_safe else Unknown)
        open_account.behave()
        if open_account.sink.resend_is_safe:
            assert isinstance(await open_account.sink.send(shipment("Chào", delivery_id=delivery)), Accepted)
        assert open_account.taken() == [taken_id(KEY, MSISDN, "Chào", 1)]


@pytest.mark.parametrize("name", [name for name in EVERY if name in ("smpp", "esms")])
async def test_too_fast_holds_the_whole_stream_and_spends_no_try(name: str, carrier: Carrier) -> None:
    """The others have no code for it that anybody has seen; an HTTP 429 counts for all of them."""
    async with account(name, carrier) as open_account:
        open_account.behave(too_fast=True)
        outcome = await open_account.sink.send(shipment("Chào", deadline_s=0.6))
        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.scope) == ("throttled", Scope.DESTINATION)
        open_account.behave()
        again: Outcome = outcome
        while not isinstance(again, Accepted):
            again = await open_account.sink.send(shipment("Chào"))
        assert len(open_account.taken()) == 1


@pytest.mark.parametrize("name", EVERY)
async def test_no_number_no_text_and_no_secret_shows_in_outcomes_and_logs(name: str, carrier: Carrier) -> None:
    async with account(name, carrier) as open_account:
        outcomes = [await open_account.sink.send(shipment("Chim hoàng yến 4711", deadline_s=2.0))]
        open_account.behave(lose=1.0)
        outcomes.append(await open_account.sink.send(shipment("Chim hoàng yến 4711", deadline_s=0.5)))
        seen = repr((outcomes, open_account.context.logged, open_account.context.repairs))
    for secret in ("912555123", "hoàng", "4711", "s3cret", "demo"):
        assert secret not in seen


@pytest.mark.parametrize("name", EVERY)
async def test_a_number_that_is_none_reaches_no_carrier(name: str, carrier: Carrier) -> None:
    async with account(name, carrier) as open_account:
        outcome = await open_account.sink.send(shipment("Chào", address="1900555123"))
        assert isinstance(outcome, Refused) and outcome.scope is Scope.RECIPIENT
        assert open_account.taken() == []


@pytest.mark.parametrize("name", EVERY)
async def test_the_check_sends_nothing_and_says_what_is_wrong(name: str, carrier: Carrier) -> None:
    assert set(FIELDS) == set(NAMES)
    async with account(name, carrier) as open_account:
        assert open_account.connection.check is not None
        steps = [(step.step, step.ok) async for step in open_account.connection.check()]
        assert steps[:2] == [("dns", True), ("tcp", True)] and all(ok for _, ok in steps)
        assert open_account.taken() == []
    if name == "smpp":
        await until(lambda: not carrier.smsc.peers)
        return
    closed = [(step.step, step.ok) async for step in open_account.connection.check()]
    assert closed[-1] == ("tcp", False)
