"""What a story found, kept while it is being told: a run that is interrupted has lost nothing."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def keep(results: Path, part: str, name: str, found: Mapping[str, Any]) -> None:
    """Into the file of results; what was not run this time stays as it was, with its own date."""
    results.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    kept.setdefault(part, {})[name] = found
    aside = results.with_suffix(".tmp")
    aside.write_text(json.dumps(kept, indent=2) + "\n")
    aside.replace(results)


class Progress:
    """Of one fault: each step goes to the terminal, and with ``unfinished`` into the file."""

    def __init__(self, results: Path, name: str, about: Mapping[str, Any]) -> None:
        self._results = results
        self._name = name
        self._about = about
        self._began = perf_counter()

    def __call__(self, text: str, found: Mapping[str, Any] | None = None) -> None:
        """``found``: what the result would be if this were the end."""
        print(f"{self._name} {self._seconds:>5} s: {text}", file=sys.stderr, flush=True)
        if found is not None:
            keep(self._results, "faults", self._name, self._result(found) | {"unfinished": True})

    def end(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The whole result, which is in the file now."""
        result = self._result(found)
        keep(self._results, "faults", self._name, result)
        return result

    def _result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._about, **found, "seconds": self._seconds}

    @property
    def _seconds(self) -> int:
        return round(perf_counter() - self._began)
