"""What systemd is told: ready, alive, stopping."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.notify import READY, keep_watchdog, notify


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket systemd would listen on."""
    name = f"unionhub-{os.getpid()}-{request.param}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}" if request.param == "abstract" else str(tmp_path / "s"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if request.param == "abstract" else str(tmp_path / "s"))
        yield listening


def test_what_is_said_arrives(systemd: socket.socket) -> None:
    notify(READY)
    assert systemd.recv(100) == b"READY=1"


async def test_a_loop_that_turns_says_so_as_long_as_it_does(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    task = asyncio.create_task(keep_watchdog())
    for _ in range(3):
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
    task.cancel()


async def test_without_a_watchdog_or_a_socket_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notify(READY)
    await keep_watchdog()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify(READY)
