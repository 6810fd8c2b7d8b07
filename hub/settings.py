"""Reading the configuration folder: all of it, or one error that names everything wrong with it.

``load`` changes nothing and starts nothing, so that ``check`` and ``reload`` use it as it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from hub.contract import ConnectionSettings, ConnectorType, EventType, SecretRef
from hub.errors import ConfigError
from hub.routing import matches
from hub.secret_files import resolve_secret, secrets_in
from hub.settings_model import (
    DELIMITER,
    NAME,
    PREFIX,
    ConnectionFile,
    HubFile,
    HubSettings,
    InboundSettings,
    Schedule,
    Section,
    SubscriptionSettings,
    parse_schedule,
)
from hub.toml_file import Loc, Problem, TomlFile, dotted, explained, read, unknown

DEFAULTS = Path(__file__).parent / "defaults"
_HANDLER = "handler:"


class BadConfiguration(ConfigError):
    """The configuration is wrong; nothing was started or changed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        super().__init__(
            "\n".join(
                [
                    f"Cấu hình sai {count} chỗ; chưa có gì được chạy hay thay đổi."
                    f" / {count} problem(s) in the configuration; nothing was started or changed.",
                    *(f"  {problem}" for problem in self.problems),
                ]
            )
        )


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """One connection as its file describes it; ``settings`` is an instance of its connector type's model."""

    name: str
    type: str
    enabled: bool
    schedule: Schedule | None
    settings: ConnectionSettings
    #: Path inside the configuration folder, as texts for operators name it.
    file: str
    #: How long contents are kept for it; None: as the event types say.
    content_days: int | None = None
    inbound: InboundSettings = field(default_factory=InboundSettings)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything read from one folder, valid as a whole."""

    folder: Path
    hub: HubSettings
    connections: Mapping[str, ConnectionConfig]
    subscriptions: tuple[SubscriptionSettings, ...]
    #: What waits for a plugin that could not be loaded: named for the operator, not part of the above.
    left_out: tuple[Problem, ...] = ()

    @property
    def var_dir(self) -> Path:
        return self.folder.parent / self.hub.var_dir

    @property
    def database(self) -> Path:
        """The SQLite file."""
        path = self.hub.database_url.removeprefix("sqlite:///")
        return self.folder.parent / path if path else self.var_dir / "unionhub.db"

    @property
    def is_postgres(self) -> bool:
        return self.hub.database_url.startswith("postgresql://")

    @property
    def lock_file(self) -> Path:
        """Says who works with this installation, and where its socket is."""
        if self.is_postgres:
            return self.var_dir / "unionhub.lock"
        return self.database.with_name(self.database.name + ".lock")


def load(
    folder: Path,
    environ: Mapping[str, str],
    connector_types: Mapping[str, ConnectorType],
    event_types: Mapping[str, EventType],
    handlers: Collection[str],
    *,
    broken_plugins: bool = False,
) -> Configuration:
    """The configuration in ``folder`` with ``environ`` over it.

    Args:
        broken_plugins: some plugin was left out, so an unknown connector type, event type or handler may be
            its own: what needs one is left out and named in ``Configuration.left_out``, not refused.

    Raises: BadConfiguration, naming everything that is wrong.
    """
    return _Loading(folder.absolute(), environ, connector_types, event_types, handlers, broken_plugins).run()


def write_default(folder: Path) -> list[Path]:
    """Writes the commented default configuration and the simulators' secrets to a new ``folder``.

    Raises: ConfigError when something is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} đã có nội dung, không ghi đè; hãy chọn thư mục khác"
            f" / {folder} is not empty and nothing was overwritten; choose another folder"
        )
    shutil.copytree(DEFAULTS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("secrets"))
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    return [*written, *write_simulator_secrets(folder)]


def write_simulator_secrets(folder: Path) -> list[Path]:
    """Writes the public passwords of our simulators, where a connection in ``folder`` asks for one and it is missing.

    They open nothing but the simulators on this machine. Existing files are left as they are.
    """
    wanted = "".join(path.read_text("utf-8") for path in sorted((folder / "connections").glob("*.toml")))
    written = []
    for source in sorted((DEFAULTS / "secrets").glob("simulator-*.txt")):
        target = folder / "secrets" / source.stem
        if f'"secrets/{source.stem}"' not in wanted or target.exists():
            continue
        target.parent.mkdir(mode=0o700, exist_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes())
        written.append(target)
    return written


def known_variables() -> dict[str, Loc]:
    """Every ``UNIONHUB_*`` variable and the setting it replaces."""
    return {PREFIX + DELIMITER.join(map(str, loc)).upper(): loc for loc in _locs(HubFile)}


def _locs(model: type[BaseModel]) -> Iterator[Loc]:
    for name, info in model.model_fields.items():
        yield (name,)
        inner = info.annotation
        if inner == SecretRef | None:
            inner = SecretRef
        if isinstance(inner, type) and issubclass(inner, Section | SecretRef):
            yield from ((name, *loc) for loc in _locs(inner))


class _Environment(EnvSettingsSource):
    """Reads settings from the given variables instead of the process's own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._given = variables
        super().__init__(HubSettings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._given.items()}


class _Loading:
    """One pass over a folder, gathering problems on the way."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        connector_types: Mapping[str, ConnectorType],
        event_types: Mapping[str, EventType],
        handlers: Collection[str],
        broken_plugins: bool,
    ) -> None:
        self.folder = folder
        self.environ = environ
        self.connector_types = connector_types
        self.event_types = event_types
        self.handlers = handlers
        self.problems: list[Problem] = []
        #: Problems that a plugin left out may explain.
        self.left_out: list[Problem] = []
        self.doubts = self.left_out if broken_plugins else self.problems
        #: Every connection that has a file, whether it could be read or not.
        self.files: set[str] = set()
        self.connections: dict[str, ConnectionConfig] = {}
        #: Variables that a secret may come from; they may carry our prefix.
        self.secret_variables: set[str] = set()
        self._history_days = 2**31  # until hub.toml is read

    def run(self) -> Configuration:
        if not self.folder.is_dir():
            vi = "không có thư mục cấu hình này; tạo bằng lệnh: unionhub init"
            en = "no such configuration folder; create one with: unionhub init"
            raise BadConfiguration([Problem(str(self.folder), "", vi, en)])
        hub = self._hub()
        self._read_connections()
        subscriptions = self._subscriptions()
        self._refuse_unknown_variables()
        if self.problems or hub is None:
            raise BadConfiguration(self.problems)
        return Configuration(
            self.folder, hub, dict(sorted(self.connections.items())), subscriptions, tuple(self.left_out)
        )

    # -- hub.toml and the environment --------------------------------------------------------------

    def _hub(self) -> HubSettings | None:
        file = read(self.folder / "hub.toml", "hub.toml", self.problems)
        if file is None:
            return None
        before = len(self.problems)
        file.validate(HubFile, file.data, (), self.problems)
        given, merged = self._over(file.data)
        hub = None
        try:
            hub = HubSettings(**merged)
        except ValidationError as error:
            for loc, vi, en in explained(error, HubFile):
                variable = next((v for v, given_loc in given.items() if _touches(given_loc, loc)), None)
                if variable:
                    self.problems.append(Problem(variable, dotted(loc), vi, en))
                elif len(self.problems) == before:
                    self.problems.append(file.problem(loc, vi, en))
        if hub is not None and not _DATABASE_URL.fullmatch(hub.database_url):
            self._blame(file, given, ("database_url",), *_DATABASE)
        elif hub is not None and "database_url" in file.data and _has_password(str(file.data["database_url"])):
            self.problems.append(file.problem(("database_url",), *_PASSWORD))
        if hub is not None and hub.http.console_token is not None:
            self._check_secret(file, ("http", "console_token"), hub.http.console_token)
        if hub is not None:
            self._history_days = hub.retention.history_days
            self._check_retention(file, given, hub.retention.event_types)
        return hub

    def _check_retention(self, file: TomlFile, given: Mapping[str, Loc], patterns: Collection[str]) -> None:
        """Each pattern has to mean some event type, else it was misspelt."""
        at: Loc = ("retention", "event_types")
        variable = next((v for v, loc in given.items() if _touches(loc, at)), None)
        for pattern in patterns:
            if any(matches(pattern, name) for name in self.event_types):
                continue
            here: Loc = (*at, pattern)
            vi, en = unknown(pattern, self.event_types)
            in_file = variable is None or here in file.lines
            self.doubts.append(file.problem(here, vi, en) if in_file else Problem(str(variable), dotted(here), vi, en))

    def _over(self, data: dict[str, Any]) -> tuple[dict[str, Loc], dict[str, Any]]:
        """The variables that are ours, and ``data`` with their values over it."""
        known = known_variables()
        given = {name: known[name.upper()] for name in self.environ if name.upper() in known}
        merged = data
        for name in sorted(given):
            try:
                merged = _merge(merged, _Environment({name: self.environ[name]})())
            except SettingsError:
                vi, en = "giá trị phải ghi theo JSON, ví dụ [5, 300]", "the value must be JSON, for example [5, 300]"
                self.problems.append(Problem(name, dotted(given[name]), vi, en))
        return given, merged

    def _blame(self, file: TomlFile, given: Mapping[str, Loc], loc: Loc, vi: str, en: str) -> None:
        variable = next((v for v, at in given.items() if at == loc), None)
        self.problems.append(Problem(variable, dotted(loc), vi, en) if variable else file.problem(loc, vi, en))

    def _refuse_unknown_variables(self) -> None:
        known = known_variables()
        for name in self.environ:
            upper = name.upper()
            if upper.startswith(PREFIX) and upper not in known and name not in self.secret_variables:
                self.problems.append(Problem(name, "", *unknown(upper, known)))

    # -- connections/*.toml ------------------------------------------------------------------------

    def _read_connections(self) -> None:
        folder = self.folder / "connections"
        if not folder.is_dir():
            self.problems.append(Problem("connections/", "", "không có thư mục này", "this folder is missing"))
            return
        for path in sorted(folder.glob("*.toml")):
            shown = f"connections/{path.name}"
            self.files.add(path.stem)
            if not re.fullmatch(NAME, path.stem, re.ASCII):
                vi, en = "tên tệp chỉ gồm a-z 0-9 và -, nhiều nhất 40 ký tự", "file names are a-z 0-9 and -, at most 40"
                self.problems.append(Problem(shown, "", vi, en))
            elif file := read(path, shown, self.problems):
                self._connection(path.stem, file)

    def _connection(self, name: str, file: TomlFile) -> None:
        head = file.validate(ConnectionFile, file.data, (), self.problems)
        if head is None:
            return
        kind = self.connector_types.get(head.type)
        if kind is None:
            self.doubts.append(file.problem(("type",), *unknown(head.type, self.connector_types)))
            return
        settings = file.validate(kind.settings, head.settings, ("settings",), self.problems)
        if settings is None:
            return
        for loc, ref in secrets_in(settings):
            self._check_secret(file, ("settings", *loc), ref, needed=head.enabled)
        schedule = parse_schedule(head.schedule) if head.schedule else None
        if head.content_days is not None and head.content_days > self._history_days:
            vi = "không được dài hơn history_days của mục [retention] trong hub.toml"
            en = "must not be longer than history_days in [retention] of hub.toml"
            self.problems.append(file.problem(("content_days",), vi, en))
        self.connections[name] = ConnectionConfig(
            name, head.type, head.enabled, schedule, settings, file.shown, head.content_days, head.inbound
        )

    def _check_secret(self, file: TomlFile, loc: Loc, ref: SecretRef, needed: bool = True) -> None:
        if ref.env is not None:
            self.secret_variables.add(ref.env)
        if needed:
            try:
                resolve_secret(ref, self.folder, self.environ)
            except ConfigError as error:
                vi, _, en = str(error).partition(" / ")
                self.problems.append(file.problem(loc, vi, en))

    # -- subscriptions.toml ------------------------------------------------------------------------

    def _subscriptions(self) -> tuple[SubscriptionSettings, ...]:
        file = read(self.folder / "subscriptions.toml", "subscriptions.toml", self.problems)
        if file is None:
            return ()
        for key in file.data.keys() - {"subscription"}:
            self.problems.append(file.problem((key,), *unknown(key, ["subscription"])))
        tables = file.data.get("subscription", [])
        if not isinstance(tables, list):
            vi, en = "mỗi đăng ký nhận bắt đầu bằng [[subscription]]", "each one starts with [[subscription]]"
            self.problems.append(file.problem(("subscription",), vi, en))
            return ()
        found: dict[str, SubscriptionSettings] = {}
        for index, table in enumerate(tables):
            at: Loc = ("subscription", index)
            one = file.validate(SubscriptionSettings, table, at, self.problems)
            if one is None:
                continue
            if one.name in found:
                vi, en = "tên này đã dùng ở trên", "this name is used above"
                self.problems.append(file.problem((*at, "name"), vi, en))
            # Left out whole when something in it waits for a plugin; refused problems end the pass anyway.
            before = len(self.left_out)
            self._check_goals(file, at, one)
            self._check_types(file, at, one)
            if len(self.left_out) == before:
                found[one.name] = one
        return tuple(found.values())

    def _check_goals(self, file: TomlFile, at: Loc, one: SubscriptionSettings) -> None:
        if one.to is not None and one.to.startswith(_HANDLER):
            if one.to.removeprefix(_HANDLER) not in self.handlers:
                wrong = unknown(one.to, [_HANDLER + name for name in self.handlers])
                self.doubts.append(file.problem((*at, "to"), *wrong))
        elif one.to is not None:
            self._goal(file, (*at, "to"), one.to)
        for channel, name in (one.to_each or {}).items():
            goal = self._goal(file, (*at, "to_each", channel), name)
            has = self.connector_types[goal.type].channel if goal else channel
            if has != channel:
                vi = f"kết nối này gửi qua kênh {has or 'khác'}, không phải {channel}"
                en = f"this connection sends over the channel {has or 'none'}, not {channel}"
                self.problems.append(file.problem((*at, "to_each", channel), vi, en))

    def _goal(self, file: TomlFile, loc: Loc, name: str) -> ConnectionConfig | None:
        goal = self.connections.get(name)
        if goal is None and name not in self.files:
            self.problems.append(file.problem(loc, *unknown(name, self.connections)))
        elif goal is None:
            # Its own file says why; this line matters when that file waits for a plugin.
            vi, en = f"kết nối {name} chưa dùng được", f"the connection {name} cannot be used"
            self.left_out.append(file.problem(loc, vi, en))
        return goal

    def _check_types(self, file: TomlFile, at: Loc, one: SubscriptionSettings) -> None:
        covered: list[EventType] = []
        for index, pattern in enumerate(one.types):
            found = [kind for name, kind in self.event_types.items() if matches(pattern, name)]
            covered += found
            if not found:
                self.doubts.append(file.problem((*at, "types", index), *unknown(pattern, self.event_types)))
        for index, name in enumerate(one.fields if covered else ()):
            if not any(_has_field(kind.schema, name.split(".")) for kind in covered):
                allowed = {top for kind in covered for top in kind.schema.get("properties", {})}
                self.problems.append(file.problem((*at, "fields", index), *unknown(name, allowed)))


_DATABASE_URL = re.compile(r"(sqlite:///[^?#]+|postgresql://[^\s/?#]*/[^\s/?#]+(\?[^\s#]*)?)?")
_DATABASE = (
    'để "" hoặc ghi sqlite:///TỆP, hoặc postgresql://người_dùng@máy_chủ/cơ_sở_dữ_liệu',
    'leave "" or write sqlite:///FILE, or postgresql://user@host/database',
)
_PASSWORD = (
    "không ghi mật khẩu vào tệp này: đặt cả địa chỉ trong biến UNIONHUB_DATABASE_URL, hoặc mật khẩu trong PGPASSFILE",
    "no password in this file: put the whole URL into UNIONHUB_DATABASE_URL, or the password into PGPASSFILE",
)


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None or "password=" in urlsplit(url).query
    except ValueError:
        return False


def _touches(variable: Loc, error: Loc) -> bool:
    """Whether an error at ``error`` can come from a variable for ``variable``: one is around the other."""
    shared = min(len(variable), len(error))
    return bool(shared) and variable[:shared] == error[:shared]


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _has_field(schema: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether a dotted field can occur; a table without named properties that is not closed takes any."""
    if not path:
        return True
    properties = schema.get("properties")
    if properties is None:
        return schema.get("type", "object") == "object" and schema.get("additionalProperties") is not False
    return path[0] in properties and _has_field(properties[path[0]], path[1:])


__all__ = [
    "BadConfiguration", "Configuration", "ConnectionConfig", "ConnectionFile", "HubFile", "HubSettings",
    "Problem", "Schedule", "SubscriptionSettings", "known_variables", "load", "parse_schedule",
    "resolve_secret", "write_default", "write_simulator_secrets",
]  # fmt: skip
