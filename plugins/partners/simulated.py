"""How our simulated partner is started for the connections that are configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from yarl import URL

from hub.contract import SecretRef, Simulator
from hub.errors import ConfigError
from plugins.partners.guard import is_loopback
from plugins.partners.settings import PartnerSettings


def simulator_arguments(
    connections: Mapping[str, PartnerSettings], secret: Callable[[SecretRef], str], folder: Path
) -> Sequence[str]:
    """One process plays every connection whose url is ``http://127.0.0.1:PORT/hook/NAME``; the rest is left alone."""
    ports: set[int] = set()
    secrets: dict[str, str] = {}
    for settings in connections.values():
        url = URL(settings.url)
        plays = url.scheme == "http" and is_loopback(url.host or "") and url.parent.path == "/hook"
        if plays and settings.secret is not None:
            ports.add(url.port or 80)
            secrets[url.name] = secret(settings.secret)
    if len(ports) > 1:
        raise ConfigError(f"one simulator plays all partners, on one port; connections name {sorted(ports)}")
    # Through a file of this user alone: everybody on the machine can read arguments.
    file = folder / "partner-secrets.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(secrets), "utf-8")
    return ["--port", str(ports.pop() if ports else 0), "--secrets", str(file)]


SIMULATOR = Simulator("plugins.partners.simulator", simulator_arguments)
