"""How long what is kept: the rules, and what of them is refused in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model import to_us
from hub.retention import Rules, first_id
from hub.routing import Router, Subscription
from hub.settings import HubSettings
from hub.settings_model import RetentionSettings
from tests.history import id_at
from tests.unit.test_settings import folder, problems, read, the_problem, write

__all__ = ["folder"]  # a fixture

MEMBER, QUESTION = "vn.congdoan.member.updated.v1", "vn.congdoan.question.asked.v1"
OURS = "//ldld.thainguyen.example/members"


def rules(
    retention: Mapping[str, Any] | None = None,
    connections: Mapping[str, int] | None = None,
    subscriptions: Mapping[str, Any] | None = None,
) -> Rules:
    """``subscriptions``: to whom members' events go: a destination, or several by channel."""
    router = Router([Subscription(name=n, types=(MEMBER,), **goal) for n, goal in (subscriptions or {}).items()], {})
    given = {"history_days": 100, "content_days": 90, **(retention or {})}
    return Rules(RetentionSettings(**given), 30, connections or {}, router)


# -- contents --------------------------------------------------------------------------------------


def test_contents_are_kept_as_long_as_history_unless_something_says_less() -> None:
    assert rules({"content_days": 100}).content_days(MEMBER, OURS) == 100
    assert rules().content_days(MEMBER, OURS) == 90
    assert Rules(RetentionSettings(history_days=50), 30, {}, Router([], {})).content_days(MEMBER, OURS) == 50


@pytest.mark.parametrize(
    ("event_types", "days"),
    [
        ({MEMBER: 7}, 7),
        ({"vn.congdoan.member.*": 7}, 7),
        ({"vn.congdoan.*": 7, "vn.congdoan.member.*": 30}, 30),
        ({"vn.congdoan.member.*": 30, MEMBER: 7, "vn.congdoan.*": 60}, 7),
        ({"vn.congdoan.member.updated": 7, "vn.congdoan.memb.*": 7, QUESTION: 7}, 90),
        ({MEMBER: 95}, 95),
    ],
)
def test_the_most_exact_pattern_of_an_event_type_counts(event_types: dict[str, int], days: int) -> None:
    assert rules({"event_types": event_types}).content_days(MEMBER, OURS) == days


def test_an_exact_name_beats_a_wildcard_of_the_same_length() -> None:
    some = rules({"event_types": {"a.b.c": 7, "a.b.*": 60}})
    assert (some.content_days("a.b.c", ""), some.content_days("a.b.d", "")) == (7, 60)


@pytest.mark.parametrize(
    ("subscriptions", "days"),
    [
        ({"one": {"to": "short"}}, 7),
        ({"one": {"to": "short"}, "two": {"to": "shorter"}}, 7),
        ({"one": {"to": "short"}, "two": {"to": "says-nothing"}}, 90),
        ({"one": {"to": "short"}, "two": {"to": "handler:register"}}, 90),
        ({"one": {"to_each": {"app": "short", "sms": "shorter"}}}, 7),
        ({"one": {"to": "longer"}}, 90),
        ({}, 90),
    ],
)
def test_of_those_who_are_sent_a_type_the_one_who_wants_its_content_longest_counts(
    subscriptions: dict[str, Any], days: int
) -> None:
    some = rules(connections={"short": 7, "shorter": 3, "longer": 99}, subscriptions=subscriptions)
    assert some.content_days(MEMBER, OURS) == days


def test_what_a_connection_brings_is_kept_no_longer_than_it_allows() -> None:
    some = rules(connections={"app": 7}, subscriptions={"one": {"to": "says-nothing"}})
    assert some.content_days(MEMBER, "//anything.example/connections/app") == 7
    assert some.content_days(MEMBER, "//anything.example/connections/other") == 90
    assert some.content_days(MEMBER, "//anything.example/app") == 90


_DAYS = st.integers(1, 100)


@given(
    content=_DAYS,
    event_types=st.dictionaries(st.sampled_from([MEMBER, "vn.congdoan.*", "vn.congdoan.member.*"]), _DAYS),
    connections=st.dictionaries(st.sampled_from(["a", "b", "c"]), _DAYS),
    to=st.lists(st.sampled_from(["a", "b", "c", "handler:x"])),
    brought_by=st.sampled_from(["a", "b", "", "d"]),
)
def test_no_content_is_kept_longer_than_history_or_less_than_the_shortest_rule(
    content: int, event_types: dict[str, int], connections: dict[str, int], to: list[str], brought_by: str
) -> None:
    some = rules(
        {"content_days": content, "event_types": event_types},
        connections,
        {f"s{n}": {"to": name} for n, name in enumerate(to)},
    )
    days = some.content_days(MEMBER, f"//x/connections/{brought_by}")
    assert some.shortest <= days <= some.history_days


# -- days ------------------------------------------------------------------------------------------


@given(st.dates(date(1971, 1, 1), date(2200, 1, 1)), st.integers(-2, 2), st.integers(0, 4095))
def test_a_day_begins_with_the_first_id_of_its_first_millisecond(day: date, ms: int, n: int) -> None:
    start = to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))
    assert (id_at(start + ms * 1000, n) < first_id(day)) == (ms < 0)
    assert first_id(day - timedelta(1)) < first_id(day)


# -- configuration ---------------------------------------------------------------------------------


def test_the_defaults_keep_all_of_it_for_more_than_a_year() -> None:
    settings = HubSettings()
    assert settings.retention == RetentionSettings(history_days=400, content_days=400, event_types={})
    assert settings.receipts.parked_days == 30


def test_retention_is_read_from_its_files(folder: Path) -> None:
    write(
        folder, "hub.toml",
        "[receipts]\nparked_days = 3\n[retention]\nhistory_days = 60\n"
        '[retention.event_types]\n"vn.congdoan.member.*" = 7',
    )  # fmt: skip
    write(folder, "connections/one.toml", 'type = "thing"\ncontent_days = 5\n[settings]\nurl = "x"')
    config = read(folder)
    some = Rules.of(config, Router([], {}))
    assert (some.history_days, some.parked_days, some.shortest) == (60, 3, 5)
    assert some.content_days(MEMBER, OURS) == 7
    assert some.content_days(QUESTION, OURS) == 60
    assert some.content_days(QUESTION, "//x/connections/one") == 5


def test_shorter_history_alone_shortens_contents_with_it(folder: Path) -> None:
    write(folder, "hub.toml", "[retention]\nhistory_days = 60")
    assert Rules.of(read(folder), Router([], {})).content_days(MEMBER, OURS) == 60


@pytest.mark.parametrize(
    ("text", "where", "key", "allowed"),
    [
        ("\n[retention]\nhistory_day = 1", "hub.toml:3", "retention.history_day", "history_days"),
        ("[retention]\nhistory_days = 0", "hub.toml:2", "retention.history_days", "at least 1"),
        ("[retention]\n\ncontent_days = -1", "hub.toml:3", "retention.content_days", "at least 1"),
        ("[retention]\nhistory_days = 7\ncontent_days = 8", "hub.toml:1", "retention", "longer than history_days"),
        (
            '\n[retention]\nhistory_days = 7\n[retention.event_types]\n"vn.congdoan.member.*" = 8',
            "hub.toml:2", "retention", "longer than history_days",
        ),
        (
            '[retention.event_types]\n"vn.congdoan.document.*" = 9\n"vn.congdoan.membr.*" = 8',
            "hub.toml:3", "retention.event_types.vn.congdoan.membr.*", "vn.congdoan.member.updated.v1",
        ),
        (
            '[retention]\nevent_types = { "vn.congdoan.membr.*" = 8 }',
            "hub.toml:2", "retention.event_types.vn.congdoan.membr.*", "vn.congdoan.member.updated.v1",
        ),
        (
            '[retention.event_types]\n\n"vn.congdoan.member.*" = "7"',
            "hub.toml:3", "retention.event_types.vn.congdoan.member.*", "whole number",
        ),
        ("[receipts]\nparked = 3", "hub.toml:2", "receipts.parked", "parked_days"),
    ],
)  # fmt: skip
def test_retention_is_refused_for(folder: Path, text: str, where: str, key: str, allowed: str) -> None:
    write(folder, "hub.toml", text)
    found = the_problem(folder)
    assert (found.where, found.key) == (where, key)
    assert allowed in found.en and found.vi != found.en


def test_a_connection_may_not_keep_contents_longer_than_history(folder: Path) -> None:
    write(folder, "hub.toml", "[retention]\nhistory_days = 60")
    write(folder, "connections/one.toml", 'type = "thing"\n\ncontent_days = 61\n[settings]\nurl = "x"')
    found = the_problem(folder)
    assert (found.where, found.key) == ("connections/one.toml:3", "content_days")
    assert "history_days" in found.en and "history_days" in found.vi


@pytest.mark.parametrize("value", ["0", '"7"', "1.5"])
def test_a_connections_days_are_a_whole_number_of_at_least_one(folder: Path, value: str) -> None:
    write(folder, "connections/one.toml", f'type = "thing"\ncontent_days = {value}\n[settings]\nurl = "x"')
    assert the_problem(folder).where == "connections/one.toml:2"


def test_variables_beat_the_file_and_are_named_when_they_are_wrong(folder: Path) -> None:
    name = "UNIONHUB_RETENTION__EVENT_TYPES"
    assert read(folder, {name: '{"vn.congdoan.member.*": 9}'}).hub.retention.event_types == {"vn.congdoan.member.*": 9}
    assert read(folder, {"UNIONHUB_RETENTION__HISTORY_DAYS": "9"}).hub.retention.history_days == 9
    (found,) = problems(folder, {name: '{"vn.congdoan.membr.*": 9}'})
    assert (found.where, found.key) == (name, "retention.event_types.vn.congdoan.membr.*")
