"""What an operation sees of the open transaction, on either engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from hub.sql import Statement


class Cursor(Protocol):
    """The rows of one statement, all at hand."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Tx(Protocol):
    """One transaction. SQL is written once: ``?`` marks (or ``?1``), and what only PostgreSQL needs stands in

    ``/*pg: ... */``, a comment to SQLite.
    """

    #: What the engine raises when a row breaks a constraint.
    violation: type[Exception]
    #: Whether other units run at the same time.
    concurrent: bool

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Runs one statement."""
        ...

    def run(self, statement: Statement) -> int:
        """Runs a plugin's statement; answers the rows touched."""
        ...

    def run_all(self, statements: Sequence[Statement]) -> None:
        """Plugins' statements in their order; what they touch is not asked."""
        ...

    def many(
        self,
        head: str,
        rows: Sequence[tuple[Any, ...]],
        types: str,
        tail: str = "",
        lead: tuple[Any, ...] = (),
        *,
        pad: bool = False,
    ) -> int:
        """``head VALUES (...), (...) tail`` over all rows; answers the rows touched.

        Args:
            types: one letter a column: ``i`` int, ``s`` str, ``b`` bytes.
            lead: values of the marks in ``head``.
            pad: whether the statement passes over rows of NULLs, so that odd counts take few statements too.
        """
        ...

    def count(self, destination: str, state: str, delta: int) -> None:
        """Moves a counter; folded once before COMMIT."""
        ...

    def due(self, destination: str, at: int) -> None:
        """Something of the destination becomes due then: the earliest such instant is kept on its row."""
        ...

    def at_end(self, kind: Literal["destination", "connection"], name: str, change: Callable[[], object]) -> None:
        """Changes a destination's row, or those of a connection, just before COMMIT.

        So they are held as shortly as can be, and taken in one order by everybody, with those that ``due`` names.
        """
        ...

    def lock(self, *keys: tuple[str | bytes | None, ...]) -> None:
        """Until COMMIT no other unit holds any of the keys. One writer needs none.

        Taken in the order reference, delivery, ordering key, and all of a kind at once: two units that lock
        each other out would both be rolled back and run again.
        """
        ...
