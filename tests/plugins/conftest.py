"""Plugins' flows run on either engine."""

from __future__ import annotations

from tests.engines import database_url, engine

__all__ = ["database_url", "engine"]
