"""The engine a database URL asks for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from hub.clock import Clock
from hub.store.base import BreakerPolicy, Store
from hub.store.look import look
from hub.store.migrate import Owner

POSTGRES = "postgresql://"


def make_store(
    url: str,
    file: Path,
    lock_file: Path,
    *,
    owners: Sequence[Owner],
    breaker: BreakerPolicy,
    unresolved_after_s: float,
    key_fingerprint: bytes,
    synchronous: str,
    clock: Clock,
) -> Store:
    """A store that is not open yet: on PostgreSQL for its URLs, else on the SQLite file."""
    if url.startswith(POSTGRES):
        # asyncpg is an extra, and heavy: only who asks for it pays.
        from hub.store.postgres import PostgresStore

        return PostgresStore(
            url,
            owners=owners,
            breaker=breaker,
            unresolved_after_s=unresolved_after_s,
            key_fingerprint=key_fingerprint,
            lock_file=lock_file,
        )
    from hub.store.sqlite import SqliteStore

    return SqliteStore(
        file,
        owners=owners,
        breaker=breaker,
        unresolved_after_s=unresolved_after_s,
        key_fingerprint=key_fingerprint,
        synchronous=synchronous,
        clock=clock,
    )


def is_empty(url: str, file: Path) -> bool:
    """Whether no ledger is there yet: only then may a new key be made for it.

    Raises: ConfigError when the server cannot be asked, or would let no ledger be made.
    """
    if not url.startswith(POSTGRES):
        return not file.exists() or file.stat().st_size == 0

    async def ask() -> bool:
        return (await look(url, [])).tables == "none"

    answers: list[bool | BaseException] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(ask()))
        except BaseException as error:
            answers.append(error)

    # In a thread of its own: the caller may be inside a loop.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]
