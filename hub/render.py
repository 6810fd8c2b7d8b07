"""Answers of commands as text for a terminal: tables for lists, aligned lines for the rest."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from hub.model import Json

#: Cells up to this length stay on one line.
SHORT = 16
EMPTY = {"vi": "(chưa có gì)", "en": "(nothing yet)"}


def table_of(answer: Json, lang: str) -> str:
    """Every list of objects becomes a table, every other value a line."""
    parts = []
    for key, value in answer.items():
        if key == "failed":  # the exit code says it
            continue
        if isinstance(value, list) and (not value or isinstance(value[0], Mapping)):
            parts.append(f"{key}: {EMPTY[lang]}" if not value else _table(key, value))
        elif isinstance(value, Mapping):
            parts.append(f"{key}: " + ", ".join(f"{k}={_text(v)}" for k, v in value.items()))
        else:
            parts.append(f"{key}: {_text(value)}")
    return "\n".join(parts)


def progress_line(progress: Mapping[str, Any], lang: str) -> str:
    """One step of a running command."""
    said = progress.get(lang) or progress.get("message")
    return str(said) if said else "  ".join(f"{k}={_text(v)}" for k, v in progress.items() if k not in ("vi", "en"))


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    import rich.box
    from rich.console import Console
    from rich.table import Table

    columns = [c for c in rows[0] if any(row.get(c) not in (None, "", {}) for row in rows)]
    table = Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
    needed = 0
    for column in columns:
        longest = max(len(_text(row.get(column))) for row in rows)
        # What is copied into the next command stays in one piece, and what is short need not be folded.
        whole = column in ("id", "boot") or longest <= SHORT
        table.add_column(column, overflow="fold", no_wrap=whole)
        needed += (max(longest, len(column)) if whole else SHORT) + 3
    for row in rows:
        table.add_row(*(_text(row.get(c)) for c in columns))
    out = io.StringIO()
    # Rather a line that the terminal breaks than a cell that is cut.
    Console(file=out, width=max(_width(), needed)).print(table)
    return out.getvalue().rstrip("\n")


def _width() -> int:
    return max(shutil.get_terminal_size((140, 40)).columns, 100)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
