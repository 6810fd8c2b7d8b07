"""Loading plugins: each one whole, or named with the reason and left out; the hub starts either way.

pluggy checks hook names and arguments and nothing more: what the hooks answer is checked here and frozen
into a ``Registry``, and from then on only typed objects are called. Each plugin is tried in a manager of
its own, because a registration that fails half-way leaves its first hooks behind in a shared one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import pluggy

from hub import hookspecs
from hub.contract import (
    Command,
    ConnectionSettings,
    ConnectorType,
    Directory,
    EventType,
    FeedView,
    Handler,
    Hub,
    LogEvent,
    PageRoute,
    Schema,
)

GROUP = "unionhub.plugins"
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9_-]+)+\.v[1-9][0-9]*", re.ASCII)
_LOG_EVENT = re.compile(r"[a-z_]+\.[a-z_]+", re.ASCII)
#: First segments that are the hub's own.
_OWN_SEGMENTS = frozenset({"api", "deliveries", "events", "healthz", "in", "live", "metrics", "readyz", "static"})
_PAGE_PATH = re.compile(r"/([a-z][a-z0-9-]{0,39})(/([a-z0-9._-]+|\{[a-z_]+\}))*/?", re.ASCII)
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that was left out; ``why`` says it in Vietnamese and English, ``code`` to a machine."""

    name: str
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin in use, with the hooks it implements."""

    name: str
    version: str
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Everything the plugins contribute, by name; it does not change while the hub runs."""

    connector_types: Mapping[str, ConnectorType]
    event_types: Mapping[str, EventType]
    handlers: Mapping[str, Handler]
    #: By owner.
    schemas: Mapping[str, Schema]
    #: By "group name", as typed on the command line.
    commands: Mapping[str, Command]
    log_events: Mapping[str, LogEvent]
    #: By method and path.
    pages: Mapping[str, PageRoute]
    #: Makes the Directory of this hub; None when no plugin keeps people.
    directory: Callable[[Hub], Directory | None] | None
    #: Makes what keys with an owner read of the feed; None: such keys read nothing.
    feed_view: Callable[[Hub], FeedView | None] | None
    plugins: tuple[LoadedPlugin, ...]
    broken: tuple[BrokenPlugin, ...]


def load_plugins(points: Iterable[EntryPoint] | None = None, allowed: Collection[str] | None = None) -> Registry:
    """The registry of the installed plugins, or of ``points``; ``allowed`` names those that may be loaded.

    Plugins are taken in order of their names, so that of two that claim one name always the same loses.
    """
    found = entry_points(group=GROUP) if points is None else points
    building = _Building()
    for point in sorted(found, key=lambda p: p.name):
        if allowed is None or point.name in allowed:
            building.add(point)
    return building.freeze()


class _LeftOut(Exception):
    """This plugin cannot be used."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{_REASONS[code][0]}: {detail} / {_REASONS[code][1]}: {detail}")
        self.code = code


_REASONS = {
    "import_failed": ("không nạp được mã", "cannot be imported"),
    "no_hooks": ("không cung cấp gì", "implements no hook"),
    "hook_unknown": ("khai báo hook không có", "implements a hook that does not exist"),
    "hook_arguments": ("hook sai tham số", "a hook has other arguments than specified"),
    "hook_unmarked": ("hook thiếu @hookimpl", "a hook lacks @hookimpl"),
    "hook_raised": ("hook báo lỗi", "a hook raised"),
    "wrong_answer": ("hook trả lời sai kiểu", "a hook answered something else than specified"),
    "duplicate": ("tên đã có phần mở rộng khác dùng", "a name is taken by another plugin"),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One list-valued hook: what it must answer and under which name each item is kept."""

    hook: str
    expected: type
    key: Callable[[Any], str]
    #: None, or what is wrong with an item of the right type.
    flaw: Callable[[Any], str | None]


def path_segment(route: PageRoute) -> str:
    """The first segment of a page's path, which is one plugin's alone."""
    return route.path.split("/", 2)[1]


# Plugin authors may not run a type checker, so items are looked at as if nothing were known of their fields.


def _connector_flaw(item: Any) -> str | None:
    if not _PLAIN_NAME.fullmatch(item.name):
        return f"name {item.name!r}"
    if not (isinstance(item.settings, type) and issubclass(item.settings, ConnectionSettings)):
        return f"settings of {item.name} is not a ConnectionSettings class"
    return None if callable(item.open) else f"open of {item.name} cannot be called"


def _event_flaw(item: Any) -> str | None:
    if not _EVENT_TYPE.fullmatch(item.name):
        return f"name {item.name!r} is not like vn.congdoan.member.updated.v1"
    if not isinstance(item.schema, Mapping) or not isinstance(item.example, Mapping):
        return f"schema and example of {item.name} must be mappings"
    if item.successor and (not item.deprecated or not _EVENT_TYPE.fullmatch(item.successor)):
        return f"successor of {item.name} must be an event type's name, and {item.name} deprecated"
    return None if isinstance(item.thin, tuple) else f"thin of {item.name} must be a tuple"


def _handler_flaw(item: Any) -> str | None:
    if not _PLAIN_NAME.fullmatch(item.name):
        return f"name {item.name!r}"
    return None if callable(item.handle) else f"handle of {item.name} cannot be called"


def _schema_flaw(item: Schema) -> str | None:
    strange = sorted(t.name for t in item.metadata.tables.values() if not t.name.startswith(f"{item.owner}_"))
    return f"tables {strange} must start with {item.owner}_" if strange else None


def _log_event_flaw(item: Any) -> str | None:
    return None if _LOG_EVENT.fullmatch(item.name) else f"name {item.name!r} is not like noun.past_tense"


def _command_flaw(item: Any) -> str | None:
    if not _PLAIN_NAME.fullmatch(item.group) or not _PLAIN_NAME.fullmatch(item.name):
        return f"name {item.group!r} {item.name!r}"
    return None if callable(item.run) else f"run of {item.group} {item.name} cannot be called"


def _page_flaw(item: Any) -> str | None:
    path = _PAGE_PATH.fullmatch(item.path)
    if item.method not in ("GET", "POST") or path is None or path[1] in _OWN_SEGMENTS:
        return f"path {item.method!r} {item.path!r}"
    return None if callable(item.handle) else f"handle of {item.path} cannot be called"


_KINDS = (
    _Kind("hub_connector_types", ConnectorType, lambda x: str(x.name), _connector_flaw),
    _Kind("hub_event_types", EventType, lambda x: str(x.name), _event_flaw),
    _Kind("hub_handlers", Handler, lambda x: str(x.name), _handler_flaw),
    _Kind("hub_schemas", Schema, lambda x: str(x.owner), _schema_flaw),
    _Kind("hub_log_events", LogEvent, lambda x: str(x.name), _log_event_flaw),
    _Kind("hub_commands", Command, lambda x: f"{x.group} {x.name}", _command_flaw),
    _Kind("hub_pages", PageRoute, lambda x: f"{x.method} {x.path}", _page_flaw),
)
_DIRECTORY = "hub_directory"
_FEED_VIEW = "hub_feed_view"


@dataclass(slots=True)
class _Building:
    """The registry while plugins are added, one after another, each wholly or not at all."""

    items: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind.hook: {} for kind in _KINDS})
    directory: Callable[[Hub], Directory | None] | None = None
    feed_view: Callable[[Hub], FeedView | None] | None = None
    plugins: list[LoadedPlugin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def add(self, point: EntryPoint) -> None:
        try:
            if any(plugin.name == point.name for plugin in self.plugins):
                raise _LeftOut("duplicate", point.name)
            hooks = _register(point.name, _import(point))
            answers = {kind.hook: self._ask(kind, hooks[kind.hook]) for kind in _KINDS if kind.hook in hooks}
            segments = {path_segment(route) for route in answers.get("hub_pages", {}).values()}
            if taken := segments & {path_segment(route) for route in self.items["hub_pages"].values()}:
                raise _LeftOut("duplicate", f"/{min(taken)}/")
            if _DIRECTORY in hooks and self.directory is not None:
                raise _LeftOut("duplicate", _DIRECTORY)
            if _FEED_VIEW in hooks and self.feed_view is not None:
                raise _LeftOut("duplicate", _FEED_VIEW)
        except _LeftOut as reason:
            self.broken.append(BrokenPlugin(point.name, reason.code, str(reason)))
            return
        for hook, answer in answers.items():
            self.items[hook].update(answer)
        if _DIRECTORY in hooks:
            self.directory = _factory(hooks[_DIRECTORY])
        if _FEED_VIEW in hooks:
            self.feed_view = _factory(hooks[_FEED_VIEW])
        version = point.dist.version if point.dist else ""
        self.plugins.append(LoadedPlugin(point.name, version, tuple(sorted(hooks))))

    def _ask(self, kind: _Kind, hook: pluggy.HookImpl) -> dict[str, Any]:
        """What one hook answers, checked item by item, by name."""
        try:
            answer = hook.function()
        except (Exception, SystemExit) as error:
            raise _LeftOut("hook_raised", f"{kind.hook}: {_said(error)}") from error
        if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
            raise _LeftOut("wrong_answer", f"{kind.hook}: {type(answer).__name__}, not a list")
        named: dict[str, Any] = {}
        for item in answer:
            if not isinstance(item, kind.expected):
                raise _LeftOut("wrong_answer", f"{kind.hook}: {type(item).__name__}, not {kind.expected.__name__}")
            try:
                name, flaw = kind.key(item), kind.flaw(item)
            except (TypeError, AttributeError) as error:
                # A field of another type than the contract says; dataclasses do not check.
                raise _LeftOut("wrong_answer", f"{kind.hook}: {_said(error)}") from error
            if flaw:
                raise _LeftOut("wrong_answer", f"{kind.hook}: {flaw}")
            if name in named or name in self.items[kind.hook]:
                raise _LeftOut("duplicate", f"{kind.hook}: {name}")
            named[name] = item
        return named

    def freeze(self) -> Registry:
        frozen = {hook: MappingProxyType(items) for hook, items in self.items.items()}
        return Registry(
            connector_types=frozen["hub_connector_types"],
            event_types=frozen["hub_event_types"],
            handlers=frozen["hub_handlers"],
            schemas=frozen["hub_schemas"],
            commands=frozen["hub_commands"],
            log_events=frozen["hub_log_events"],
            pages=frozen["hub_pages"],
            directory=self.directory,
            feed_view=self.feed_view,
            plugins=tuple(self.plugins),
            broken=tuple(self.broken),
        )


def _import(point: EntryPoint) -> Any:
    # A named edge: importing a stranger's module runs a stranger's code.
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise _LeftOut("import_failed", _said(error)) from error


def _register(name: str, plugin: Any) -> dict[str, pluggy.HookImpl]:
    """The hooks that ``plugin`` implements, by name, after pluggy has checked names and arguments."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
    except Exception as error:
        raise _LeftOut("hook_arguments", _said(error)) from error
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _LeftOut("hook_unknown", _said(error)) from error
    hooks = {caller.name: caller.get_hookimpls()[0] for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [n for n in vars(plugin) if n.startswith("hub_") and n not in hooks and callable(getattr(plugin, n))]
    if unmarked:
        raise _LeftOut("hook_unmarked", ", ".join(sorted(unmarked)))
    if not hooks:
        raise _LeftOut("no_hooks", name)
    return hooks


def _factory(hook: pluggy.HookImpl) -> Callable[[Hub], Any]:
    """Calls a hook that makes one thing of the hub."""
    # pluggy lets an implementation leave out arguments it does not need.
    takes_hub = bool(hook.argnames)
    return lambda hub: hook.function(hub) if takes_hub else hook.function()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}".replace("\n", " ")
