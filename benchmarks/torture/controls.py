"""The hub without one of its safeguards. Each must make its test fail: a test that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from hub.model import new_id
from hub.store.base import DraftRows, ReceiptRow
from hub.store.ops import commit, settle
from hub.store.ops.tx import Tx

#: What can be taken away, and what must then be seen.
SAFEGUARDS = {
    "dedupe": "a message that is repeated because its answer was lost becomes two events",
    "fence": "a node that was taken for dead settles what another has claimed meanwhile",
    "parking": "a receipt that came before its reference is lost",
    "fsync": "a power cut takes what was acknowledged, or the file",
}
#: True of any lease; typed, so that PostgreSQL takes it too.
_ANY = "CAST(? AS bigint) IS NOT NULL"


@contextmanager
def without(safeguard: str) -> Iterator[None]:
    """The core with this safeguard taken out; "" leaves it as it is. ``fsync`` is the store's own setting."""
    with _PATCHES[safeguard]():
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _dedupe() -> Iterator[None]:
    drafts = commit._drafts

    def forgetful(tx: Tx, given: Any) -> Any:
        return drafts(tx, [_renamed(d) for d in given])

    with patch.object(commit, "_drafts", forgetful):
        yield


def _renamed(draft: DraftRows) -> DraftRows:
    source, _, content_hash, event_id, keep_until = draft.dedupe
    return replace(draft, dedupe=(source, new_id().bytes, content_hash, event_id, keep_until))


@contextmanager
def _fence() -> Iterator[None]:
    with (
        patch.object(settle, "_OF_LEASED", settle._OF_LEASED.replace("q.lease_no = s.column2 AND", "")),
        patch.object(settle, "_TO_HISTORY", settle._TO_HISTORY.replace("lease_no = ?", _ANY)),
        patch.object(settle, "_BACK", settle._BACK.replace("lease_no = ?", _ANY)),
    ):
        yield


@contextmanager
def _parking() -> Iterator[None]:
    take = commit.take_receipt

    def hasty(tx: Tx, r: ReceiptRow) -> None:
        if tx.execute(commit._DELIVERY_OF, (r.connection, r.ref)).fetchone() is not None:
            take(tx, r)

    with patch.object(commit, "take_receipt", hasty):
        yield


_PATCHES = {"": _nothing, "fsync": _nothing, "dedupe": _dedupe, "fence": _fence, "parking": _parking}
