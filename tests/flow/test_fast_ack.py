"""A sender is answered when its message is on disk; who it goes on to, and how slow they are, is nothing to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.contract import Delivered
from hub.testing import RecordingSink, eventually
from tests.flow.conftest import Blocked, reach, states
from tests.flow.front_door import open_door, question, signed

MESSAGES = 60


async def test_a_receiver_that_never_answers_holds_no_sender_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_door(tmp_path, monkeypatch) as door:
        sink = door.hub.connections["quiet"].sink
        assert isinstance(sink, RecordingSink)
        stuck = Blocked(Delivered())
        sink.script = [stuck] * MESSAGES

        async def post(n: int) -> int:
            body = question(f"q-{n}")
            return (await door.post(body, signed(body, f"msg_{n}"))).status

        assert await post(0) == 202
        await eventually(lambda: stuck.waiting == 1)
        # Each of them comes while the ones before it are owed to somebody who hangs: first until every slot does.
        assert [await post(n) for n in range(1, 20)] == [202] * 19
        await eventually(lambda: stuck.waiting == sink.concurrency)
        assert await asyncio.gather(*(post(n) for n in range(20, MESSAGES))) == [202] * (MESSAGES - 20)
        rows = await door.rows()
        assert rows["attempt"] == 0, "nobody was answered because a try had ended"
        assert stuck.waiting == sink.concurrency
        assert "delivered" not in await states(door.hub)
        assert rows["event"] == MESSAGES, "and what was answered is kept"
        stuck.let_go.set()
        await reach(door.hub, ["delivered"] * MESSAGES)
