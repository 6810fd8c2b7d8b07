"""How the simulated app is started for the connection that is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yarl import URL

from hub.contract import SecretRef, Simulator

#: Where systems begin to give out free ports.
_EPHEMERAL = 32_768


def _arguments(connections: Mapping[str, Any], secret: Callable[[SecretRef], str], folder: Path) -> Sequence[str]:
    """There is one citizen app: the first connection's."""
    name, settings = next(iter(sorted(connections.items())))
    port = URL(settings.base_url).port or 0
    # A thousand above the configured port, where people look for it; beside a port that the system gave out,
    # that one may be taken.
    control = port + 1000 if 0 < port < _EPHEMERAL else 0
    arguments = ["--port", str(port), "--control-port", str(control), "--connection", name]
    arguments += ["--client-id", settings.client_id, "--client-secret", secret(settings.client_secret)]
    if settings.webhook_secrets:
        arguments += ["--webhook-secret", secret(settings.webhook_secrets[0])]
    return arguments


SIMULATOR = Simulator("plugins.citizen_app.simulator", _arguments)
