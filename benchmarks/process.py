"""What every process of a benchmark has in common: its event loop and its one line of output."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
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


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def partner(
    module: str, *arguments: object, asks: bool = False
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mapping[str, Any]]]:
    """``python -m module`` in a process of its own, from the JSON line that says it is ready until SIGTERM.

    ``asks``: it is also asked by lines of its standard input.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, arguments), stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE if asks else None,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise SystemExit(f"{module} did not start")
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_mb(pid: int | str = "self", peak: bool = False) -> float:
    """Memory of a process now, or the most it ever had."""
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) / 1024
