"""Field grants and content filters: what may leave, why, until when, and that nothing else ever does."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from hub.contract import Admit, Cancel, Delivered, Sink
from hub.model import EPOCH, Event, Json
from plugins.partners.content_filter import MAX_LENGTH, BadFilter, Filter
from plugins.partners.grants import Grant, came_at, common_types, cut, matches, what_may_leave
from tests.plugins.partners.conftest import Clock, Open, Simulator, event, opened, ship, shipped
from tests.plugins.partners.test_guard import Listener, listening

TYPE = "vn.congdoan.member.updated.v1"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def came(at: datetime, data: Json, kind: str = TYPE) -> Event:
    """An event that came to the hub at this instant."""
    ms = int(at.timestamp() * 1000)
    id = UUID(int=(ms << 80) | (0x7 << 76) | (0x2 << 62) | random.Random(ms).getrandbits(60))
    return Event(id=id, type=kind, source="/s", subject=None, occurred_at=at, data=data, scope="", correlation_id=id)


def grant(*fields: str, types: tuple[str, ...] = (TYPE,), **more: Any) -> Grant:
    return Grant(types=types, fields=fields, purpose="thống kê", legal_basis="Quy chế 12", **more)


# -- what may leave ------------------------------------------------------------------------------------


def test_an_id_says_when_its_event_came() -> None:
    assert came_at(came(NOW, {})) == NOW
    assert abs(came_at(event()) - datetime.now(UTC)) < HOUR
    assert UUID(bytes=uuid_utils.uuid7().bytes).version == came(NOW, {}).id.version == 7


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        (["a"], {"a": 1}),
        (["b"], {"b": {"c": 2, "d": {"e": 3}}}),
        (["b.c"], {"b": {"c": 2}}),
        (["b.d.e", "a"], {"a": 1, "b": {"d": {"e": 3}}}),
        (["b", "b.c"], {"b": {"c": 2, "d": {"e": 3}}}),
        (["b.c", "b"], {"b": {"c": 2, "d": {"e": 3}}}),
        (["x", "a.z", "b.c.z", "list.n"], {}),
        (["list"], {"list": [{"n": 1}]}),
        ([], {}),
    ],
)
def test_only_named_fields_are_left_in_the_order_of_the_data(fields: list[str], left: Json) -> None:
    assert cut({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "list": [{"n": 1}]}, fields) == left


NAMES = st.sampled_from(["a", "b", "c"])
DATA = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=12).filter(
    lambda value: isinstance(value, dict)
)


def leaves(data: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(data, dict):
        return {path: data}
    return {name: value for key, below in data.items() for name, value in leaves(below, (*path, key)).items()}


@given(DATA, st.lists(st.lists(NAMES, min_size=1, max_size=3).map(".".join), max_size=4))
def test_no_leaf_outside_the_named_fields_is_left_and_none_inside_is_lost(data: Json, fields: list[str]) -> None:
    named = [tuple(name.split(".")) for name in fields]
    expected = {p: v for p, v in leaves(data).items() if any(p[: len(name)] == name for name in named)}
    assert leaves(cut(data, fields)) == expected


def test_a_grant_covers_what_came_since_it_began_and_until_it_ends() -> None:
    one = grant("a", begins_at=NOW - HOUR, ends_at=NOW + HOUR)
    assert what_may_leave([one], came(NOW, {"a": 1, "b": 2}), NOW) == {"a": 1}
    assert what_may_leave([one], came(NOW - 2 * HOUR, {"a": 1}), NOW) == "not_granted"
    assert what_may_leave([one], came(NOW, {"a": 1}), NOW + HOUR) == "grant_ended"
    assert what_may_leave([one], came(NOW, {"a": 1}, "vn.congdoan.other.made.v1"), NOW) == "not_granted"
    assert what_may_leave([], came(NOW, {"a": 1}), NOW) == "not_granted"


def test_where_less_may_leave_than_it_was_owed_with_nothing_leaves() -> None:
    kept, ended = grant("a"), grant("b", ends_at=NOW)
    before, after = came(NOW - HOUR, {"a": 1, "b": 2}), came(NOW, {"a": 1, "b": 2})
    assert what_may_leave([kept, ended], before, NOW) == "grant_ended"
    assert what_may_leave([kept, ended], after, NOW) == {"a": 1}
    assert what_may_leave([kept, ended], came(NOW - HOUR, {"a": 1}), NOW) == {"a": 1}, "it held nothing of it"


@given(st.lists(st.tuples(st.integers(-3, 3), st.none() | st.integers(-3, 6), NAMES), max_size=5), st.integers(-3, 3))
def test_the_same_leaves_at_every_try_or_nothing(rows: list[tuple[int, int | None, str]], at: int) -> None:
    grants = [
        grant(name, begins_at=NOW + begins * HOUR, ends_at=None if ends is None else NOW + ends * HOUR)
        for begins, ends, name in rows
    ]
    one = came(NOW + at * HOUR, {"a": 1, "b": {"c": 2}, "c": 3})
    tries = [what_may_leave(grants, one, NOW + (at + later) * HOUR) for later in range(8)]
    sent = [each for each in tries if isinstance(each, dict)]
    assert all(each == sent[0] for each in sent)
    assert tries[: len(sent)] == sent, "once it has ended it stays ended"


@pytest.mark.parametrize(
    ("wanted", "granted", "common"),
    [
        (["vn.*"], ["vn.a.b.v1", "vn.c.*"], ("vn.a.b.v1", "vn.c.*")),
        (["vn.a.b.v1"], ["vn.*"], ("vn.a.b.v1",)),
        (["vn.a.*"], ["vn.a.*"], ("vn.a.*",)),
        (["vn.a.*"], ["vn.ab.c.v1", "vn.b.*"], ()),
        ([], ["vn.*"], ()),
    ],
)
def test_an_endpoint_gets_the_types_that_are_wanted_and_granted(
    wanted: list[str], granted: list[str], common: tuple[str, ...]
) -> None:
    assert common_types(wanted, [grant("a", types=tuple(granted))]) == common
    assert all(matches(each, each.replace("*", "x.v1")) for each in common)


# -- on the wire ---------------------------------------------------------------------------------------

PATHS = ["unit_id", "phone", "values.phone", "values.citizen_number", "values.address.street", "values.address.city"]


def marked(path: str) -> str:
    return f"MARK-{path.replace('.', '-')}-END"


def full_data(paths: list[str]) -> Json:
    data: Json = {}
    for path in paths:
        *parents, leaf = path.split(".")
        at = data
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = marked(path)
    return data


async def test_no_field_outside_the_grant_is_ever_on_the_wire() -> None:
    """300 partners with grants, events and modes by dice; what is looked at is every byte that left."""
    dice = random.Random(26)
    async with listening(Listener(), "127.0.0.1") as partner:
        url = f"http://127.0.0.1:{partner.port}/"
        for _ in range(300):
            now = datetime.now(UTC)
            granted = dice.sample(PATHS, dice.randint(0, 4))
            over = dice.sample(PATHS, dice.randint(1, 3))
            rows = [{"types": [TYPE], "fields": granted}] if granted else []
            rows += [{"types": [TYPE], "fields": over, "ends": str((now - timedelta(days=3)).date())}]
            rows += [{"types": ["vn.congdoan.other.*"], "fields": PATHS}]
            for row in rows:
                row |= {"purpose": "p", "legal_basis": "l"}
            mode = dice.choice(["structured", "binary", "webhook"])
            clock = Clock(now)
            connection = opened(clock, url, content_mode=mode, grants=rows)
            partner.heads.clear()
            partner.bodies.clear()
            one = came(now, full_data(dice.sample(PATHS, dice.randint(1, 6))))
            sink: Sink = connection.sink  # type: ignore[assignment]
            admission = await sink.admit(shipped(sink, one))
            outcome = await ship(connection, one)
            assert connection.close is not None
            await connection.close()
            allowed = {marked(path) for path in PATHS if any(path == g or path.startswith(g + ".") for g in granted)}
            seen = b"".join(partner.heads + partner.bodies).decode()
            assert set(re.findall(r"MARK-[a-z_-]+-END", seen)) <= allowed
            if granted:
                assert isinstance(admission, Admit) and isinstance(outcome, Delivered)
                assert set(re.findall(r"MARK-[a-z_-]+-END", seen)) == {m for m in allowed if m in json.dumps(one.data)}
            else:
                assert isinstance(admission, Cancel) and not isinstance(outcome, Delivered)
                assert seen == ""


async def test_a_delivery_whose_grant_ended_or_never_was_is_cancelled_with_its_reason(
    open_partner: Open, clock: Clock
) -> None:
    last = clock.moment + timedelta(days=1)  # a day in Vietnam, whatever day it is there now
    rows = [{"types": [TYPE], "fields": ["unit"], "purpose": "p", "legal_basis": "l", "ends": str(last.date())}]
    sink = open_partner("https://nhan.example.vn/", grants=rows).sink
    assert sink is not None
    one, other = event(), came(clock.moment, {}, "vn.congdoan.x.made.v1")
    assert isinstance(await sink.admit(shipped(sink, one)), Admit)
    assert await sink.admit(shipped(sink, other)) == Cancel("not_granted")
    clock.moment += timedelta(days=3)
    assert await sink.admit(shipped(sink, one)) == Cancel("grant_ended")


async def test_without_grants_the_subscription_alone_decides(simulator: Simulator, open_partner: Open) -> None:
    connection = open_partner(simulator.url("so-noi-vu"))
    sink = connection.sink
    assert sink is not None
    one = event(unit="CDCS-01", n=1)
    assert isinstance(await sink.admit(shipped(sink, one)), Admit)
    assert isinstance(await ship(connection, one), Delivered)


# -- filters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("data.unit == 'CDCS-01'", (True, "value: true")),
        ("data.unit == 'CDCS-02'", (False, "value: false")),
        ("data.missing", (False, "value: null")),
        ("data.unit", (True, "value: text")),
        ("data.n", (True, "value: number")),
        ("data.empty", (False, "value: list (empty)")),
        ("data", (True, "value: object")),
        ("starts_with(type, 'vn.congdoan.member.')", (True, "value: true")),
        ("contains(data.unit, 'CDCS') && data.n > `1`", (True, "value: true")),
        ("length(data.n)", (False, "error: JMESPathTypeError")),
        ("nothing_like_it(data)", (False, "error: UnknownFunctionError")),
    ],
)
def test_a_filter_says_whether_it_matches_and_why_without_the_content(text: str, verdict: tuple[bool, str]) -> None:
    found = Filter(text).judge(event(), {"unit": "CDCS-01", "n": 2, "empty": []})
    assert (found.matches, found.why) == verdict


@pytest.mark.parametrize(
    "text", ["", "a" * (MAX_LENGTH + 1), "a ||", "(" * 60 + "a" + ")" * 60, "!" * 60 + "a", "[" * 90]
)
def test_a_filter_that_is_none_too_long_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(BadFilter, match=" / "):
        Filter(text)


@given(st.text(max_size=60))
def test_no_text_makes_a_filter_raise_anything_else(text: str) -> None:
    try:
        made = Filter(text)
    except BadFilter:
        return
    made.judge(event(), {"a": [1, {"b": None}], "n": 1.5})


async def test_what_does_not_match_is_cancelled_and_the_filter_sees_granted_fields_only(open_partner: Open) -> None:
    rows = [{"types": [TYPE], "fields": ["unit"], "purpose": "p", "legal_basis": "l"}]
    filtered = Cancel("filtered")
    for text, expected in (
        ("data.unit == 'CDCS-01'", Admit()),
        ("data.unit == 'X'", filtered),
        ("data.phone", filtered),
    ):
        sink = open_partner("https://nhan.example.vn/", grants=rows, filter=text).sink
        assert sink is not None
        assert await sink.admit(shipped(sink, event(unit="CDCS-01", phone="0912000456"))) == expected


def test_a_grant_without_a_begin_covers_everything() -> None:
    assert grant("a").begins_at == EPOCH
