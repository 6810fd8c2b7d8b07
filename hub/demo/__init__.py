"""The demo: the main job on sample data, with simulated partners, a crash, and a ledger that must balance."""

from __future__ import annotations

from hub.demo.story import run_demo

__all__ = ["run_demo"]
