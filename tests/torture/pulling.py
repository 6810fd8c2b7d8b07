"""A hub that pulls an archive page by page, in lives that end where they are told to: one line of JSON each.

``python -m tests.torture.pulling``: reads ``{"folder": ..., "pages": ..., "point": ..., "nth": ...}`` and prints the
status with which that life ended. Every page that is asked for is noted in ``folder/asked`` before it is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from hub import crashpoint
from hub.contract import Connection, Page, UnitOfWork
from hub.log import configure as configure_log
from hub.model import Draft
from hub.testing import connector, eventually, plain_event_type, registry_of, running_hub

PAPER = "vn.congdoan.paper.filed.v1"
PER_PAGE = 2


class Archive:
    def __init__(self, pages: int, asked: Path) -> None:
        self._pages = pages
        self._asked = asked.open("a", buffering=1)

    async def page(self, cursor: str | None) -> Page:
        n = int(cursor or 0)
        self._asked.write(f"{n}\n")
        drafts = [
            Draft(type=PAPER, source="", dedupe_key=f"{n}-{i}", data={"id": f"{n}-{i}", "n": n})
            for i in range(PER_PAGE)
        ]
        return Page(unit=UnitOfWork(drafts=drafts), cursor=str(n + 1), done=n + 1 == self._pages)

    async def acknowledge(self, page: Page) -> None:
        return None


async def pull(folder: Path, pages: int) -> None:
    """Until the run has ended."""
    archive = Archive(pages, folder / "asked")
    known = registry_of(
        connector_types=[connector("archive", Connection(source=archive))], event_types=[plain_event_type(PAPER)]
    )
    async with running_hub(folder, known, connections={"archive": {}}, synchronous="OFF") as hub:
        await hub.pull_now("archive")

        async def ended() -> bool:
            return await hub.store.read("SELECT count(*) FROM run WHERE state IN ('due', 'running')") == [(0,)]

        await eventually(ended, 60)


def main() -> None:
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if life["point"]:
                    crashpoint.arm(life["point"], life["nth"])
                with (Path(life["folder"]) / "hub.log").open("ab") as lines:
                    configure_log(lines)
                    asyncio.run(pull(Path(life["folder"]), life["pages"]))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
