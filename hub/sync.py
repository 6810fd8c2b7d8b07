"""One pull run: page after page, each page and the cursor that is true with it in one transaction."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import text

from hub.commit import Committer
from hub.contract import Guard, Source
from hub.errors import Conflict
from hub.model import Draft
from hub.sql import query
from hub.store.base import RunRow, Store

#: A source that is never done is left to its next run after this many pages.
PAGES = 1000

_CURSOR = query(text("SELECT cursor FROM connection WHERE name = :name"))
_MOVE = query(
    text(
        "UPDATE connection SET cursor = :new WHERE name = :name AND"
        " ((cursor IS NULL AND :known = 0) OR (cursor = :old AND :known = 1))"
    )
)
_COUNT = query(
    text(
        "UPDATE run SET pages = pages + 1, items = items + :items WHERE id = :id AND state = 'running'"
        " AND lease_owner = :owner"
    )
)


async def pull(run: RunRow, source: Source, committer: Committer, store: Store, event_source: str) -> int:
    """Reads until the source is done; answers the number of new events.

    A crash repeats one page, which its dedupe keys absorb. Raises what the source raises; the cursor then
    stays where the last committed page put it.
    """
    cursor: str | None = (await store.fetch(_CURSOR(name=run.object)))[0][0]
    fresh = 0
    for _ in range(PAGES):
        page = await source.page(cursor)
        drafts: list[Draft] = [replace(d, source=event_source) for d in page.unit.drafts]
        guards = [
            Guard(
                _MOVE(new=page.cursor, name=run.object, old=cursor or "", known=int(cursor is not None)),
                otherwise="cursor_moved",
            ),
            Guard(_COUNT(items=len(drafts), id=run.id, owner=run.owner), otherwise="run_lost"),
            *page.unit.guards,
        ]
        unit = replace(page.unit, guards=guards, drafts=drafts)
        try:
            committed = await committer.commit(unit, connection=run.object)
        except Conflict as conflict:
            if conflict.otherwise in ("cursor_moved", "run_lost"):
                raise
            continue  # a guard of the plugin's own: its page is made again from what is true now
        fresh += committed.repeated.count(False)
        await source.acknowledge(page)
        cursor = page.cursor
        if page.done:
            break
    return fresh
