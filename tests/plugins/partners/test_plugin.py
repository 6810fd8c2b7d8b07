"""What the plugin registers."""

from __future__ import annotations

import json
from pathlib import Path

import pluggy
import pytest

from hub import hookspecs
from hub.contract import SecretRef
from hub.errors import ConfigError
from plugins import partners
from plugins.partners.settings import PartnerSettings
from plugins.partners.simulated import simulator_arguments


def test_it_offers_a_connector_type_for_one_address() -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(partners)
    manager.check_pending()
    offered = manager.hook.hub_connector_types()[0][0]
    assert (offered.name, offered.channel) == ("partner", None)
    assert offered.simulator is not None
    assert offered.simulator.module == "plugins.partners.simulator"
    assert offered.title_vi == "Đơn vị đối tác"


def settings(url: str) -> PartnerSettings:
    return PartnerSettings(url=url, secret=SecretRef(env="S"), allow_networks=("127.0.0.0/8",))


def test_one_simulator_plays_all_connections_to_this_machine(tmp_path: Path) -> None:
    connections = {
        "a": settings("http://127.0.0.1:18081/hook/so-noi-vu"),
        "b": settings("http://127.0.0.1:18081/hook/bhxh-tinh"),
        "real": settings("https://nhan.example.vn/hook/x"),
    }
    arguments = simulator_arguments(connections, lambda ref: f"secret of {ref.env}", tmp_path)
    assert arguments[:3] == ["--port", "18081", "--secrets"]
    file = Path(arguments[3])
    assert json.loads(file.read_text()) == {"so-noi-vu": "secret of S", "bhxh-tinh": "secret of S"}
    assert file.stat().st_mode & 0o077 == 0


def test_two_ports_cannot_be_played_by_one_simulator(tmp_path: Path) -> None:
    connections = {str(port): settings(f"http://127.0.0.1:{port}/hook/a") for port in (18081, 18082)}
    with pytest.raises(ConfigError, match="18081, 18082"):
        simulator_arguments(connections, lambda ref: "", tmp_path)
