"""Tells systemd that the hub is ready, and that its event loop turns; does nothing where nobody listens."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> None:
    """One message to the socket in ``NOTIFY_SOCKET``.

    Source: sd_notify(3), systemd 252: one datagram; a name that starts with @ is in the abstract namespace.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def keep_watchdog() -> None:
    """From inside the loop, twice in the time systemd waits: a loop that hangs says nothing and is started again."""
    patience_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1_000_000
    while patience_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(patience_s / 2)
