"""The configuration folder: read whole, or refused with every problem named by file, line and key."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from hub.contract import Connection, ConnectionSettings, ConnectorType, EventType, SecretRef
from hub.model import Priority
from hub.plugins import load_plugins
from hub.settings import (
    BadConfiguration,
    Configuration,
    HubFile,
    HubSettings,
    Problem,
    SubscriptionSettings,
    known_variables,
    load,
    parse_schedule,
    write_default,
    write_simulator_secrets,
)
from hub.settings_model import ConnectionFile, Section

ROOT = Path(__file__).parents[2]


class ThingSettings(ConnectionSettings):
    url: str = Field(description="Where.")
    window: int = Field(default=10, ge=1, le=100, description="How many.")
    secret: SecretRef | None = Field(default=None, description="Key.")
    keys: tuple[SecretRef, ...] = Field(default=(), description="Keys.")


def never(*_: Any) -> Connection:
    raise AssertionError("loading opens nothing")


def event_type(name: str, schema: Mapping[str, Any]) -> EventType:
    return EventType(name=name, title_vi="", title_en="", personal=False, thin=(), schema=schema, example={})


TYPES = {
    "thing": ConnectorType(name="thing", settings=ThingSettings, open=never),
    "mobile": ConnectorType(name="mobile", settings=ThingSettings, open=never, channel="phone"),
}
EVENTS = {
    kind.name: kind
    for kind in (
        event_type(
            "vn.congdoan.member.updated.v1",
            {
                "type": "object",
                "properties": {"card": {"type": "string"}, "home": {"type": "object", "properties": {"ward": {}}}},
            },
        ),
        event_type("vn.congdoan.document.received.v1", {"type": "object"}),
    )
}

Write = Callable[..., Path]
Load = Callable[..., Configuration]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound configuration; each test spoils one thing in it."""
    config = tmp_path / "config"
    (config / "connections").mkdir(parents=True)
    (config / "hub.toml").write_text('lang = "en"\n\n[http]\nport = 8081\n', "utf-8")
    (config / "subscriptions.toml").write_text("", "utf-8")
    (config / "connections" / "one.toml").write_text(
        'type = "thing"\nschedule = "every 5m"\n\n[settings]\nurl = "http://127.0.0.1"\n', "utf-8"
    )
    (config / "connections" / "two.toml").write_text(
        'type = "mobile"\nenabled = false\n[settings]\nurl = "x"\n', "utf-8"
    )
    return config


def read(folder: Path, environ: Mapping[str, str] | None = None, **more: Any) -> Configuration:
    return load(folder, environ or {}, TYPES, EVENTS, {"answer"}, **more)


def problems(folder: Path, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(BadConfiguration) as caught:
        read(folder, environ)
    return caught.value.problems


def the_problem(folder: Path, environ: Mapping[str, str] | None = None) -> Problem:
    found = problems(folder, environ)
    assert len(found) == 1, found
    return found[0]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8")


# -- what is read ----------------------------------------------------------------------------------


def test_a_sound_folder_is_read_whole(folder: Path) -> None:
    config = read(folder)

    assert config.hub.lang == "en"
    assert config.hub.http.port == 8081
    assert config.hub.retry.schedule_s[0] == 5
    assert list(config.connections) == ["one", "two"]
    assert config.connections["one"].settings == ThingSettings(url="http://127.0.0.1")
    assert config.connections["one"].schedule == parse_schedule("every 5m")
    assert config.connections["one"].file == "connections/one.toml"
    assert not config.connections["two"].enabled
    assert config.left_out == ()


def test_an_empty_hub_toml_means_the_defaults(folder: Path) -> None:
    write(folder, "hub.toml", "")

    assert read(folder).hub == HubSettings()


def test_data_lie_beside_the_configuration_folder(folder: Path) -> None:
    config = read(folder)

    assert config.var_dir == folder.parent / "var"
    assert config.database == folder.parent / "var" / "unionhub.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///data/x.db", "data/x.db"), ("sqlite:////srv/x.db", "/srv/x.db")],
)
def test_a_database_file_may_be_named(folder: Path, url: str, path: str) -> None:
    write(folder, "hub.toml", f'database_url = "{url}"')

    assert read(folder).database == folder.parent / path


def test_a_password_of_the_database_stands_in_the_environment_alone(folder: Path) -> None:
    url = "postgresql://hub:right-horse@127.0.0.1/hub"

    config = read(folder, {"UNIONHUB_DATABASE_URL": url})
    assert config.is_postgres and config.hub.database_url == url
    assert config.lock_file == folder.parent / "var" / "unionhub.lock"

    write(folder, "hub.toml", f'database_url = "{url}"')
    with pytest.raises(BadConfiguration) as refused:
        read(folder)
    assert "UNIONHUB_DATABASE_URL" in str(refused.value) and "right-horse" not in str(refused.value)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder: Path) -> None:
    (folder / "hub.toml").write_bytes(b'\xef\xbb\xbflang = "en"\r\n[http]\r\nport = "x"\r\n')

    assert the_problem(folder).where == "hub.toml:3"


def test_a_second_folder_is_read_as_well(folder: Path, tmp_path: Path) -> None:
    other = folder.rename(tmp_path / "demo")

    assert read(other).folder == other


# -- the environment -------------------------------------------------------------------------------


def test_the_environment_beats_the_file(folder: Path) -> None:
    config = read(folder, {"UNIONHUB_HTTP__PORT": "9000", "UNIONHUB_LANG": "vi", "HOME": "/root"})

    assert (config.hub.http.port, config.hub.lang, config.hub.http.host) == (9000, "vi", "127.0.0.1")


def test_lists_and_tables_come_from_the_environment_as_json(folder: Path) -> None:
    environ = {"UNIONHUB_RETRY__SCHEDULE_S": "[1, 2.5]", "UNIONHUB_BREAKER": '{"failures": 3}'}
    config = read(folder, environ)

    assert config.hub.retry.schedule_s == (1, 2.5)
    assert config.hub.breaker.failures == 3


def test_the_process_environment_is_not_read_behind_the_callers_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIONHUB_HTTP__PORT", "1")

    assert read(folder).hub.http.port == 8081


def test_an_unknown_variable_with_our_prefix_is_refused_with_the_nearest(folder: Path) -> None:
    problem = the_problem(folder, {"UNIONHUB_HTTP__PROT": "1"})

    assert problem.where == "UNIONHUB_HTTP__PROT"
    assert "UNIONHUB_HTTP__PORT" in problem.en


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("UNIONHUB_HTTP__PORT", "many", "http.port"),
        ("UNIONHUB_HTTP__PORT", "99999", "http.port"),
        ("UNIONHUB_LANG", "fr", "lang"),
        ("UNIONHUB_RETRY__SCHEDULE_S", "[1,", "retry.schedule_s"),
        ("UNIONHUB_RETRY__SCHEDULE_S", '["x"]', "retry.schedule_s[1]"),
        ("UNIONHUB_DATABASE_URL", "mysql://db/hub", "database_url"),
        ("UNIONHUB_HTTP", '{"prot": 1}', "http.prot"),
    ],
)
def test_a_bad_value_in_a_variable_is_blamed_on_the_variable(folder: Path, variable: str, value: str, key: str) -> None:
    problem = the_problem(folder, {variable: value})

    assert (problem.where, problem.key) == (variable, key)


def test_a_secrets_variable_may_carry_our_prefix(folder: Path) -> None:
    write(folder, "hub.toml", '[http]\nconsole_token = { env = "UNIONHUB_TOKEN" }')

    assert read(folder, {"UNIONHUB_TOKEN": "s"}).hub.http.console_token == SecretRef(env="UNIONHUB_TOKEN")


def test_every_setting_of_the_hub_has_a_variable() -> None:
    known = known_variables()

    assert known["UNIONHUB_HTTP__CONSOLE_TOKEN__ENV"] == ("http", "console_token", "env")
    assert {loc[0] for loc in known.values()} == set(HubFile.model_fields)


# -- hub.toml --------------------------------------------------------------------------------------

HUB = {
    "an unknown key": ("[http]\n\nprot = 1", "hub.toml:3", "http.prot", "port"),
    "an unknown table": ("\n[htpp]\nport = 1", "hub.toml:2", "htpp", "http"),
    "a dotted unknown key": ("lang = 'vi'\nhttp.prot = 1", "hub.toml:2", "http.prot", "port"),
    "a key in an inline table": ("http = { prot = 1 }", "hub.toml:1", "http.prot", "port"),
    "a quoted number": ('[http]\nport = "8080"', "hub.toml:2", "http.port", "whole number"),
    "a broken number": ("[worker]\nclaim_batch = 2.5", "hub.toml:2", "worker.claim_batch", "whole number"),
    "a number for a truth": ("[http]\nhost = 1", "hub.toml:2", "http.host", "text in quotes"),
    "a table for a list": ("[retry.schedule_s]\nx = 1", "hub.toml:1", "retry.schedule_s", "list"),
    "a value out of range": ("[http]\nport = 70000", "hub.toml:2", "http.port", "at most 65535"),
    "a value not in the list": ('lang = "fr"', "hub.toml:1", "lang", "'vi' or 'en'"),
    "an empty list": ("[retry]\nschedule_s = []", "hub.toml:2", "retry.schedule_s", "at least this many items: 1"),
    "not a number": ("[retry]\njitter = nan", "hub.toml:2", "retry.jitter", "number"),
    "a first pause above the longest": ("[breaker]\nmax_s = 1", "hub.toml:1", "breaker", "more than max_s"),
    "another database": ('\ndatabase_url = "mysql://x"', "hub.toml:2", "database_url", "sqlite:///FILE"),
    "a database in memory": ('database_url = "sqlite://"', "hub.toml:1", "database_url", "sqlite:///FILE"),
    "a secret in clear": (
        '[http]\nconsole_token = "hunter2"',
        "hub.toml:2",
        "http.console_token",
        "never written into TOML",
    ),
    "a secret with no place": ("[http]\nconsole_token = {}", "hub.toml:2", "http.console_token", "exactly one"),
    "a secret that is not set": (
        '[http]\nconsole_token = { env = "T" }',
        "hub.toml:2",
        "http.console_token",
        "the variable T is not set",
    ),
    "a syntax error": ("\nlang = \n", "hub.toml:2", "", "TOML"),
    "a missing quote at the end": ('lang = """x', "hub.toml:1", "", "TOML"),
    "a key written twice": ('lang = "vi"\nlang = "en"\n', "hub.toml:2", "", "twice"),
}


@pytest.mark.parametrize(("text", "where", "key", "allowed"), HUB.values(), ids=HUB.keys())
def test_hub_toml_is_refused_for(folder: Path, text: str, where: str, key: str, allowed: str) -> None:
    write(folder, "hub.toml", text)
    problem = the_problem(folder)

    assert (problem.where, problem.key) == (where, key)
    assert allowed in problem.en
    assert problem.vi


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "hub.toml").write_bytes(b'lang = "\xff"')

    assert the_problem(folder).en == "the file must be UTF-8"


@pytest.mark.parametrize("name", ["hub.toml", "subscriptions.toml"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()

    assert the_problem(folder).where == name


def test_a_missing_folder_is_refused_with_the_command_that_makes_one(folder: Path) -> None:
    assert "unionhub init" in the_problem(folder / "nowhere").en


def test_a_missing_connections_folder_is_refused(folder: Path) -> None:
    for path in (folder / "connections").iterdir():
        path.unlink()
    (folder / "connections").rmdir()

    assert the_problem(folder).where == "connections/"


def test_all_problems_are_named_at_once_in_both_languages(folder: Path) -> None:
    write(folder, "hub.toml", 'lang = "fr"\n[http]\nprot = 1')
    write(folder, "connections/one.toml", 'type = "thin"')
    with pytest.raises(BadConfiguration) as caught:
        read(folder, {"UNIONHUB_FOO": "1"})

    text = str(caught.value)
    assert "sai 4 chỗ" in text and "4 problem(s)" in text
    assert [p.where for p in caught.value.problems] == [
        "UNIONHUB_FOO",
        "connections/one.toml:1",
        "hub.toml:1",
        "hub.toml:3",
    ]
    assert all(str(p) in text for p in caught.value.problems)


@pytest.mark.parametrize(
    "text",
    ['[http]\nconsole_token = "hunter2"', "hunter2 = 1 = 2", '[http]\nport = "hunter2"', 'lang = "hunter2"'],
)
def test_a_value_is_never_repeated_in_a_problem(folder: Path, text: str) -> None:
    write(folder, "hub.toml", text)
    with pytest.raises(BadConfiguration) as caught:
        read(folder)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


# -- connections -----------------------------------------------------------------------------------

CONNECTION = {
    "an unknown type": ('\ntype = "thingy"', 2, "type", "thing"),
    "no type": ("[settings]\nurl = 'x'", 1, "type", "required"),
    "an unknown key": ("type = 'thing'\nenable = true\n[settings]\nurl = 'x'", 2, "enable", "enabled"),
    "a quoted truth": ("type = 'thing'\nenabled = 'yes'\n[settings]\nurl = 'x'", 2, "enabled", "true or false"),
    "an unknown setting": (
        "type = 'thing'\n[settings]\nurl = 'x'\nwindw = 1",
        4,
        "settings.windw",
        "window",
    ),
    "a missing setting": ("type = 'thing'\n\n[settings]", 3, "settings.url", "required"),
    "no settings at all": ("type = 'thing'", 1, "settings.url", "required"),
    "a setting of a wrong type": ("type = 'thing'\n[settings]\nurl = 1", 3, "settings.url", "text"),
    "a setting out of range": ("type='thing'\n[settings]\nurl='x'\nwindow = 0", 4, "settings.window", "at least 1"),
    "a secret in clear": (
        "type='thing'\n[settings]\nurl='x'\nsecret = 'hunter2'",
        4,
        "settings.secret",
        "never written into TOML",
    ),
    "a secret in clear in a list": (
        "type='thing'\n[settings]\nurl='x'\nkeys = ['hunter2']",
        4,
        "settings.keys[1]",
        "never written into TOML",
    ),
    "a secret file that is missing": (
        "type='thing'\n[settings]\nurl='x'\nkeys = [{file='secrets/k'}]",
        4,
        "settings.keys[1]",
        "secrets/k is missing",
    ),
    "weekdays by number": (
        "type='thing'\nschedule = '30 6 * * 1-5'\n[settings]\nurl='x'",
        2,
        "schedule",
        "may mean Tuesday to Saturday",
    ),
}


@pytest.mark.parametrize(("text", "line", "key", "allowed"), CONNECTION.values(), ids=CONNECTION.keys())
def test_a_connection_is_refused_for(folder: Path, text: str, line: int, key: str, allowed: str) -> None:
    write(folder, "connections/one.toml", text)
    problem = the_problem(folder)

    assert (problem.where, problem.key) == (f"connections/one.toml:{line}", key)
    assert allowed in problem.en


@pytest.mark.parametrize("stem", ["Upper", "a_b", "ă", "x" * 41, "٣"])
def test_a_connections_file_name_is_its_name_and_must_be_plain(folder: Path, stem: str) -> None:
    write(folder, f"connections/{stem}.toml", 'type = "thing"')

    assert "a-z 0-9" in the_problem(folder).en


def test_what_is_not_a_toml_file_beside_connections_is_ignored(folder: Path) -> None:
    write(folder, "connections/README.md", "x")
    write(folder, "connections/one.toml~", "x")

    assert list(read(folder).connections) == ["one", "two"]


def test_a_connection_that_is_switched_off_needs_no_secret_yet(folder: Path) -> None:
    write(folder, "connections/two.toml", "type='thing'\nenabled=false\n[settings]\nurl='x'\nsecret={file='s/k'}")

    assert "two" in read(folder).connections


@pytest.mark.parametrize(
    "text", ["every 0s", "every 5 m", "every -1s", "every ٥s", "5m", "", "* * * *", "61 * * * *", "0 6 * * funday"]
)
def test_a_schedule_is_refused_unless_it_is_one_of_two_forms(text: str) -> None:
    with pytest.raises(ValueError, match=" / "):
        parse_schedule(text)


@pytest.mark.parametrize(("text", "seconds"), [("every 30s", 30), ("every 5m", 300), ("every 2h", 7200)])
def test_a_schedule_may_be_a_period(text: str, seconds: int) -> None:
    assert parse_schedule(text).every == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["30 6 * * mon-fri", "0 7,13 * * *", "*/10 6-18 1 * sat,sun"])
def test_a_schedule_may_be_a_cron_line_with_weekdays_by_name(text: str) -> None:
    assert parse_schedule(text).cron == text


# -- secrets ---------------------------------------------------------------------------------------


def with_secret_file(folder: Path, content: bytes, mode: int) -> Path:
    path = folder / "secrets" / "k"
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(mode)
    write(folder, "connections/one.toml", "type='thing'\n[settings]\nurl='x'\nsecret={file='secrets/k'}")
    return path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o601])
def test_a_secret_file_that_others_can_open_is_refused_with_the_command_that_helps(folder: Path, mode: int) -> None:
    with_secret_file(folder, b"hunter2", mode)
    problem = the_problem(folder)

    assert problem.where == "connections/one.toml:4"
    assert "chmod 600" in problem.en and "chmod 600" in problem.vi
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(("content", "word"), [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "UTF-8")])
def test_a_secret_file_without_a_readable_secret_is_refused(folder: Path, content: bytes, word: str) -> None:
    with_secret_file(folder, content, 0o600)

    assert word in the_problem(folder).en


def test_a_secret_file_that_is_a_folder_is_refused(folder: Path) -> None:
    path = with_secret_file(folder, b"x", 0o600)
    path.unlink()
    path.mkdir()

    assert "is not a file" in the_problem(folder).en


def test_a_private_secret_file_is_taken(folder: Path) -> None:
    with_secret_file(folder, b"hunter2\n", 0o600)

    assert read(folder).connections["one"].settings.secret == SecretRef(file="secrets/k")  # type: ignore[attr-defined]


# -- subscriptions ---------------------------------------------------------------------------------

GOOD_SUBSCRIPTION = """
[[subscription]]
name = "first"
types = ["vn.congdoan.member.*", "vn.congdoan.document.received.v1"]
to = "one"
fields = ["card", "home.ward"]
priority = "bulk"

[[subscription]]
name = "second"
types = ["vn.congdoan.member.updated.v1"]
to = "handler:answer"

[[subscription]]
name = "third"
types = ["vn.congdoan.document.received.v1"]
on_dead = "hold"
ordered = false
expires_after_s = 60
[subscription.to_each]
phone = "two"
"""


def test_subscriptions_are_read_in_order(folder: Path) -> None:
    write(folder, "subscriptions.toml", GOOD_SUBSCRIPTION)
    first, second, third = read(folder).subscriptions

    assert (first.name, first.to, first.fields, first.ordered) == ("first", "one", ("card", "home.ward"), True)
    assert second.to == "handler:answer"
    assert (third.to_each, third.on_dead, third.expires_after_s) == ({"phone": "two"}, "hold", 60)
    assert first.routed().priority is Priority.BULK
    assert third.routed().to_each == {"phone": "two"}


ONE = '[[subscription]]\nname = "a"\n'
MEMBER = 'types = ["vn.congdoan.member.updated.v1"]\n'
SUBSCRIPTION = {
    "an unknown connection": (ONE + MEMBER + 'to = "onee"', 4, "to", "one"),
    "an unknown handler": (ONE + MEMBER + 'to = "handler:anser"', 4, "to", "handler:answer"),
    "an unknown type": (ONE + 'types = ["vn.congdoan.membr.updated.v1"]\nto = "one"', 3, "types[1]", "member"),
    "a wildcard that covers nothing": (ONE + 'types = ["vn.congdoan.dues.*"]\nto = "one"', 3, "types[1]", "vn."),
    "a wildcard in the middle": (ONE + 'types = ["vn.*.updated.v1"]\nto = "one"', 3, "types[1]", "last dot"),
    "a wildcard without a dot": (ONE + 'types = ["vn.congdoan.mem*"]\nto = "one"', 3, "types[1]", "last dot"),
    "a lone star": (ONE + 'types = ["*"]\nto = "one"', 3, "types[1]", "last dot"),
    "no types": (ONE + 'types = []\nto = "one"', 3, "types", "at least"),
    "one type as text": (ONE + 'types = "x"\nto = "one"', 3, "types", "list"),
    "no goal": (ONE + MEMBER, 1, "", "exactly one"),
    "two goals": (ONE + MEMBER + 'to = "one"\nto_each = { phone = "two" }', 1, "", "exactly one"),
    "an unknown field": (ONE + MEMBER + 'to = "one"\nfields = ["crad"]', 5, "fields[1]", "card"),
    "an unknown inner field": (ONE + MEMBER + 'to = "one"\nfields = ["card", "home.x"]', 5, "fields[2]", "home"),
    "a field of a plain value": (ONE + MEMBER + 'to = "one"\nfields = ["card.x"]', 5, "fields[1]", "card"),
    "an unknown connection for a channel": (ONE + MEMBER + 'to_each = { phone = "x" }', 4, "to_each.phone", "two"),
    "a connection of another channel": (ONE + MEMBER + 'to_each = { app = "two" }', 4, "to_each.app", "not app"),
    "a connection without a channel": (ONE + MEMBER + 'to_each = { phone = "one" }', 4, "to_each.phone", "none"),
    "an unknown key": (ONE + MEMBER + 'to = "one"\nprio = "bulk"', 5, "prio", "priority"),
    "an unknown priority": (ONE + MEMBER + 'to = "one"\npriority = "high"', 5, "priority", "'urgent'"),
    "a name used twice": (2 * (ONE + MEMBER + 'to = "one"\n'), 6, "name", "used above"),
    "a bad name": ('[[subscription]]\nname = "A b"\n' + MEMBER + 'to = "one"', 2, "name", "must match"),
}


@pytest.mark.parametrize(("text", "line", "key", "allowed"), SUBSCRIPTION.values(), ids=SUBSCRIPTION.keys())
def test_a_subscription_is_refused_for(folder: Path, text: str, line: int, key: str, allowed: str) -> None:
    write(folder, "subscriptions.toml", text)
    problem = the_problem(folder)

    assert problem.where == f"subscriptions.toml:{line}"
    assert problem.key.endswith(key)
    assert allowed in problem.en


@pytest.mark.parametrize(
    ("text", "key"),
    [('[[subscripton]]\nname = "a"', "subscripton"), ('[subscription]\nname = "a"', "subscription")],
)
def test_subscriptions_toml_holds_nothing_but_subscriptions(folder: Path, text: str, key: str) -> None:
    write(folder, "subscriptions.toml", text)

    assert the_problem(folder).key == key


def test_a_subscription_to_a_connection_that_is_wrong_itself_adds_no_second_problem(folder: Path) -> None:
    write(folder, "connections/one.toml", 'type = "nothing"')
    write(folder, "subscriptions.toml", ONE + MEMBER + 'to = "one"')

    assert the_problem(folder).where == "connections/one.toml:1"


def test_what_waits_for_a_broken_plugin_is_left_out_and_named(folder: Path) -> None:
    write(folder, "connections/lost.toml", 'type = "lost_type"')
    write(
        folder,
        "subscriptions.toml",
        GOOD_SUBSCRIPTION
        + ONE.replace('"a"', '"l1"') + MEMBER + 'to = "lost"\n'
        + ONE.replace('"a"', '"l2"') + MEMBER + 'to = "handler:lost"\n'
        + ONE.replace('"a"', '"l3"') + 'types = ["vn.congdoan.lost.made.v1"]\nto = "one"\n',
    )  # fmt: skip
    config = read(folder, broken_plugins=True)

    assert "lost" not in config.connections
    assert [s.name for s in config.subscriptions] == ["first", "second", "third"]
    assert len(config.left_out) == 4
    assert len(problems(folder)) == 3


def test_a_plain_mistake_is_refused_even_when_a_plugin_is_broken(folder: Path) -> None:
    write(folder, "hub.toml", "[http]\nprot = 1")

    with pytest.raises(BadConfiguration):
        read(folder, broken_plugins=True)


# -- the model itself ------------------------------------------------------------------------------


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [f.annotation for f in model.model_fields.values()]
    return [model, *(i for i in inner if isinstance(i, type) and issubclass(i, Section))]


@pytest.mark.parametrize("model", [*sections(HubFile), ConnectionFile, SubscriptionSettings], ids=lambda m: m.__name__)
def test_every_key_is_described_in_english_and_titled_in_vietnamese(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.title and field.description, name
        assert field.description.endswith("."), name


# -- the shipped configuration ---------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    kept = {"hub.toml", "subscriptions.toml", "connections", "README.md"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] in kept
    }


def test_config_in_the_repository_is_the_packaged_default() -> None:
    assert tree(ROOT / "config") == tree(ROOT / "hub" / "defaults")
    assert tree(ROOT / "config" / "demo") == tree(ROOT / "hub" / "demo" / "config")


def test_every_default_in_hub_toml_is_the_default_of_the_code_and_none_is_forgotten() -> None:
    text = (ROOT / "hub" / "defaults" / "hub.toml").read_text("utf-8")
    uncommented = tomllib.loads(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE))

    assert HubFile.model_validate(uncommented) == HubFile()
    assert HubFile.model_validate(tomllib.loads(text)) == HubFile()
    expected = {loc for loc in known_variables().values() if loc[:2] != ("http", "console_token")}
    found = {(key,) for key in uncommented} | {
        (key, inner) for key, table in uncommented.items() if isinstance(table, dict) for inner in table
    }
    assert found == expected


def test_the_shipped_configuration_is_valid_and_writes_to_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_default(folder)
    registry = load_plugins()
    assert registry.broken == ()

    config = load(folder, {}, registry.connector_types, registry.event_types, registry.handlers)

    # The other types are described, each with an example, in their plugins' READMEs.
    assert {c.type for c in config.connections.values()} == {"citizen_app", "partner", "telecom_sms", "doc_axis"}
    assert all(c.enabled for c in config.connections.values())
    with_channel = {c.name for c in config.connections.values() if registry.connector_types[c.type].channel}
    assert with_channel == {"c-thainguyen", "nha-mang"}
    for subscription in config.subscriptions:
        assert subscription.to_each is None and subscription.to not in with_channel


def test_a_missing_simulator_secret_names_the_command_that_writes_it(folder: Path) -> None:
    write(folder, "connections/one.toml", "type='thing'\n[settings]\nurl='x'\nsecret={file='secrets/simulator-x'}")

    assert "unionhub simulators" in the_problem(folder).en


def test_init_writes_the_default_with_private_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    written = write_default(folder)

    assert tree(folder) == tree(ROOT / "hub" / "defaults")
    assert set(written) == {path for path in folder.rglob("*") if path.is_file()}
    secrets = list((folder / "secrets").iterdir())
    assert secrets
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", "utf-8")

    with pytest.raises(Exception, match="not empty"):
        write_default(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_simulators_secret_never_replaces_an_operators_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_default(folder)
    kept = next((folder / "secrets").iterdir())
    kept.write_text("my own", "utf-8")

    assert write_simulator_secrets(folder) == []
    assert kept.read_text("utf-8") == "my own"


def test_simulator_secrets_are_written_only_where_a_connection_asks_for_them(folder: Path) -> None:
    assert write_simulator_secrets(folder) == []
    assert not (folder / "secrets").exists()
