"""The simulated axis as a process of its own, and the properties its packets and its log promise."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hub.clock import system_clock
from hub.contract import SecretRef
from hub.errors import ConfigError
from hub.plugins import Registry
from plugins.doc_mgmt.client import AxisClient, AxisError
from plugins.doc_mgmt.edxml_reader import read_document
from plugins.doc_mgmt.settings import DocAxisSettings
from plugins.doc_mgmt.simulator.packets import packets
from tests.plugins.doc_mgmt.support import ORGAN_ID, SECRET, StartAxis


def settings(endpoint: str = "http://127.0.0.1:0", **changes: object) -> DocAxisSettings:
    given = {"endpoint": endpoint, "system_id": "SYS-TEST", "secret": {"env": "X"}, "organ_id": ORGAN_ID, **changes}
    return DocAxisSettings.model_validate(given)


def test_the_process_says_ready_serves_its_control_port_and_stops_on_sigterm(
    tmp_path: Path, registry: Registry
) -> None:
    simulator = registry.connector_types["doc_axis"].simulator
    assert simulator is not None
    arguments = simulator.arguments({"axis": settings()}, lambda ref: SECRET, tmp_path)
    assert SECRET not in arguments
    assert stat.S_IMODE((tmp_path / "doc_axis.key").stat().st_mode) == 0o600
    command = [sys.executable, "-m", simulator.module, "--log", str(tmp_path / "axis.log"), "--documents", "3"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["ready"], ready["documents"], ready["packets"]) == (True, 3, 5)
        with urllib.request.urlopen(f"http://127.0.0.1:{ready['control']}/control", timeout=10) as answer:
            assert json.load(answer)["unmarked"] == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_one_simulator_plays_one_axis_on_this_machine(tmp_path: Path, registry: Registry) -> None:
    simulator = registry.connector_types["doc_axis"].simulator
    assert simulator is not None

    def secret(_: SecretRef) -> str:
        return SECRET

    with pytest.raises(ConfigError):
        simulator.arguments({"a": settings("https://truc.example")}, secret, tmp_path)
    with pytest.raises(ConfigError):
        simulator.arguments({"a": settings(), "b": settings(system_id="khac")}, secret, tmp_path)


def test_the_same_seed_gives_the_same_packets_and_another_seed_others() -> None:
    assert packets(1, 16) == packets(1, 16)
    assert packets(1, 20)[16:] == packets(1, 4, first=16)
    assert not {p.document_id for p in packets(1, 16)} & {p.document_id for p in packets(2, 16)}
    read = [read_document(packet.content) for packet in packets(1, 64)]
    assert len({(d.sender.organ_id, d.code, d.promulgated_on, d.document_id) for d in read}) == 64


async def test_what_is_not_a_status_packet_is_refused_and_not_taken(start_axis: StartAxis) -> None:
    partner = await start_axis(documents=1)
    client = AxisClient(
        partner.endpoint,
        system_id="SYS-TEST",
        secret=lambda: SECRET,
        timeout_s=10,
        connections=1,
        packet_bytes=1 << 20,
        now=system_clock,
    )
    for packet in (b"", b"<edXML/>", partner.axis.packets["SIM7-000000"].content):
        with pytest.raises(AxisError) as refused:
            await client.send_status(packet, ORGAN_ID)
        assert refused.value.error_code == "22"
    await client.close()
    assert partner.taken() == []


async def test_control_refuses_a_switch_it_does_not_have(start_axis: StartAxis) -> None:
    partner = await start_axis(documents=1)
    assert await partner.put(withold=True) == {"unknown": ["withold"]}
    assert (await partner.put(add=2, slow_ms=1))["documents"] == 3
