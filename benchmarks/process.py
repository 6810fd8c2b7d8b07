"""What every process of a benchmark has in common: its event loop and its one line of output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed, as for the hub itself."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, Answer]) -> Answer:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def print_json(answer: Mapping[str, Any]) -> None:
    """One object on one line of standard output."""
    print(json.dumps(answer), flush=True)
