"""Each simulated HTTP carrier as the process that ``unionhub simulators`` starts."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Accepted, Outcome
from plugins.telecom_sms.connector_types import connector_types
from plugins.telecom_sms.simulator.journal import taken_id

from .http_support import NAMES, OPENING, http_settings
from .support import KEY, MSISDN, Context, MemoryHub, shipment


@pytest.mark.parametrize("name", NAMES)
def test_a_carrier_in_its_own_process_takes_a_message_and_its_control_port_counts_it(name: str, tmp_path: Path) -> None:
    (kind,) = [kind for kind in connector_types() if kind.name == f"sms_{name}"]
    assert kind.simulator is not None and kind.channel == "phone"
    wanted = http_settings(name, "http://127.0.0.1")
    arguments = kind.simulator.arguments({"a": wanted}, lambda ref: "s3cret", tmp_path)
    assert not any("s3cret" in argument for argument in arguments)
    (accounts,) = tmp_path.glob("*.json")
    assert accounts.stat().st_mode & 0o777 == 0o600
    log = tmp_path / "sms.log"
    # On a free port, not the one of the settings.
    command = [sys.executable, "-m", kind.simulator.module, "--log", str(log), "--key", KEY.hex(), *arguments[1:]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert isinstance(asyncio.run(_sent(name, ready["port"])), Accepted)
        with urllib.request.urlopen(f"http://127.0.0.1:{ready['control']}/control", timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        assert (state["submitted"], state["taken"]) == (1, 1)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)
        process.stdout.close()
    assert code == 0
    (line,) = map(json.loads, log.read_text().splitlines())
    assert (line["id"], line["verdict"]) == (taken_id(KEY, MSISDN, "Chào", 1), "taken")


async def _sent(name: str, port: int) -> Outcome:
    settings = http_settings(name, f"http://127.0.0.1:{port}")
    connection = OPENING[name][1](Context(MemoryHub(), "s3cret").value(), settings)
    assert connection.sink is not None and connection.close is not None
    try:
        return await connection.sink.send(shipment("Chào"))
    finally:
        await connection.close()


def test_the_plugin_offers_smpp_and_five_http_carriers_each_with_a_simulator() -> None:
    # sms_routes leads to the others and is nobody's partner.
    kinds = {kind.name: kind for kind in connector_types() if kind.name != "sms_routes"}
    assert set(kinds) == {"telecom_sms", *(f"sms_{name}" for name in NAMES)}
    assert all(kind.simulator is not None and kind.title_vi and kind.title_en for kind in kinds.values())
