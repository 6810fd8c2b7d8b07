"""What the tests of this plugin share: the running simulated axis as they see it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hub.model import Json
from plugins.doc_mgmt.simulator.axis import Axis

SECRET = "khoa-thu-nghiem"
ORGAN_ID = "999.00.01.H55"


@dataclass
class Partner:
    """The running simulator: the axis itself, its ports and its log."""

    axis: Axis
    port: int
    control: int
    log: Path
    secret_file: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def put(self, **changes: Any) -> Json:
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"http://127.0.0.1:{self.control}/control", json=changes) as response,
        ):
            answer: Json = await response.json()
            return answer

    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def taken(self) -> list[str]:
        return [line["id"] for line in self.lines() if line["verdict"] == "taken"]

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The connection's part of a configuration."""
        settings = {
            "endpoint": self.endpoint,
            "system_id": "SYS-TEST",
            "secret": {"file": str(self.secret_file)},
            "organ_id": ORGAN_ID,
            "organ_name": "Công đoàn Ví Dụ",
        }
        return {"type": "doc_axis", "settings": {**settings, **changes}}


StartAxis = Callable[..., Awaitable[Partner]]
