"""How the simulated carriers are started for the connections that are configured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yarl import URL

from hub.contract import SecretRef, Simulator


def _arguments(connections: Mapping[str, Any], secret: Callable[[SecretRef], str], folder: Path) -> Sequence[str]:
    """One SMSC with every connection's port and account; passwords go by file, a command line is seen by all."""
    accounts = folder / "telecom-sms-accounts.json"
    with open(os.open(accounts, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({mine.system_id: secret(mine.password) for mine in connections.values()}, file)
    ports = [f"--port={port}" for port in sorted({mine.port for mine in connections.values()})]
    return [*ports, "--accounts", str(accounts)]


SIMULATOR = Simulator("plugins.telecom_sms.simulator", _arguments)


def http_simulator(name: str) -> Simulator:
    """One process plays every connection of this carrier, at the ports of their addresses."""

    def arguments(connections: Mapping[str, Any], secret: Callable[[SecretRef], str], folder: Path) -> Sequence[str]:
        accounts = [
            {
                field: secret(value) if isinstance(value, SecretRef) else value
                for field, value in settings
                if isinstance(value, str | SecretRef)
            }
            for settings in connections.values()
        ]
        file_name = folder / f"sms-{name}-accounts.json"
        with open(os.open(file_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(accounts, file)
        ports = sorted({URL(settings.base_url).port or 80 for settings in connections.values()})
        return [*(f"--port={port}" for port in ports), "--accounts", str(file_name)]

    return Simulator(f"plugins.telecom_sms.simulator.{name}", arguments)
