"""Lists made by the simulator, once per seed and session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from plugins.members.simulator.lists import generate

#: The day all ages are judged on.
TODAY = date(2026, 11, 23)


@dataclass(frozen=True)
class Made:
    """A list and what a reader must find in it."""

    path: Path
    expected: dict[str, Any]


Maker = Callable[..., Made]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """``made(seed, shuffled=False, edited=None)``"""
    folder = tmp_path_factory.mktemp("lists")

    @cache
    def make(seed: int, shuffled: bool = False, edited: int | None = None) -> Made:
        path = folder / f"danh sách {seed}{' xáo' if shuffled else ''}{'' if edited is None else f' sửa {edited}'}.xlsx"
        return Made(path, generate(seed, path, shuffled=shuffled, edited=edited))

    return make
