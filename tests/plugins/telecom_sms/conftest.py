from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugins.telecom_sms.simulator.journal import Journal
from plugins.telecom_sms.simulator.smsc import Smsc

from .support import KEY


class Carrier:
    """The simulator inside the test's own loop, with its log in memory."""

    def __init__(self, smsc: Smsc | None = None) -> None:
        self.file = io.StringIO()
        self.smsc = smsc or Smsc(Journal(self.file, KEY), KEY, {"demo": "demo"})
        self.port = 0

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]

    def taken(self) -> list[str]:
        return [line["id"] for line in self.lines() if line["verdict"] == "taken"]

    def count(self, name: str) -> Any:
        return self.smsc.state()[name]


@pytest.fixture
async def carrier() -> AsyncIterator[Carrier]:
    carrier = Carrier()
    carrier.smsc.behaviour.receipt_delay_ms = 0
    carrier.port = await carrier.smsc.start()
    yield carrier
    await carrier.smsc.stop()
