"""The loader: a broken plugin is named with the reason and left out whole; the others stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hub.plugins import GROUP, BrokenPlugin, Registry, load_plugins

Make = Callable[..., EntryPoint]

HEAD = """
from hub.contract import Command, ConnectionSettings, ConnectorType, EventType, Handler, PageRoute, Schema
from hub.hookspecs import hookimpl
def event(name):
    return EventType(name=name, title_vi="", title_en="", personal=False, thin=(), schema={}, example={})
def connector(name):
    return ConnectorType(name=name, settings=ConnectionSettings, open=lambda ctx, s: None)
async def handle(event, hub): ...
def page(path):
    return PageRoute(method="GET", path=path, handle=handle)
"""
GOOD = """
@hookimpl
def hub_event_types():
    return [event("vn.congdoan.good.made.v1")]
@hookimpl
def hub_connector_types():
    return (connector("good"),)
@hookimpl
def hub_handlers():
    return [Handler("good_handler", handle)]
@hookimpl
def hub_pages():
    return [page("/good/page/{name}")]
@hookimpl
def hub_directory(hub):
    return hub
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def plugin(name: str, body: str, head: str = HEAD) -> EntryPoint:
        module = f"made_plugin_{name}"
        (tmp_path / f"{module}.py").write_text(head + body, "utf-8")
        made.append(module)
        return EntryPoint(name, module, GROUP)

    yield plugin
    for module in made:
        sys.modules.pop(module, None)


def names(registry: Registry) -> dict[str, str]:
    return {broken.name: broken.code for broken in registry.broken}


def test_a_good_plugin_contributes_everything_by_name(make: Make) -> None:
    registry = load_plugins([make("good", GOOD)])

    assert list(registry.event_types) == ["vn.congdoan.good.made.v1"]
    assert list(registry.connector_types) == ["good"]
    assert list(registry.handlers) == ["good_handler"]
    assert list(registry.pages) == ["GET /good/page/{name}"]
    assert registry.directory is not None
    assert registry.broken == ()
    assert [(p.name, len(p.hooks)) for p in registry.plugins] == [("good", 5)]


BROKEN = {
    "fails to import": ("import_failed", "import no_such_module_at_all"),
    "has a syntax error": ("import_failed", "def broken(:"),
    "exits while it is imported": ("import_failed", "raise SystemExit(3)"),
    "raises in a hook": ("hook_raised", "@hookimpl\ndef hub_handlers():\n    raise RuntimeError('boom')"),
    "exits in a hook": ("hook_raised", "@hookimpl\ndef hub_handlers():\n    raise SystemExit(1)"),
    "misspells a hook": ("hook_unknown", "@hookimpl\ndef hub_event_tpyes():\n    return []"),
    "forgets the mark": ("hook_unmarked", "def hub_event_types():\n    return []"),
    "has an extra argument": ("hook_arguments", "@hookimpl\ndef hub_event_types(colour):\n    return []"),
    "implements nothing": ("no_hooks", ""),
    "answers no list": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    return event('vn.a.b.v1')"),
    "answers None": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    pass"),
    "answers text": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    return 'vn.a.b.v1'"),
    "answers another type": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    return [connector('x')]"),
    "names no version": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    return [event('vn.congdoan.a')]"),
    "names it by a number": ("wrong_answer", "@hookimpl\ndef hub_event_types():\n    return [event(5)]"),
    "has settings that are no model": (
        "wrong_answer",
        "@hookimpl\ndef hub_connector_types():\n"
        "    return [ConnectorType(name='x', settings=dict, open=lambda ctx, s: None)]",
    ),
    "takes tables of another owner": (
        "wrong_answer",
        "import pathlib, sqlalchemy as sa\nmeta = sa.MetaData()\nsa.Table('event', meta)\n"
        "@hookimpl\ndef hub_schemas():\n    return [Schema(owner='x', metadata=meta, versions=pathlib.Path())]",
    ),
    "repeats its own type": (
        "duplicate",
        "@hookimpl\ndef hub_event_types():\n    return [event('vn.congdoan.x.made.v1')] * 2",
    ),
    "claims a type that is taken": (
        "duplicate",
        "@hookimpl\ndef hub_event_types():\n    return [event('vn.congdoan.good.made.v1')]",
    ),
    "has a page of the hub's own": ("wrong_answer", "@hookimpl\ndef hub_pages():\n    return [page('/api/x')]"),
    "has a page at no segment of its own": ("wrong_answer", "@hookimpl\ndef hub_pages():\n    return [page('/')]"),
    "has a page in another's segment": ("duplicate", "@hookimpl\ndef hub_pages():\n    return [page('/good/mine')]"),
    "is a second directory": ("duplicate", "@hookimpl\ndef hub_directory():\n    return None"),
}


@pytest.mark.parametrize(("code", "body"), BROKEN.values(), ids=BROKEN.keys())
def test_a_plugin_is_named_and_left_out_when_it(make: Make, code: str, body: str) -> None:
    # Another, sound hook in front: nothing of it may stay behind.
    sound = "@hookimpl\ndef hub_commands():\n    raise AssertionError\n" if code == "hook_arguments" else ""
    registry = load_plugins([make("good", GOOD), make("later", sound + body)])

    assert names(registry) == {"later": code}
    assert [plugin.name for plugin in registry.plugins] == ["good"]
    assert " / " in registry.broken[0].why


def test_nothing_of_a_plugin_stays_when_its_last_hook_breaks(make: Make) -> None:
    half = (
        "@hookimpl\ndef hub_connector_types():\n    return [connector('half')]\n"
        "@hookimpl\ndef hub_event_types():\n    return [event('vn.congdoan.half.made.v1')]\n"
        "@hookimpl\ndef hub_handlers():\n    raise ValueError('late')\n"
        "@hookimpl\ndef hub_directory():\n    return None\n"
    )
    registry = load_plugins([make("half", half)])

    assert not registry.connector_types
    assert not registry.event_types
    assert registry.directory is None
    assert names(registry) == {"half": "hook_raised"}


def test_of_two_plugins_with_one_type_the_later_name_loses_in_any_order(make: Make) -> None:
    body = "@hookimpl\ndef hub_event_types():\n    return [event('vn.congdoan.same.made.v1')]"
    first, second = make("a_first", body), make("b_second", body)

    for points in ([first, second], [second, first]):
        registry = load_plugins(points)
        assert names(registry) == {"b_second": "duplicate"}
        assert [plugin.name for plugin in registry.plugins] == ["a_first"]


def test_the_reason_names_hook_and_error_on_one_line(make: Make) -> None:
    registry = load_plugins([make("bad", "@hookimpl\ndef hub_handlers():\n    raise RuntimeError('one\\ntwo')")])

    assert registry.broken == (
        BrokenPlugin(
            "bad",
            "hook_raised",
            "hook báo lỗi: hub_handlers: RuntimeError: one two / a hook raised: hub_handlers: RuntimeError: one two",
        ),
    )


def test_a_plugin_that_is_not_allowed_is_not_even_imported(make: Make) -> None:
    registry = load_plugins([make("good", GOOD), make("other", "raise AssertionError")], allowed={"good"})

    assert [plugin.name for plugin in registry.plugins] == ["good"]
    assert registry.broken == ()
    assert "made_plugin_other" not in sys.modules


def test_the_directory_may_do_without_the_hub(make: Make) -> None:
    registry = load_plugins([make("people", "@hookimpl\ndef hub_directory():\n    return None")])

    assert registry.directory is not None
    assert registry.directory(None) is None  # type: ignore[arg-type]  # it takes no argument


def test_the_registry_cannot_be_changed(make: Make) -> None:
    registry = load_plugins([make("good", GOOD)])

    with pytest.raises(TypeError):
        registry.event_types["x"] = None  # type: ignore[index]  # that is the point
