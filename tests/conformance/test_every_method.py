"""The one suite calls every method of a store, on whichever engine it runs."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.base import Store
from tests import ledger

#: Tests that run on both engines: they know a store only as the fixtures ``store`` and ``make_store`` give it.
ON_BOTH = [*sorted(Path(__file__).parent.glob("test_store_*.py")), Path(__file__).with_name("test_prune.py")]
ON_BOTH += [Path(__file__).with_name("test_feed.py"), Path(ledger.__file__)]
METHODS = [name for name, value in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")]
#: What the tests call a store.
NAMES = {"store", "_store", "stores", "probe", "again"}


def calls(source: str) -> Iterator[str]:
    """Methods that are called, or handed on to be called, of something named like a store."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.value if isinstance(node.value, ast.Subscript) else node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in NAMES:
                yield node.attr


CALLED = {method for path in ON_BOTH for method in calls(path.read_text())}


def test_the_protocol_is_what_it_was_meant_to_be() -> None:
    assert {"open", "commit", "claim", "settle", "place_events"} <= set(METHODS) and len(METHODS) > 30


@pytest.mark.parametrize("method", METHODS)
def test_the_suite_calls_every_method_of_a_store(method: str) -> None:
    assert method in CALLED
