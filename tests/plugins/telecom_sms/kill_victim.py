"""The victim of the kill test: a hub in a process of its own with one SMPP account, which is sending when it is killed.

``python -m tests.plugins.telecom_sms.kill_victim FOLDER PORT COUNT``: announces one campaign (the same at every start,
so it is one event), prints ``ready`` once it is durable, and works until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from hub.plugins import load_plugins
from hub.testing import plain_event_type, registry_of, running_hub

from .test_flow import ANNOUNCED, People, announce

TEXT = "Công đoàn tỉnh kính báo"


async def main(folder: Path, port: int, count: int) -> None:
    secret = folder / "config" / "smsc"
    secret.parent.mkdir(exist_ok=True)
    secret.touch(mode=0o600)
    secret.write_text("demo")
    people = People(count)
    registry = registry_of(
        load_plugins(), event_types=[plain_event_type(ANNOUNCED, thin=("text",))], directory=lambda hub: people
    )
    settings = {
        "host": "127.0.0.1", "port": port, "system_id": "demo", "password": {"file": "smsc"}, "sender": "CONGDOAN",
        "response_timeout_s": 2.0, "quiet_hours": False,
    }  # fmt: skip
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_hub(
        folder,
        registry,
        connections={"sms": {"type": "telecom_sms", "settings": settings}},
        subscriptions=[{"name": "campaign", "types": [ANNOUNCED], "to_each": {"phone": "sms"}}],
        settings={"retry": {"schedule_s": [0.05] * 20}, "breaker": {"failures": 10_000}},
    ) as hub:
        await announce(hub, TEXT)
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
